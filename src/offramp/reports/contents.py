"""What the records of a folder say together: curves, exits and attacks by the names they are shown under."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from offramp._core.errors import DataError
from offramp.evaluation.arrow_tables import floats, rows_where
from offramp.evaluation.curves import Curve, unstack_curves
from offramp.evaluation.robustness import Robustness, robustness_by
from offramp.evaluation.sanity_checks.checks import attack_doubts
from offramp.reports.records import Run, load_runs

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class AttackRun:
    """One attack on one model, as it is shown.

    Attributes:
        label: the model's name, the recipe, or both, whatever tells it apart.
        rows: the attacked examples.
        found: the robustness numbers.
        exit_layers: of the model.
        metric: of its task.
        doubts: what the rows themselves give cause to doubt.
    """

    label: str
    rows: pa.Table
    found: Robustness
    exit_layers: tuple[int, ...]
    metric: str
    doubts: tuple[str, ...]


@dataclass(frozen=True)
class ReportSection:
    """All that was measured on the same data, and so may stand in one figure.

    Attributes:
        data: name of the data; "" where the runs do not tell.
        runs: the runs on it.
        curves: by metric and method, one curve per model.
        covered: paths of the records whose curves a comparison holds too: figures draw those once.
        attacks: every attack.
        prefix: in front of file names, "" where there is one part only.
    """

    data: str
    runs: list[Run]
    curves: dict[str, dict[str, list[Curve]]]
    covered: frozenset[str]
    attacks: list[AttackRun]
    prefix: str = ""

    def labelled(self, table: str) -> list[tuple[str, Run]]:
        """The runs that have a table, each with its own label: its name, and its seed where names repeat."""
        runs = [run for run in self.runs if table in run.tables]
        names = [run.name for run in runs]
        pairs = zip(names, runs, strict=True)
        seeded = [name if names.count(name) == 1 else f"{name}, seed {run.seed}" for name, run in pairs]
        return list(zip(_distinct(seeded), runs, strict=True))


@dataclass(frozen=True)
class ReportContents:
    """All runs below a folder, and what they show.

    Attributes:
        title: the folder's name.
        runs: the records with their tables.
        left_out: sentences about records that could not be read.
        parts: what the runs show, data set by data set.
    """

    title: str
    runs: list[Run]
    left_out: list[str]
    parts: list[ReportSection]

    @property
    def doubts(self) -> list[str]:
        """Every doubt that a run or an attack raises about itself, with its name in front."""
        told = [
            f"{run.name}, {run.command}: {doubt}" for run in self.runs for doubt in run.get("doubts") or ()
        ]
        idle = [f"{run.name}, {run.command}: no example was attacked" for run in self.runs if _is_idle(run)]
        attacks = [attack for part in self.parts for attack in part.attacks]
        found = [f"{attack.label}: {doubt}" for attack in attacks for doubt in attack.doubts]
        return list(dict.fromkeys([*self.left_out, *told, *idle, *found]))


def load_contents(folder: str | Path) -> ReportContents:
    """Read a folder of runs for a report; errors as in `load_runs`."""
    runs, left_out = load_runs(folder)
    names = {run.data for run in runs if run.tables and run.data}
    only = names.pop() if len(names) == 1 else ""  # where there is one data set, runs need not name it
    by_data: dict[str, list[Run]] = {}
    for run in runs:
        if run.tables:
            by_data.setdefault(run.data or only, []).append(run)
    parts = [make_section(data, group) for data, group in by_data.items()]
    if len(parts) > 1:
        prefixes = _distinct([re.sub(r"[^a-z0-9]+", "-", part.data.lower()).strip("-") for part in parts])
        parts = [
            replace(part, prefix=f"{prefix or 'other'}-")
            for part, prefix in zip(parts, prefixes, strict=True)
        ]
    return ReportContents(Path(folder).resolve().name, runs, left_out, parts)


def make_section(data: str, runs: list[Run]) -> ReportSection:
    """What the runs on one data set show together."""
    curves = {run.record["path"]: _curves(run) for run in runs}
    compared = {run.record["path"] for run in runs if "scores" in run.tables}
    known = {_content(curve) for path in compared for _, curve in curves[path]}
    covered = frozenset(
        path
        for path, pairs in curves.items()
        if pairs and path not in compared and known.issuperset(_content(curve) for _, curve in pairs)
    )
    drawn = [pair for path, pairs in curves.items() if path not in covered for pair in pairs]
    return ReportSection(data, runs, _by_metric(drawn), covered, gather_attacks(runs))


def _by_metric(curves: Sequence[tuple[str, Curve]]) -> dict[str, dict[str, list[Curve]]]:
    """Curves by metric and method; methods drawn with several rules are told apart by the rule."""
    rules: dict[str, set[str]] = {}
    for method, curve in curves:
        rules.setdefault(method, set()).add(curve.criterion)
    found: dict[str, dict[str, list[Curve]]] = {}
    for method, curve in curves:
        label = method if len(rules[method]) == 1 else f"{method}, {curve.criterion}"
        found.setdefault(curve.metric, {}).setdefault(label, []).append(curve)
    return found


def _curves(run: Run) -> list[tuple[str, Curve]]:
    stacked = unstack_curves(run.tables["curves"]) if "curves" in run.tables else {}
    return [(method, curve) for method, group in stacked.items() for curve in group]


def _content(curve: Curve) -> tuple[str, bytes, bytes]:
    """What makes two curves the same, whoever drew them and with whatever band."""
    return curve.metric, floats(curve.table, "cost").tobytes(), floats(curve.table, "score").tobytes()


def gather_attacks(runs: Iterable[Run]) -> list[AttackRun]:
    """Every attack of every run, recipe by recipe, with its robustness numbers."""
    attacked = [run for run in runs if "attack" in run.tables and not _is_idle(run)]
    several = len({run.name for run in attacked}) > 1
    found = [attack for run in attacked for attack in _attacks(run, several)]
    labels = _distinct([attack.label for attack in found])
    return [replace(attack, label=label) for attack, label in zip(found, labels, strict=True)]


def _attacks(run: Run, named: bool) -> list[AttackRun]:
    """A run's attacks, one per recipe; `named`: with the model's name."""
    table, metric, layers = run.tables["attack"], run.get("metric", "accuracy"), run.exit_layers
    if not layers:
        raise DataError(
            f"the attack of {run.record['path']} does not say the model's exit_layers: add them to the "
            "record's metrics, or run 'offramp attack' again"
        )
    found = []
    for recipe, numbers in robustness_by(table, layers, metric=metric, seed=run.seed).items():
        rows = rows_where(table, "recipe", recipe)
        label = f"{run.name}, {recipe}" if named else recipe
        found.append(AttackRun(label, rows, numbers, layers, metric, attack_doubts(rows)))
    return found


def _is_idle(run: Run) -> bool:
    """Whether the run is an attack on nobody."""
    return "attack" in run.tables and run.tables["attack"].num_rows == 0


def _distinct(labels: list[str]) -> list[str]:
    """The labels, those that repeat numbered."""
    seen: dict[str, int] = {}
    told = []
    for label in labels:
        seen[label] = seen.get(label, 0) + 1
        told.append(label if seen[label] == 1 else f"{label} ({seen[label]})")
    return told
