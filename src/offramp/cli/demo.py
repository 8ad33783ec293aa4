"""`offramp demo`: the main job on real data in a few minutes: train three ways, compare, attack, report."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from offramp._core.files import check_writable
from offramp._core.text import one_line
from offramp.cli.attack import attack
from offramp.cli.common import DataOptions, JsonFlag, Seed, console, emit, note
from offramp.cli.evaluate import evaluate
from offramp.cli.paths import PathOption
from offramp.cli.report import report
from offramp.cli.train import train
from offramp.cli.victims import ExampleOptions, SearchOptions
from offramp.training.options import TrainingOptions

STRATEGIES = ("joint", "multi_model", "sweet")
EXITS = [1, 2, 4, 6]


def demo(
    *,
    output: PathOption = Path("demo"),
    data: str = "movies",
    backbone: str = "minilm-l6",
    train_size: int = 2000,
    epochs: float = 2.0,
    attacked: int = 40,
    seed: Seed = 0,
    json: JsonFlag = False,
) -> None:
    """Train Early-Exit, Multi-Model and SWEET classifiers, draw their curves, and attack them with SAME.

    The pretrained encoder and the labelled sentences come from registry packages, so no model hub is needed. With the
    defaults, the demo takes ten minutes on two cores. Repeat the command to resume a stopped demo or to show a
    finished one.

    Args:
        output: folder for models, records, tables, figures and the HTML page.
        data: a data set, as for `offramp train`.
        backbone: an encoder, as for `offramp train`.
        train_size: training examples.
        epochs: passes over them.
        attacked: examples attacked for each model.
        seed: for everything random.
    """
    check_writable(output)
    started = time.monotonic()
    reading = DataOptions(train_size=train_size)
    training = TrainingOptions(epochs=epochs, precision="auto")
    fit = partial(train, data, backbone=backbone, exits=EXITS, seed=seed, training=training, reading=reading)
    edit = partial(
        attack,
        data=data,
        chosen=ExampleOptions(examples=attacked, seed=seed),
        search=SearchOptions(rounds=5),
        reading=reading,
    )
    folders = {strategy: output / strategy for strategy in STRATEGIES}
    compared = output / "comparison"
    steps: list[tuple[str, Callable[[], object]]] = []
    for strategy, folder in folders.items():
        if not (folder / "train.json").exists():
            title = f"train {strategy} on {train_size} sentences of {data}"
            steps.append((title, partial(fit, strategy=strategy, output=folder)))
    if not (compared / "record.json").exists():
        compare = partial(
            evaluate, [*folders.values()], data=data, timed=64, output=compared, reading=reading
        )
        steps.append(("measure all exits, tune thresholds for one point of accuracy, compare", compare))
    for strategy, folder in folders.items():
        steps.append((f"attack {strategy} with SAME", partial(edit, folder, recipe="same-word")))
    random_edits = partial(edit, folders["sweet"], recipe="random-word")
    steps.append(("attack sweet with random edits under the same budget", random_edits))
    steps.append(("write tables and figures", partial(report, [output], output=output / "report")))
    run_steps(steps)
    minutes = (time.monotonic() - started) / 60
    text = (output / "report" / "report.md").read_text(encoding="utf-8")
    console.print(text, soft_wrap=True)
    note(f"{minutes:.1f} minutes. Tables and figures: {output / 'report'} (open index.html)")
    options = {"data": data, "backbone": backbone, "train_size": train_size, "epochs": epochs}
    emit(json, {"output": str(output), "minutes": minutes, **options, "attacked": attacked, "seed": seed})


def run_steps(steps: list[tuple[str, Callable[[], object]]]) -> None:
    """Run steps with titles, and print which step is running and how long each took."""
    for number, (title, action) in enumerate(steps, start=1):
        console.rule(one_line(f"[{number}/{len(steps)}] {title}"), align="left")
        started = time.monotonic()
        action()
        note(f"[{number}/{len(steps)}] done in {time.monotonic() - started:.0f} s")
