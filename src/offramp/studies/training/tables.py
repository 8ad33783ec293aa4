"""The tables of a sweep's report: methods by task, differences beside the paper's, areas, winners, sizes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from offramp.reports.text_table import NOTHING, TextTable, interval, number, signed
from offramp.studies.training.results import ModelSetting
from offramp.studies.training.study import MethodStudy

if TYPE_CHECKING:
    from offramp.evaluation.compare import Comparison

NAMES = {
    "joint": "Early-Exit",
    "multi_model": "Multi-Model",
    "sweet": "SWEET",
}  # by method: the papers' names
NESTED = "Brackets: 95 % bootstrap intervals over seeds and examples."
PAIRED = "Differences are paired: same seeds, same examples."
POINTS = 100


def study_tables(study: MethodStudy) -> dict[str, TextTable]:
    """Every table that the study has content for, by file name."""
    made = {
        "differences": differences_table(study),
        "individual": individual_table(study),
        "exits": exits_table(study),
        "curves": curves_table(study),
        "curve-differences": curve_differences_table(study),
        "winners": winners_table(study),
        "sizes": sizes_table(study),
        "learning-rates": rates_table(study),
    }
    return {name: table for name, table in made.items() if table.rows}


def in_points(difference: float, low: float, high: float) -> str:
    """A difference with its interval, in points."""
    return interval(POINTS * difference, POINTS * low, POINTS * high, 1, sign=True)


def name_of(method: str) -> str:
    """What a method is called in print."""
    return NAMES.get(method, method.replace("_", " "))


def size_of(place: ModelSetting) -> str:
    """Training examples of a place; "all" where it took what there is."""
    return "all" if place.train_size is None else f"{place.train_size:,}"


def seeds_of(study: MethodStudy, place: ModelSetting) -> int:
    """How many models of each method a place has."""
    return min(len(results) for results in study.groups[place].values())


def differences_table(study: MethodStudy) -> TextTable:
    """Individual classifiers against the baseline's, in points, beside the paper's claim."""
    others = study.others
    found = {_key(row): row for row in study.differences.to_pylist() if row["measure"] == "exits"}
    rows = []
    for backbone, where, size in dict.fromkeys(key[:3] for key in found):
        cells = [found.get((backbone, where, size, method)) for method in others]
        seeds = min(cell["seeds"] for cell in cells if cell)
        rows.append((backbone, where, _size(size, where), str(seeds), *map(_points, cells)))
    if claims := study.claims:
        claimed = (signed(claims[m], 1) if m in claims else NOTHING for m in others)
        rows.append(("BERT, DeBERTa (SWEET paper)", "mean of GLUE tasks", "6,000", NOTHING, *claimed))
    header = ("encoder", "task", "examples", "seeds", *(f"{name_of(m)} − {_base(study)}" for m in others))
    note = f"Points of the task's metric, averaged over the exits. {PAIRED} {NESTED}"
    return TextTable("Individual classifiers: differences in points", header, tuple(rows), note, words=2)


def individual_table(study: MethodStudy) -> TextTable:
    """The mean score over all exits, by method."""
    rows = []
    for place, found in study.comparisons.items():
        scores = _scores(found, "mean of layers")
        cells = (_interval(scores.get(method)) for method in study.methods)
        told = (place.backbone, place.task, found.metric, size_of(place), str(seeds_of(study, place)))
        rows.append((*told, *cells))
    header = ("encoder", "task", "metric", "examples", "seeds", *map(name_of, study.methods))
    return TextTable("Individual classifiers: mean over the exits", header, tuple(rows), NESTED, words=3)


def exits_table(study: MethodStudy) -> TextTable:
    """The score of every exit by itself."""
    layers = sorted({layer for found in study.comparisons.values() for layer in _layers(found)})
    rows = []
    for place, found in study.comparisons.items():
        for method in study.groups[place]:
            cells = (_interval(_scores(found, f"layer {layer}").get(method)) for layer in layers)
            rows.append((place.backbone, place.task, name_of(method), size_of(place), *cells))
    header = ("encoder", "task", "method", "examples", *(f"layer {layer}" for layer in layers))
    return TextTable("Every exit by itself", header, tuple(rows), NESTED, words=3)


def curves_table(study: MethodStudy) -> TextTable:
    """Areas of the speed–accuracy curves at fast and slow speeds."""
    rows = []
    for place, found in study.comparisons.items():
        for method in study.groups[place]:
            cells = (_interval(_scores(found, span).get(method)) for span in ("fast", "slow", "whole"))
            rows.append((place.backbone, place.task, name_of(method), size_of(place), *cells))
    spans = ("fast (cost ≤ ½)", "slow (cost ½–1)", "whole")
    note = f"Mean score over a range of costs (shares of the full model's FLOPs). {NESTED}"
    header = ("encoder", "task", "method", "examples", *spans)
    return TextTable("Areas of the speed–accuracy curves", header, tuple(rows), note, words=3)


def curve_differences_table(study: MethodStudy) -> TextTable:
    """Areas against the baseline's at fast and slow speeds, in points."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in study.differences.to_pylist():
        found.setdefault(_key(row), {})[row["measure"]] = row
    rows = []
    for (backbone, where, size, method), cells in found.items():
        told = (backbone, where, name_of(method), _size(size, where))
        rows.append((*told, *(_points(cells.get(span)) for span in ("fast", "slow"))))
    header = ("encoder", "task", "method", "examples", "fast (cost ≤ ½)", "slow (cost ½–1)")
    claimed = (
        "The SWEET paper claims that SWEET wins at fast speeds and ties at slow ones, and that Early-Exit beats "
        "Multi-Model, which recomputes. "
    )
    note = f"Against {_base(study)}, in points. {claimed if study.claims else ''}{PAIRED} {NESTED}"
    return TextTable("Speed–accuracy curves: differences in points", header, tuple(rows), note, words=3)


def winners_table(study: MethodStudy) -> TextTable:
    """Which method wins where."""
    rows = []
    for place, found in study.comparisons.items():
        for row in found.winners.to_pylist():
            lead = in_points(row["lead"], row["lead_low"], row["lead_high"])
            told = (name_of(row["best"]), name_of(row["second"]), "yes" if row["decided"] else "no")
            rows.append((place.backbone, place.task, row["place"], *told, size_of(place), lead))
    header = ("encoder", "task", "where", "best", "second", "decided", "examples", "lead in points")
    note = f"Decided: the interval of the lead excludes zero; the pair is picked after seeing the scores. {NESTED}"
    return TextTable("Which method wins where", header, tuple(rows), note, words=6)


def sizes_table(study: MethodStudy) -> TextTable:
    """Differences against the number of training examples, where tasks were run with several."""
    found = {_key(row): row for row in study.differences.to_pylist() if row["measure"] == "exits"}
    sizes: dict[tuple[Any, ...], set[Any]] = {}
    for backbone, where, size, method in found:
        sizes.setdefault((backbone, where, method), set()).add(size)
    columns = sorted(
        {s for tried in sizes.values() if len(tried) > 1 for s in tried}, key=lambda s: s or 10**9
    )
    rows = tuple(
        (
            backbone,
            where,
            name_of(method),
            *(_points(found.get((backbone, where, s, method))) for s in columns),
        )
        for (backbone, where, method), tried in sizes.items()
        if len(tried) > 1
    )
    header = ("encoder", "task", "method", *(_size(size, "") for size in columns))
    note = f"Mean over the exits against {_base(study)}, in points, by training examples. {PAIRED} {NESTED}"
    return TextTable("The gap against the number of training examples", header, rows, note, words=3)


def rates_table(study: MethodStudy) -> TextTable:
    """Scores by learning rate, where several were tried."""
    tried = study.rates.to_pylist()
    layers = sorted({layer for row in tried for layer in row["exit_layers"]})
    rows = []
    for row in tried:
        exits = dict(zip(row["exit_layers"], row["scores"], strict=True))
        cells = (number(exits[layer]) if layer in exits else NOTHING for layer in layers)
        told = (row["backbone"], name_of(row["method"]), "best" if row["best"] else "")
        rows.append((*told, f"{row['learning_rate']:g}", str(row["models"]), number(row["score"]), *cells))
    header = ("encoder", "method", "", "rate", "models", "mean over exits", *(f"layer {n}" for n in layers))
    note = "Means over tasks and seeds; the best rate is the one with the highest mean over the exits."
    return TextTable("Learning rates", header, tuple(rows), note, words=3)


def _key(row: dict[str, Any]) -> tuple[str, str, int | None, str]:
    return row["backbone"], row["where"], row["train_size"], row["method"]


def _base(study: MethodStudy) -> str:
    return name_of(study.methods[0]) if study.methods else NOTHING


def _size(size: int | None, where: str) -> str:
    if where.startswith("mean of"):
        return NOTHING if size is None else f"{size:,}"
    return "all" if size is None else f"{size:,}"


def _points(row: dict[str, Any] | None) -> str:
    """A difference in points with its interval."""
    if row is None:
        return NOTHING
    return in_points(row["difference"], row["low"], row["high"])


def _interval(row: dict[str, Any] | None) -> str:
    return NOTHING if row is None else interval(row["score"], row["low"], row["high"])


def _scores(found: Comparison, place: str) -> dict[str, dict[str, Any]]:
    """By method, the row of a place; of a mean over layers, those of the method's own layers."""
    rows = found.scores.to_pylist()
    return {
        r["method"]: r
        for r in rows
        if r["place"] == place or (place == "mean of layers" and place in r["place"])
    }


def _layers(found: Comparison) -> list[int]:
    places = dict.fromkeys(row["place"] for row in found.scores.to_pylist())
    return [int(place.removeprefix("layer ")) for place in places if place.startswith("layer ")]
