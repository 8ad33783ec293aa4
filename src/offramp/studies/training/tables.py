"""The tables of a sweep's report: methods by task, differences beside the paper's, areas, winners, sizes."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from offramp.reports.text_table import NOTHING, TextTable, interval, number, signed
from offramp.studies.training.held_out import mean_numbers
from offramp.studies.training.study import MethodStudy
from offramp.training.strategies import STRATEGIES

NESTED = "Brackets: 95 % bootstrap intervals over seeds and examples."
PAIRED = "Differences are paired: same seeds, same examples."
POINTS = 100
SPANS = {"fast": "fast (cost ≤ ½)", "slow": "slow (cost ½–1)", "whole": "whole"}
MEAN = "mean of layers"


def study_tables(study: MethodStudy) -> dict[str, TextTable]:
    """Every table that the study has content for, by file name."""
    tables = {
        "differences": differences_table(study),
        "individual": individual_table(study),
        "exits": exits_table(study),
        "curves": curves_table(study),
        "curve-differences": curve_differences_table(study),
        "winners": winners_table(study),
        "sizes": sizes_table(study),
        "learning-rates": rates_table(study),
        "layer-zero": layer_zero_table(study),
    }
    return {name: table for name, table in tables.items() if table.rows}


def in_points(difference: float, low: float, high: float) -> str:
    """A difference with its interval, in points."""
    return interval(POINTS * difference, POINTS * low, POINTS * high, 1, sign=True)


def name_of(method: str) -> str:
    """The name of a method in tables and figures: its strategy's label, unless the plan gives it another name."""
    if method in STRATEGIES:
        return STRATEGIES[method].label
    return re.sub(r"(?<=[^\W_])_(?=[^\W_])", " ", method)  # an underscore at an end is no space


def size_of(train_size: int | None) -> str:
    """A number of training examples; "all" for all the data there is."""
    return "all" if pd.isna(train_size) else f"{train_size:,}"


def differences_table(study: MethodStudy) -> TextTable:
    """Individual classifiers against the baseline's, in points, beside the paper's claim."""
    others = study.others
    frame = differences_in_print(study).query("measure == 'exits'")
    keys = ["backbone", "where", "examples"]
    seeds = frame.groupby(keys)["seeds"].transform("min").astype(str)
    rows = _wide(frame.assign(seeds=seeds), [*keys, "seeds"], "method", "points", others)
    if claims := study.claims:
        claimed = (signed(claims[m], 1) if m in claims else NOTHING for m in others)
        rows += (("BERT, DeBERTa (SWEET paper)", "mean of GLUE tasks", "6,000", NOTHING, *claimed),)
    header = ("encoder", "task", "examples", "seeds", *(f"{name_of(m)} − {_base(study)}" for m in others))
    note = f"Points of the task's metric, averaged over the exits. {PAIRED} {NESTED}"
    return TextTable("Individual classifiers: differences in points", header, rows, note, words=2)


def individual_table(study: MethodStudy) -> TextTable:
    """The mean score over all exits, by method."""
    scores = _scores(study)
    means = scores[scores["place"].str.startswith(MEAN)]  # each method has the mean over its own layers
    keys = ["backbone", "task", "metric", "examples", "seeds"]
    rows = _wide(means, keys, "method", "score", study.methods)
    header = ("encoder", "task", "metric", "examples", "seeds", *map(name_of, study.methods))
    return TextTable("Individual classifiers: mean over the exits", header, rows, NESTED, words=3)


def exits_table(study: MethodStudy) -> TextTable:
    """The score of every exit by itself."""
    scores = _scores(study)
    exits = scores[scores["place"].str.startswith("layer ")]["place"].unique()
    layers = sorted(exits, key=lambda name: int(name.removeprefix("layer ")))
    rows = _wide(scores, ["backbone", "task", "method", "examples"], "place", "score", layers)
    header = ("encoder", "task", "method", "examples", *layers)
    return TextTable("Every exit by itself", header, rows, NESTED, words=3)


def curves_table(study: MethodStudy) -> TextTable:
    """Areas of the speed–accuracy curves at fast and slow speeds."""
    rows = _wide(_scores(study), ["backbone", "task", "method", "examples"], "place", "score", list(SPANS))
    note = f"Mean score over a range of costs (shares of the full model's FLOPs). {NESTED}"
    header = ("encoder", "task", "method", "examples", *SPANS.values())
    return TextTable("Areas of the speed–accuracy curves", header, rows, note, words=3)


def curve_differences_table(study: MethodStudy) -> TextTable:
    """Areas against the baseline's at fast and slow speeds, in points."""
    spans = ["fast", "slow"]
    rows = _wide(
        differences_in_print(study), ["backbone", "where", "method", "examples"], "measure", "points", spans
    )
    header = ("encoder", "task", "method", "examples", *(SPANS[span] for span in spans))
    claimed = (
        "The SWEET paper claims that SWEET wins at fast speeds and ties at slow ones, and that Early-Exit beats "
        "Multi-Model, which recomputes. "
    )
    note = f"Against {_base(study)}, in points. {claimed if study.claims else ''}{PAIRED} {NESTED}"
    return TextTable("Speed–accuracy curves: differences in points", header, rows, note, words=3)


def winners_table(study: MethodStudy) -> TextTable:
    """Which method wins where."""
    rows = []
    for setting, comparison in study.comparisons.items():
        for row in comparison.winners.to_pylist():
            lead = in_points(row["lead"], row["lead_low"], row["lead_high"])
            names = (name_of(row["best"]), name_of(row["second"]), "yes" if row["decided"] else "no")
            rows.append(
                (setting.backbone, setting.task, row["place"], *names, size_of(setting.train_size), lead)
            )
    header = ("encoder", "task", "where", "best", "second", "decided", "examples", "lead in points")
    note = f"Decided: the interval of the lead excludes zero; the pair is picked after seeing the scores. {NESTED}"
    return TextTable("Which method wins where", header, tuple(rows), note, words=6)


def sizes_table(study: MethodStudy) -> TextTable:
    """Differences against the number of training examples, where tasks were run with several."""
    frame = differences_in_print(study).query("measure == 'exits'")
    keys = ["backbone", "where", "method"]
    several = frame[frame.groupby(keys)["size"].transform("nunique") > 1]
    sizes = several.sort_values("train_size")["size"].unique().tolist()
    rows = _wide(several, keys, "size", "points", sizes)
    header = ("encoder", "task", "method", *sizes)
    note = f"Mean over the exits against {_base(study)}, in points, by training examples. {PAIRED} {NESTED}"
    return TextTable("The gap against the number of training examples", header, rows, note, words=3)


def rates_table(study: MethodStudy) -> TextTable:
    """Scores by learning rate, where several were tried."""
    rates = list(study.rates.itertuples())
    by_rate = []
    for rate in rates:
        means = np.mean([result.scores for result in rate.results], axis=0)
        by_rate.append(dict(zip(rate.results[0].trace.exit_layers, means.tolist(), strict=True)))
    layers = sorted({layer for scores in by_rate for layer in scores})
    rows = []
    for rate, scores in zip(rates, by_rate, strict=True):
        words = (rate.backbone, name_of(rate.method), "best" if rate.best else "", f"{rate.learning_rate:g}")
        cells = (number(scores.get(layer)) for layer in layers)
        rows.append((*words, str(rate.models), number(rate.score), *cells))
    header = ("encoder", "method", "", "rate", "models", "mean over exits", *(f"layer {n}" for n in layers))
    note = "Means over tasks and seeds; the best rate is the one with the highest mean over the exits."
    return TextTable("Learning rates", header, tuple(rows), note, words=3)


def layer_zero_table(study: MethodStudy) -> TextTable:
    """The cost of models with layer 0 beside that of the same models without it."""
    rows = []
    for setting, group in study.groups.items():
        for method, results in group.items():
            if not (means := mean_numbers(result.held_out for result in results)):
                continue
            ahead, behind = means
            cells = (ahead["cost"], behind["cost"], ahead["cost"] / behind["cost"])
            scores = (ahead["reached"], behind["reached"], ahead["full"])
            names = (setting.backbone, setting.task, name_of(method), size_of(setting.train_size))
            rows.append((*names, str(len(results)), *map(number, (*cells, *scores))))
    costs = ("cost with layer 0", "without", "ratio", "score with layer 0", "without", "full model")
    header = ("encoder", "task", "method", "examples", "seeds", *costs)
    note = (
        "Means over seeds, on validation rows. Thresholds were chosen on calibration rows for a score at most one "
        "point below the full model's; the ratio is that of the mean costs."
    )
    return TextTable("Cost with layer 0 and without", header, tuple(rows), note, words=3)


def differences_in_print(study: MethodStudy) -> pd.DataFrame:
    """The study's differences with cells for print: `points`, and the training size as `size` and `examples`."""
    frame = study.differences
    ends = zip(frame["difference"], frame["low"], frame["high"], strict=True)
    sizes = [size_of(size) for size in frame["train_size"]]
    mixed = frame["where"].str.startswith("mean of") & frame["train_size"].isna()
    examples = np.where(mixed, NOTHING, sizes)
    return frame.assign(points=[in_points(*end) for end in ends], size=sizes, examples=examples)


def _scores(study: MethodStudy) -> pd.DataFrame:
    """The scores of all settings as cells for print."""
    rows = [
        {
            "backbone": setting.backbone,
            "task": setting.task,
            "metric": comparison.metric,
            "examples": size_of(setting.train_size),
            "seeds": str(min(len(results) for results in study.groups[setting].values())),
            "method": row["method"],
            "place": row["place"],
            "score": interval(row["score"], row["low"], row["high"]),
        }
        for setting, comparison in study.comparisons.items()
        for row in comparison.scores.to_pylist()
    ]
    names = ("backbone", "task", "metric", "examples", "seeds", "method", "place", "score")
    return pd.DataFrame(rows, columns=names, dtype=str)


def _wide(
    frame: pd.DataFrame, keys: list[str], columns: str, values: str, order: list[str]
) -> tuple[tuple[str, ...], ...]:
    """The rows of a table: the keys, then a cell per value of `columns`; a dash where there is nothing."""
    wide = frame.groupby([*keys, columns], sort=False)[values].first().unstack(columns, sort=False)
    wide = wide.reindex(columns=order).fillna(NOTHING)
    if "method" in keys:
        wide = wide.rename(index=name_of, level="method")
    return tuple((*key, *cells) for key, *cells in wide.itertuples())


def _base(study: MethodStudy) -> str:
    return name_of(study.methods[0]) if study.methods else NOTHING
