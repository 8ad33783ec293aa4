"""The run records that reports are made from: their shape, and how they are read.

A report shows a record (`offramp._core.records`) by the names of its `tables`, whatever command wrote it: those of
`TABLES`. A table is a list of rows, a dict of columns, or the name of a Parquet file relative to the record.

Reports also show, in `metrics` or `config`, all optional:

=============  ========================================================================================
`name`         the model's name in the report; by default the folder that holds its training record, else the
               record's own
`data`         name of the data, which groups runs; with `split`, where that is not `validation`
`metric`       what `score` is; `accuracy` by default
`exit_layers`  of the model; an `attack` table needs them, here or in its Parquet metadata
`criterion`    name of the exit rule, and its `threshold`
`doubts`       sentences of `evaluation.trace_doubts` and `evaluation.attack_doubts`
=============  ========================================================================================
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from offramp._core.errors import DataError
from offramp._core.paths import UserPath, user_path
from offramp._core.run_files import RunFiles
from offramp.evaluation.arrow_tables import as_table, require_columns, table
from offramp.evaluation.bootstrap import INTERVALS
from offramp.evaluation.compare import SCORES, WINNERS
from offramp.evaluation.conflict import PAIRS
from offramp.evaluation.curves import COLUMNS as CURVE
from offramp.evaluation.curves import FRONT
from offramp.evaluation.operating_points import HISTOGRAM, PER_EXIT, RELIABILITY
from offramp.evaluation.robustness import COLUMNS as ATTACK
from offramp.evaluation.timing import TIMING

if TYPE_CHECKING:
    import pyarrow as pa

TEXTS = ("text", "text_pair", "adversarial_text", "adversarial_text_pair")
LATENCY = ("p50", "p95", "p99", "mean", "throughput", "speedup", "faster")
STEP = ("seconds", "lowest", "highest", "examples_per_second", "times_plain", "activation_mib")
EFFORT = ("seconds", "examples_per_second", "forward", "gradient", "prepared", "model_share", "times_faster")
ALARMS = (
    "drift_alarmed",
    "drift_delay",
    "audit_alarmed",
    "audit_delay",
    "retuned_disagreement",
    "retuned_cost",
)
UNDER_ATTACK = ("p50", "p99", "p50_before", "p99_before", "rise", "rise_low", "rise_high")
STATED = ("criterion", "guarantee", "alpha", "delta", "splits", "calibration", "measured")
TABLES: dict[str, tuple[str, ...]] = {
    "policy": INTERVALS,  # `interval_table` of `evaluation.policy_scores`
    "per_exit": PER_EXIT,  # `evaluation.per_exit`
    "histogram": HISTOGRAM,  # `evaluation.exit_histogram`
    "curves": (*FRONT, *CURVE),  # `evaluation.stack_curves`
    "scores": SCORES,  # `evaluation.compare(…).scores`
    "winners": WINNERS,  # `evaluation.compare(…).winners`
    "attack": ("id", "recipe", "seed", *TEXTS, *ATTACK),  # the rows of an attack
    "timing": TIMING,  # `evaluation.time_speedups`
    "reliability": RELIABILITY,  # `evaluation.reliability_table`
    "conflict": PAIRS,  # `evaluation.conflict.conflict_table`
    # Rows of `bench.speed`: every peer at every batch size.
    "bench": ("peer", "kind", "batch_size", "length", *LATENCY, "cost", "share", "score", "peak_mib"),
    "bench_train": ("name", *STEP),  # rows of `bench.training_steps`
    # Rows of `bench.attacks`, with the speed-up over the released pattern.
    "bench_attack": ("name", "examples", "clean_depth", "depth", *EFFORT),
    "stream": ("mode", "seconds", "texts", "throughput", "resident_mib"),  # rows of `bench.stream`
    "promises": (*STATED, "held", "mean_risk", "high_risk", "cost", "kept"),  # rows of `bench.coverage_check`
    # Rows of `bench.drift`.
    "drift": ("stage", "texts", "depth", "cost", "disagreement", "promise", *ALARMS),
    # Rows of `bench.service`.
    "service": ("peer", "rows", "texts_per_second", "p99", "ratio", "accuracy", "start_seconds"),
    "service_latency": ("way", "rate", "reached", "p50", "p95", "p99", "ratio"),
    "service_attack": ("service", "attacked_share", *UNDER_ATTACK, "cost"),
}
ATTACK_METADATA = b"offramp.attack"  # key of an attack's metadata in its Parquet file


@dataclass(frozen=True)
class Run:
    """One record with its tables, those of `TABLES`; `name` is the model's, `command` the command's first word."""

    name: str
    command: str
    record: dict[str, Any]
    tables: dict[str, pa.Table]

    def get(self, name: str, default: Any = None) -> Any:
        """A value of the record's metrics, else of its config."""
        return self.record["metrics"].get(name, self.record["config"].get(name, default))

    @property
    def data(self) -> str:
        """Name of the data, "" where the run has none; splits other than validation are named.

        Gradient conflict says nothing about a split's texts: it belongs to the other runs on the data.
        """
        name, split = str(self.get("data", "")), self.get("split", "validation")
        split = "validation" if set(self.tables) == {"conflict"} else split
        return name if split == "validation" else f"{name}, {split}".strip(", ")

    @property
    def seed(self) -> int:
        """The run's seed."""
        return int(self.record["seed"])

    @property
    def exit_layers(self) -> tuple[int, ...]:
        """Exits of the model, from 1; empty where neither the record nor its attack table has them."""
        layers = self.get("exit_layers")
        if layers is None and "attack" in self.tables:
            metadata = self.tables["attack"].schema.metadata or {}
            try:
                layers = json.loads(metadata[ATTACK_METADATA])["policy"]["exit_layers"]
            except (ValueError, KeyError, TypeError):
                layers = None
        return tuple(int(layer) for layer in layers or ())


def load_runs(folder: UserPath, *, tables: bool = True) -> tuple[list[Run], list[str]]:
    """Read all records below a folder (of a run, or of several), with their tables.

    Args:
        folder: of a run, of several runs, or of packed ones.
        tables: whether to read the tables; without them a run has none.

    Returns:
        The runs in order of their paths, and a sentence for each record that cannot be read.

    Raises:
        DataError: there is no folder or no record, or a record's table is missing, broken or incomplete.
    """
    root = user_path(folder)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        records = RunFiles(root).records()
    left_out = [str(warning.message) for warning in caught]
    if not records:
        reasons = f" ({'; '.join(left_out)})" if left_out else ""
        raise DataError(
            f"no run records below {root}{reasons}: give a folder that an offramp command wrote to"
        )
    files = RunFiles(root if root.is_dir() else root.parent)
    runs = []
    for record in records:
        loaded = {
            name: read_table(content, files, record["path"], name)
            for name, content in record["tables"].items()
            if tables and name in TABLES
        }
        named = record["metrics"].get("name", record["config"].get("name"))
        named = named or _name(record, records, files.root)
        runs.append(Run(str(named), command_word(record), record, loaded))
    return runs, left_out


def command_word(record: Mapping[str, Any]) -> str:
    """The command's first word: `evaluate` of "offramp evaluate runs/sweet"."""
    words = [word for word in str(record["command"]).split() if word != "offramp"]
    return words[0] if words else "run"


def _name(record: Mapping[str, Any], records: list[dict[str, Any]], base: Path) -> str:
    """The nearest folder that holds a training record, else the record's own."""
    trained = {PurePosixPath(other["path"]).parent for other in records if command_word(other) == "train"}
    folder = PurePosixPath(record["path"]).parent
    nearest = next((parent for parent in (folder, *folder.parents) if parent in trained), folder)
    return nearest.name or base.resolve().name or "run"


def read_table(content: Any, files: RunFiles, path: str, name: str) -> pa.Table:
    """A record's table: rows, columns, or the name of a Parquet file in the record's folder.

    Raises:
        DataError: the table cannot be read or lacks columns.
    """
    import pyarrow as pa

    what = f"table {name!r} of {path}"
    if isinstance(content, str):
        loaded = _read_file(content, files, PurePosixPath(path).parent, what)
    else:
        try:
            loaded = table(content) if isinstance(content, Mapping) else as_table(content)
        except (pa.ArrowException, TypeError, ValueError) as error:
            raise DataError(f"{what} cannot be read ({error}): run its command again") from error
    if loaded.num_rows or loaded.num_columns:
        require_columns(loaded, TABLES[name], what)
    return loaded


def _read_file(name: str, files: RunFiles, folder: PurePosixPath, what: str) -> pa.Table:
    path = folder / name
    if not (files.root / path).resolve().is_relative_to((files.root / folder).resolve()):
        raise DataError(f"{what} lies at {name}, outside its run's folder: move it beside its record")
    try:
        return files.table(path)
    except DataError as error:
        if error.__cause__ is not None:  # the file is there, but broken
            raise DataError(f"{what} cannot be read: {error}") from error
        raise DataError(
            f"{what} is missing: expected a Parquet file {name} beside the record; run its command again"
        ) from error
