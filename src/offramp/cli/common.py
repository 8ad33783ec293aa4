"""Shared by several commands: data options, model folders, policies, and the display of results."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter, validators

from offramp._core.arguments import check_share
from offramp._core.environment import usable_cores
from offramp._core.errors import ConfigError
from offramp._core.files import atomic_write, policy_file, write_failure
from offramp._core.progress import console, progress, quiet
from offramp._core.records import write_record
from offramp._core.text import one_line
from offramp._core.to_json import to_json
from offramp.cli.paths import PathOption
from offramp.cli.tables import print_table
from offramp.criteria import CRITERIA
from offramp.engine.policy import Policy

if TYPE_CHECKING:
    from offramp.data.text_data import TextData
    from offramp.model.base import SegmentedModel

Seed = Annotated[int, Parameter(validator=validators.Number(gte=0, lt=2**31))]
Threads = Annotated[int | None, Parameter(help="CPU threads; by default as many as the process may use.")]
CriterionName = Annotated[
    str,
    Parameter(help=f"the exit rule: {', '.join(name for name, rule in CRITERIA.items() if rule.tunable)}."),
]
# Tables and progress go to stderr; with --json, stdout carries one JSON object and nothing else.
JsonFlag = Annotated[bool, Parameter(help="print the result as one JSON object on stdout.")]

WIDE = 4  # columns of a single row beside each other
UNITS = {
    "cost": "cost (share of FLOPs)",
    "depth": "depth (layers)",
    "clean_depth": "clean depth (layers)",
    "adversarial_depth": "adversarial depth (layers)",
    "clean_cost": "clean cost (share of FLOPs)",
    "adversarial_cost": "adversarial cost (share of FLOPs)",
    "efficiency_drop": "efficiency drop (share)",
    "gain_drop": "gain drop (share)",
    "share": "share of the ideal",
    "peak_mib": "peak MiB",
    "activation_mib": "activations, MiB",
    "joules": "joules a text",
    "p50": "p50, ms",
    "p95": "p95, ms",
    "p99": "p99, ms",
}


@Parameter(name="*", group=Group("How to read the data", sort_key=9))
@dataclass(frozen=True)
class DataOptions:
    """How to read the data; the names of columns are only needed for your own files with unusual names.

    Args:
        text: column of the text.
        text_pair: column of the second text, for pairs.
        label: column of the label.
        kind: classification or regression; by default labels with decimals are regression.
        task: GLUE task of a folder, if its name and columns do not show it.
        train_size: number of training examples to use, chosen by `--data-seed`, with the same share of each class.
        calibration_size: number of rows to cut from the training rows as the calibration split, where the data have
            none; by default a tenth, at most 1,000. Give every command the same.
        validation_size: the same for the validation split.
        calibrate_on: move half of this split to the calibration split. Use this for data whose training rows differ
            from future rows, such as SST-2's phrases, and give it to every command.
        data_seed: chooses the rows that `--train-size` keeps and those that move to another split.
    """

    text: str | None = None
    text_pair: str | None = None
    label: str | None = None
    kind: Literal["classification", "regression"] | None = None
    task: str | None = None
    train_size: int | None = None
    calibration_size: int | None = None
    validation_size: int | None = None
    calibrate_on: str | None = None
    data_seed: Seed = 0

    def load(self, source: str) -> TextData:
        """The data, with the training split cut to `train_size`."""
        with progress("load libraries"):
            from offramp.data import load_data

        if self.calibrate_on is not None and self.calibration_size is not None:
            raise ConfigError("--calibration-size and --calibrate-on make the same split: give one of them")
        with progress(f"read {source}"):
            data = load_data(
                source,
                task=self.task,
                text=self.text,
                text_pair=self.text_pair,
                label=self.label,
                kind=self.kind,
                calibration_size=self.calibration_size,
                validation_size=self.validation_size,
                seed=self.data_seed,
            )
        if self.calibrate_on is not None:
            data = data.calibrated_on(self.calibrate_on, self.data_seed)
        return data if self.train_size is None else data.subsample(self.train_size, self.data_seed)


def load_for(folder: Path, data: TextData, *unseen: str, device: str = "cpu") -> SegmentedModel:
    """The model in a folder, for data that fit it.

    Args:
        folder: of the model.
        data: the data that it is run on.
        unseen: splits that it must not have been trained on; `train` is ignored.
        device: of the model; `auto` where no time is measured.

    Raises:
        DataError: the model answers with other classes than the data has, or was trained on an `unseen` split.
    """
    with progress(f"load {folder.name}"):
        from offramp.data import check_fit
        from offramp.model import read_model
        from offramp.model.trained_on import refuse_trained_on

        model = read_model(folder, device=device)
    check_fit(data, model.labels, model.kind, pair=model.pair, model=str(folder))
    for split in sorted({*unseen} - {"train"}):
        refuse_trained_on(model.trained_on, data[split], f"{folder} and the {split} split of {data.name}")
    return model


@Parameter(name="*")
@dataclass(frozen=True)
class RuleOptions:
    """When a model leaves.

    Args:
        policy: a policy file, instead of the one beside the model.
        max_accuracy_drop: target of the tuning, if there is no policy yet.
    """

    criterion: CriterionName = "confidence"
    policy: PathOption | None = None
    max_accuracy_drop: float = 0.01

    def __post_init__(self) -> None:
        check_share("max_accuracy_drop", self.max_accuracy_drop, unit=" points")

    def of(self, folder: Path, model: SegmentedModel, data: TextData) -> Policy:
        """The policy of these options for the model in a folder."""
        if self.policy is not None:
            return Policy.load(self.policy)
        return policy_for(folder, model, data, self.criterion, self.max_accuracy_drop)


def policy_for(
    folder: Path, model: SegmentedModel, data: TextData, criterion: str, max_accuracy_drop: float
) -> Policy:
    """The policy beside a model, tuned first where there is none."""
    from offramp.calibration import tune

    path = folder / policy_file(criterion)
    if not path.exists():
        tune(model, data, criterion, max_accuracy_drop=max_accuracy_drop).save(path)
        note(
            f"{folder.name}: no policy for {criterion!r} yet: tuned for a drop of at most {max_accuracy_drop:g}"
        )
    return Policy.load(path)


def refuse_filled(folder: Path) -> None:
    """Raise `ConfigError` if an output folder is not empty."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} holds something already: choose a new folder, or empty it")


def refuse_calibration(split: str) -> None:
    """Raise `ConfigError` for the split that thresholds are fitted on."""
    if split == "calibration":
        raise ConfigError(
            "thresholds are fitted on the calibration split, so nothing is reported on it: try validation"
        )


def limit_threads(threads: int | None) -> int:
    """Set torch's CPU threads, where a number is given; returns the number in use."""
    if threads is None:
        return usable_cores()
    if threads < 1:
        raise ConfigError(f"threads must be at least 1, got {threads}")
    os.environ["OMP_NUM_THREADS"] = str(threads)
    import torch

    torch.set_num_threads(threads)
    return threads


def note(text: str) -> None:
    """A line for people; none with --quiet."""
    if not quiet.get():
        console.print(one_line(text), soft_wrap=True)


def show(title: str, rows: Iterable[Mapping[str, Any]], *, names: int = 1) -> None:
    """A table for people; a single wide row is shown vertically.

    Args:
        title: a line above the table.
        rows: values by the names of the columns.
        names: how many columns at the left name a row.
    """
    rows = list(rows)
    if not rows:
        return
    if len(rows) == 1 and len(rows[0]) > WIDE:
        rows, names = [{"": heading(name), "value": value} for name, value in rows[0].items()], 1
    cells = [[format_cell(value) for value in row.values()] for row in rows]
    print_table(console, title, [*map(heading, rows[0])], cells, names=names)


def heading(name: str) -> str:
    """The name of a value for people, with its unit."""
    return UNITS.get(name) or name.replace("_", " ")


def format_cell(value: Any) -> str:
    """A value as a table cell: three decimals for floats, a dash for a missing value."""
    if value is None or (isinstance(value, float) and value != value):
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def emit(json_output: bool, result: Mapping[str, Any]) -> None:
    """The result as one JSON object on stdout, where `--json` was given."""
    if json_output:
        text = json.dumps(_json_ready(result), indent=2, allow_nan=False)
        try:
            print(text, flush=True)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise write_failure(Path("stdout"), error) from error


def _json_ready(value: Any) -> Any:
    """A value in JSON's own types; paths stay whole (a record would shorten them), undefined numbers are null."""
    if isinstance(value, Mapping):
        return {str(k): _json_ready(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_json_ready(v) for v in value]
    return str(value) if isinstance(value, str | Path) else to_json(value)


def finish_bench(
    folder: Path,
    command: str,
    tables: Mapping[str, list[dict[str, Any]]],
    config: Mapping[str, Any],
    started: datetime,
    *,
    seed: int,
    title: str,
    json_output: bool,
    names: int = 1,
) -> None:
    """Record a benchmark of one table, and show it; arguments as of `write_record` and `show`."""
    (table,) = tables.values()
    show(title, table, names=names)
    path = write_record(
        folder, command=command, config=config, metrics={}, seed=seed, tables=tables, started=started
    )
    note(f"record: {path}")
    emit(json_output, {"record": str(path), "rows": table})


def write_tables(folder: Path, tables: Mapping[str, Any]) -> dict[str, str]:
    """Write each table as Parquet, whole or not at all; returns file names by table name."""
    import pyarrow.parquet as pq

    files = {name: f"{name}.parquet" for name in tables}
    for name, table in tables.items():
        with atomic_write(folder / files[name]) as draft:
            pq.write_table(table, draft)
    return files
