"""`offramp demo`: the main job on real data in a few minutes: train three ways, compare, attack, report."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from offramp.cli.attack import attack
from offramp.cli.common import DataOptions, console, emit, note
from offramp.cli.evaluate import evaluate
from offramp.cli.report import report
from offramp.cli.train import train
from offramp.cli.victims import ExampleOptions, SearchOptions
from offramp.training.options import TrainingOptions

STRATEGIES = ("joint", "multi_model", "sweet")
EXITS = [1, 2, 4, 6]


@dataclass(frozen=True)
class DemoOptions:
    """What the demo runs; the defaults fit into ten minutes on two cores.

    Args:
        data: a data set, as for `offramp train`.
        backbone: an encoder, as for `offramp train`.
        train_size: training examples.
        epochs: passes over them.
        attacked: examples attacked for each model.
        seed: for everything random.
    """

    data: str = "movies"
    backbone: str = "minilm-l6"
    train_size: int = 2000
    epochs: float = 2.0
    attacked: int = 40
    seed: int = 0


def demo(
    *,
    output: Path = Path("demo"),
    options: Annotated[DemoOptions, Parameter(name="*")] = DemoOptions(),
    json: bool = False,
) -> None:
    """Train Early-Exit, Multi-Model and SWEET classifiers, draw their curves, and attack them with SAME.

    The pretrained encoder and the labelled sentences come from registry packages, so no model hub is needed. A
    stopped demo resumes when it is called again. A complete demo is shown again at once.

    Args:
        output: folder for models, records, tables, figures and the HTML page.
        options: what is run.
        json: print one JSON object on stdout.
    """
    started = time.monotonic()
    reading = DataOptions(train_size=options.train_size)
    training = TrainingOptions(epochs=options.epochs, precision="auto")
    folders = {strategy: output / strategy for strategy in STRATEGIES}
    steps = Steps(total=2 * len(STRATEGIES) + 3)
    for strategy, folder in folders.items():
        with steps.step(f"train {strategy} on {options.train_size} sentences of {options.data}"):
            if not (folder / "train.json").exists():
                train(
                    options.data,
                    output=folder,
                    backbone=options.backbone,
                    exits=EXITS,
                    strategy=strategy,
                    seed=options.seed,
                    training=training,
                    reading=reading,
                )
    with steps.step("measure all exits, tune thresholds for one point of accuracy, compare"):
        if not (output / "comparison" / "record.json").exists():
            evaluate(
                list(folders.values()),
                data=options.data,
                timed=64,
                output=output / "comparison",
                reading=reading,
            )
    for strategy, folder in folders.items():
        with steps.step(f"attack {strategy} with SAME"):
            _attack(folder, options, "same-word", reading)
    with steps.step("attack sweet with random edits under the same budget"):
        _attack(folders["sweet"], options, "random-word", reading)
    with steps.step("write tables and figures"):
        report(output, output=output / "report")
    minutes = (time.monotonic() - started) / 60
    console.print(
        (output / "report" / "report.md").read_text(encoding="utf-8"), markup=False, highlight=False
    )
    note(f"{minutes:.1f} minutes. Tables and figures: {output / 'report'} (open index.html)")
    emit(json, {"output": str(output), "minutes": minutes, **asdict(options)})


def _attack(folder: Path, options: DemoOptions, recipe: str, reading: DataOptions) -> None:
    attack(
        folder,
        options.data,
        recipe=recipe,
        chosen=ExampleOptions(examples=options.attacked, seed=options.seed),
        search=SearchOptions(rounds=5),
        reading=reading,
    )


class Steps:
    """Says which step of how many is running, and how long each took."""

    def __init__(self, total: int) -> None:
        self.total, self.number = total, 0

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """One step."""
        self.number += 1
        console.rule(f"[{self.number}/{self.total}] {title}", align="left")
        started = time.monotonic()
        yield
        note(f"[{self.number}/{self.total}] done in {time.monotonic() - started:.0f} s")
