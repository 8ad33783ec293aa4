"""`offramp demo`: a first answer within a minute; then the main job: train three ways, compare, attack, report."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from offramp._core.files import check_writable
from offramp._core.records import FILE_NAME
from offramp.cli.attack import attack
from offramp.cli.common import DataOptions, JsonFlag, Seed, emit, note
from offramp.cli.evaluate import evaluate
from offramp.cli.first_look import first_look, fit
from offramp.cli.paths import PathOption
from offramp.cli.report import report
from offramp.cli.steps import Step, run_steps
from offramp.cli.victims import ExampleOptions, SearchOptions
from offramp.training.options import RECORD, TrainingOptions

STRATEGIES = ("joint", "multi_model", "sweet")
EXITS = [1, 2, 4, 6]
# Larger batches than the usual ones: the update of the token table takes as long for a small batch as for a large one.
BATCH_SIZE = 32
# Seconds on two idle cores: of a thousand training sentences and pass, of an evaluation, and of an attacked example.
FIRST = 25.0
SHOWN_AGAIN = 8.0  # a step that is done already
TRAINING = {"joint": 6.0, "multi_model": 15.0, "sweet": 6.5}
EVALUATION = 60.0
ATTACK = {"joint": 0.55, "multi_model": 0.8, "sweet": 0.6}
RANDOM_EDITS = 0.8
REPORT = 12.0


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

    First a small model shows a sentence that leaves early, and the same sentence under attack. The pretrained encoder
    and the labelled sentences come from registry packages, so no model hub is needed. With the defaults, the demo takes
    six minutes on two cores. Repeat the command to resume a stopped demo or to show a finished one.

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
    training = TrainingOptions(epochs=epochs, batch_size=BATCH_SIZE, precision="auto")
    reading = DataOptions(train_size=train_size)
    steps = [
        _first_step(data, output / "first", backbone, seed, training),
        *_training_steps(data, output, backbone, seed, training, reading),
        *_attack_steps(data, output, ExampleOptions(examples=attacked, seed=seed), reading),
        Step("write tables and figures", REPORT, partial(report, [output], output=output / "report")),
    ]
    minutes = run_steps(steps, "demo") / 60
    note(f"{minutes:.1f} minutes. Tables and figures: {output / 'report'} (open index.html)")
    options = {"data": data, "backbone": backbone, "train_size": train_size, "epochs": epochs}
    emit(json, {"output": str(output), "minutes": minutes, **options, "attacked": attacked, "seed": seed})


def _first_step(data: str, folder: Path, backbone: str, seed: int, training: TrainingOptions) -> Step:
    action = partial(first_look, data, folder, backbone=backbone, exits=EXITS, seed=seed, training=training)
    seconds = SHOWN_AGAIN if (folder / RECORD).exists() else FIRST
    return Step("a first answer: train a small model, and attack one sentence", seconds, action)


def _training_steps(
    data: str, output: Path, backbone: str, seed: int, training: TrainingOptions, reading: DataOptions
) -> list[Step]:
    """Train and compare what is not there yet."""

    def train(strategy: str) -> None:
        rows = reading.load(data)
        fit(
            rows,
            output / strategy,
            strategy=strategy,
            backbone=backbone,
            exits=EXITS,
            seed=seed,
            training=training,
        )

    size = (reading.train_size or 0) * training.epochs / 1000
    steps = [
        Step(
            f"train {strategy} on {reading.train_size} sentences of {data}",
            TRAINING[strategy] * size,
            partial(train, strategy),
        )
        for strategy in STRATEGIES
        if not (output / strategy / RECORD).exists()
    ]
    compared = output / "comparison"
    if not (compared / FILE_NAME).exists():
        folders = [output / strategy for strategy in STRATEGIES]
        compare = partial(evaluate, folders, data=data, timed=64, output=compared, reading=reading)
        title = "measure all exits, tune thresholds for one point of accuracy, compare"
        steps.append(Step(title, EVALUATION, compare))
    return steps


def _attack_steps(data: str, output: Path, chosen: ExampleOptions, reading: DataOptions) -> list[Step]:
    edit = partial(attack, data=data, chosen=chosen, search=SearchOptions(rounds=5), reading=reading)
    steps = [
        Step(
            f"attack {strategy} with SAME",
            ATTACK[strategy] * chosen.examples,
            partial(edit, output / strategy, recipe="same-word"),
        )
        for strategy in STRATEGIES
    ]
    random_edits = partial(edit, output / "sweet", recipe="random-word")
    title = "attack sweet with random edits under the same budget"
    return [*steps, Step(title, RANDOM_EDITS * chosen.examples, random_edits)]
