"""The contents of a report: curves, exits and attacks from the records of a folder, with their labels."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from offramp._core.errors import DataError
from offramp._core.paths import UserPath, user_path
from offramp._core.text import slug
from offramp.evaluation.arrow_tables import floats, in_front, rows_where, stack, to_pandas
from offramp.evaluation.curves import Curve, unstack_curves
from offramp.evaluation.robustness import Robustness, robustness_by
from offramp.evaluation.sanity_checks.checks import attack_doubts
from offramp.reports.records import Run, load_runs

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


@dataclass(frozen=True)
class AttackRun:
    """One attack on one model.

    Attributes:
        label: the recipe, behind the model's name where several models are attacked.
        run: the record that holds the rows.
        classes: names of the classes in their order; empty where no record has them.
    """

    label: str
    run: Run
    rows: pa.Table
    robustness: Robustness
    exit_layers: tuple[int, ...]
    metric: str
    doubts: tuple[str, ...]
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ReportSection:
    """All measurements on the same data, which may therefore share a figure.

    Attributes:
        data: name of the data; "" where the runs do not name it.
        curves: by metric and method, one curve per model.
        covered: paths of the records whose curves a comparison contains too. Figures draw those only once.
        prefix: in front of file names; "" where there is only one section.
    """

    data: str
    runs: list[Run]
    curves: dict[str, dict[str, list[Curve]]]
    covered: frozenset[str]
    attacks: list[AttackRun]
    prefix: str = ""

    def labelled(self, table: str) -> list[tuple[str, Run]]:
        """The runs that have a table, each with its own label: its name, with the seed where names repeat."""
        runs = [run for run in self.runs if table in run.tables]
        repeats = Counter(run.name for run in runs)
        labels = [run.name if repeats[run.name] == 1 else f"{run.name}, seed {run.seed}" for run in runs]
        return list(zip(_distinct(labels), runs, strict=True))

    def rows(self, table: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """All rows of a table with the labels of their runs."""
        for label, run in self.labelled(table):
            for row in run.tables[table].to_pylist():
                yield label, row

    def frame(self, table: str) -> pd.DataFrame | None:
        """All rows of a table, with the column `label` in front; None where no run has rows."""
        tables = [in_front(run.tables[table], {"label": label}) for label, run in self.labelled(table)]
        filled = [content for content in tables if content.num_rows]
        return to_pandas(stack(filled)) if filled else None


@dataclass(frozen=True)
class Doubt:
    """A sentence of doubt about a run or an attack, with the path of the record."""

    subject: str
    sentence: str
    path: str


@dataclass(frozen=True)
class ReportContents:
    """All runs below a folder, in a section for each data set; `left_out` has sentences about unreadable records."""

    title: str
    runs: list[Run]
    left_out: list[str]
    sections: list[ReportSection]

    @property
    def raised(self) -> list[Doubt]:
        """Every doubt that a run or an attack raises about itself."""
        recorded, idle = [], []
        for run in self.runs:
            subject, path = f"{run.name}, {run.command}", run.record["path"]
            recorded += [Doubt(subject, sentence, path) for sentence in run.get("doubts") or ()]
            idle += [Doubt(subject, "no example was attacked", path)] if _is_idle(run) else []
        attacks = [attack for section in self.sections for attack in section.attacks]
        about_rows = [
            Doubt(attack.label, sentence, attack.run.record["path"])
            for attack in attacks
            for sentence in attack.doubts
        ]
        return [*recorded, *idle, *about_rows]

    @property
    def doubts(self) -> list[str]:
        """The doubts as sentences, each with its subject in front, behind those about unreadable records."""
        about_runs = [f"{doubt.subject}: {doubt.sentence}" for doubt in self.raised]
        return list(dict.fromkeys([*self.left_out, *about_runs]))


def load_contents(folder: UserPath) -> ReportContents:
    """Read a folder of runs for a report; errors as in `load_runs`."""
    runs, left_out = load_runs(folder)
    names = {run.data for run in runs if run.tables and run.data}
    only = names.pop() if len(names) == 1 else ""  # with one data set, runs need not name it
    by_data: dict[str, list[Run]] = {}
    for run in runs:
        if run.tables:
            by_data.setdefault(run.data or only, []).append(run)
    classes = {run.name: tuple(map(str, run.get("labels") or ())) for run in runs if run.command == "train"}
    sections = [make_section(data, group, classes) for data, group in by_data.items()]
    if len(sections) > 1:
        stems = [slug(re.sub(r"[^a-z0-9]+", "-", data.lower()).strip("-") or "other") for data in by_data]
        sections = [
            replace(section, prefix=f"{stem}-")
            for section, stem in zip(sections, _distinct(stems, "{}-{}"), strict=True)
        ]
    return ReportContents(user_path(folder).resolve().name, runs, left_out, sections)


def make_section(data: str, runs: list[Run], classes: Mapping[str, tuple[str, ...]]) -> ReportSection:
    """The section for the runs on one data set; `classes` has the names of the classes by model."""
    curves: dict[str, list[tuple[str, Curve]]] = {}
    for run in runs:
        stacked = unstack_curves(run.tables["curves"]) if "curves" in run.tables else {}
        curves[run.record["path"]] = [(method, curve) for method, group in stacked.items() for curve in group]
    compared = {run.record["path"] for run in runs if "scores" in run.tables}
    in_comparisons = {_content(curve) for path in compared for _, curve in curves[path]}
    covered = frozenset(
        path
        for path, pairs in curves.items()
        if pairs and path not in compared and in_comparisons.issuperset(_content(curve) for _, curve in pairs)
    )
    drawn = [pair for path, pairs in curves.items() if path not in covered for pair in pairs]
    rules: dict[str, set[str]] = {}
    for method, curve in drawn:
        rules.setdefault(method, set()).add(curve.criterion)
    by_metric: dict[str, dict[str, list[Curve]]] = {}
    for method, curve in drawn:  # a method drawn with several rules gets the rule in its label
        label = method if len(rules[method]) == 1 else f"{method}, {curve.criterion}"
        by_metric.setdefault(curve.metric, {}).setdefault(label, []).append(curve)
    return ReportSection(data, runs, by_metric, covered, gather_attacks(runs, classes))


def _content(curve: Curve) -> tuple[str, bytes, bytes]:
    """What makes two curves the same, whatever record holds them and whatever their band."""
    return curve.metric, floats(curve.table, "cost").tobytes(), floats(curve.table, "score").tobytes()


def gather_attacks(runs: Iterable[Run], classes: Mapping[str, tuple[str, ...]]) -> list[AttackRun]:
    """Every attack of every run, recipe by recipe, with its robustness numbers; `classes` as in `make_section`."""
    attacked = [run for run in runs if "attack" in run.tables and not _is_idle(run)]
    several = len({run.name for run in attacked}) > 1
    attacks = []
    for run in attacked:
        table, metric, layers = run.tables["attack"], run.get("metric", "accuracy"), run.exit_layers
        if not layers:
            raise DataError(
                f"the attack of {run.record['path']} does not say the model's exit_layers: add them to the "
                "record's metrics, or run 'offramp attack' again"
            )
        for recipe, numbers in robustness_by(table, layers, metric=metric, seed=run.seed).items():
            rows = rows_where(table, "recipe", recipe)
            label = f"{run.name}, {recipe}" if several else recipe
            names = tuple(map(str, run.get("labels") or classes.get(run.name, ())))
            attacks.append(AttackRun(label, run, rows, numbers, layers, metric, attack_doubts(rows), names))
    attacks = _with_budgets(attacks)
    labels = _distinct([attack.label for attack in attacks])
    return [replace(attack, label=label) for attack, label in zip(attacks, labels, strict=True)]


def _with_budgets(attacks: list[AttackRun]) -> list[AttackRun]:
    """The attacks; where labels repeat, those that differ in their budget of words have it in their label."""
    budgets: dict[str, set[Any]] = {}
    for attack in attacks:
        budgets.setdefault(attack.label, set()).add(attack.run.get("words"))
    return [
        replace(attack, label=f"{attack.label}, words at most {attack.run.get('words')}")
        if len(budgets[attack.label]) > 1
        else attack
        for attack in attacks
    ]


def _is_idle(run: Run) -> bool:
    """Whether the run is an attack without examples."""
    return "attack" in run.tables and run.tables["attack"].num_rows == 0


def _distinct(labels: Sequence[str], written: str = "{} ({})") -> list[str]:
    """The labels, with numbers where they repeat."""
    distinct: list[str] = []
    for label in labels:
        numbered = (written.format(label, count) for count in range(2, len(labels) + 2))
        distinct.append(next(name for name in (label, *numbered) if name not in distinct))
    return distinct
