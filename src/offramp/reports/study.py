"""What the records of a folder say together: curves, exits and attacks by the names they are shown under."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from offramp._core.errors import DataError
from offramp.evaluation.checks import attack_doubts
from offramp.evaluation.columns import rows_where
from offramp.evaluation.curves import Curve, unstack_curves
from offramp.evaluation.robustness import Robustness, robustness_by
from offramp.reports.schema import Run, load_runs

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Attack:
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
class Study:
    """All runs below a folder, and what they show.

    Attributes:
        title: the folder's name.
        runs: the records with their tables.
        left_out: sentences about records that could not be read.
        curves: by metric and method, one curve per model.
        attacks: every attack.
    """

    title: str
    runs: list[Run]
    left_out: list[str]
    curves: dict[str, dict[str, list[Curve]]]
    attacks: list[Attack]

    def labelled(self, table: str) -> list[tuple[str, Run]]:
        """The runs that have a table, each with its own label: its name, and its seed where names repeat."""
        runs = [run for run in self.runs if table in run.tables]
        names = [run.name for run in runs]
        seeded = [
            n if names.count(n) == 1 else f"{n}, seed {r.seed}" for n, r in zip(names, runs, strict=True)
        ]
        return list(zip(_distinct(seeded), runs, strict=True))

    @property
    def doubts(self) -> list[str]:
        """Every doubt that a run or an attack raises about itself, with its name in front."""
        told = [
            f"{run.name}, {run.command}: {doubt}" for run in self.runs for doubt in run.get("doubts") or ()
        ]
        found = [f"{attack.label}: {doubt}" for attack in self.attacks for doubt in attack.doubts]
        return list(dict.fromkeys([*self.left_out, *told, *found]))


def load_study(folder: str | Path) -> Study:
    """Read a folder of runs for a report; errors as in `load_runs`."""
    runs, left_out = load_runs(folder)
    return Study(Path(folder).resolve().name, runs, left_out, gather_curves(runs), gather_attacks(runs))


def gather_curves(runs: Iterable[Run]) -> dict[str, dict[str, list[Curve]]]:
    """Curves by metric and method; methods drawn with several rules are told apart by the rule."""
    stacked = [(method, curve) for run in runs for method, curve in _curves(run)]
    rules: dict[str, set[str]] = {}
    for method, curve in stacked:
        rules.setdefault(method, set()).add(curve.criterion)
    found: dict[str, dict[str, list[Curve]]] = {}
    for method, curve in stacked:
        label = method if len(rules[method]) == 1 else f"{method}, {curve.criterion}"
        found.setdefault(curve.metric, {}).setdefault(label, []).append(curve)
    return found


def _curves(run: Run) -> list[tuple[str, Curve]]:
    if "curves" not in run.tables:
        return []
    return [
        (method, curve) for method, group in unstack_curves(run.tables["curves"]).items() for curve in group
    ]


def gather_attacks(runs: Iterable[Run]) -> list[Attack]:
    """Every attack of every run, recipe by recipe, with its robustness numbers."""
    attacked = [run for run in runs if "attack" in run.tables]
    several = len({run.name for run in attacked}) > 1
    found = []
    for run in attacked:
        table, metric = run.tables["attack"], run.get("metric", "accuracy")
        if table.num_rows and not run.exit_layers:
            raise DataError(
                f"the attack of {run.record['path']} does not say the model's exit_layers: add them to the "
                "record's metrics, or run 'offramp attack' again"
            )
        results = (
            robustness_by(table, run.exit_layers, metric=metric, seed=run.seed) if table.num_rows else {}
        )
        for recipe, numbers in results.items():
            rows = rows_where(table, "recipe", recipe)
            label = f"{run.name}, {recipe}" if several else recipe
            found.append(Attack(label, rows, numbers, run.exit_layers, metric, attack_doubts(rows)))
    labels = _distinct([attack.label for attack in found])
    return [
        Attack(label, a.rows, a.found, a.exit_layers, a.metric, a.doubts)
        for label, a in zip(labels, found, strict=True)
    ]


def _distinct(labels: list[str]) -> list[str]:
    """The labels, those that repeat numbered."""
    seen: dict[str, int] = {}
    told = []
    for label in labels:
        seen[label] = seen.get(label, 0) + 1
        told.append(label if seen[label] == 1 else f"{label} ({seen[label]})")
    return told
