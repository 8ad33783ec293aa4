"""Several sweeps as one: models that were made in different ways, such as with other pooling, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from offramp._core.errors import DataError
from offramp._core.paths import UserPath
from offramp.reports.text_table import NOTHING, TextTable, signed
from offramp.studies.training.results import Result, load_results, result_frame
from offramp.studies.training.study import MethodStudy
from offramp.studies.training.tables import NESTED, PAIRED, SPANS, differences_in_print, name_of


def load_sweeps(folders: Sequence[UserPath]) -> tuple[list[Result], list[str]]:
    """The trials of several sweeps, cut to what all protocols have; and what was left out.

    Sweeps with the same protocol add up. Where protocols differ, such as in pooling, each is an encoder of its own,
    named by what differs: `minilm-l6, pooler`. The protocols of an encoder keep the tasks and seeds that all have.

    Raises:
        DataError: as `load_results`; or two sweeps hold the same model.
    """
    results, holders = list[Result](), dict[tuple[object, ...], Path]()
    for folder in dict.fromkeys(map(Path, folders)):
        for result in load_results(folder):
            model = (result.setting, repr(result.protocol), result.method, result.seed)
            if (holder := holders.setdefault(model, folder)) != folder:
                raise DataError(f"{holder} and {folder} both hold {result.trial}: give one of the two")
            results.append(result)
    return _common(results)


def _common(results: Sequence[Result]) -> tuple[list[Result], list[str]]:
    """The results under the names of their protocols, with the tasks and seeds that all of an encoder have."""
    frame = result_frame(results).assign(protocol=_names(results))
    setting = ["setting", "protocol"]
    methods = frame.groupby(setting, sort=False)["method"].transform("nunique")
    complete = frame.groupby([*setting, "seed"], sort=False)["method"].transform("nunique") == methods
    protocols = frame.groupby("backbone", sort=False)["protocol"].transform("nunique")
    having = frame.assign(protocol=frame["protocol"].where(complete))
    common = having.groupby(["setting", "seed"], sort=False)["protocol"].transform("nunique") == protocols
    left_out = [
        f"{', '.join(filter(None, key))}: seeds {sorted(set(seeds))}, which not all protocols and methods have"
        for key, seeds in frame[~common].groupby(["backbone", "protocol", "task"], sort=False)["seed"]
    ]
    kept = []
    for row in frame[common].itertuples():
        encoder = ", ".join(filter(None, (row.backbone, row.protocol)))
        kept.append(replace(row.result, setting=replace(row.setting, backbone=encoder)))
    return kept, left_out


def _names(results: Sequence[Result]) -> list[str]:
    """What differs between the protocols of an encoder, for each result: `pooler`, or `pooler, warmup 0`."""
    values: dict[tuple[str, str], set[str]] = {}
    for result in results:
        for name, value in result.protocol.items():
            values.setdefault((result.setting.backbone, name), set()).add(_words(name, value))
    return [
        ", ".join(_words(n, v) for n, v in r.protocol.items() if len(values[r.setting.backbone, n]) > 1)
        for r in results
    ]


def _words(name: str, value: Any) -> str:
    words = " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return words if name == "pooling" else f"{name.replace('_', ' ')} {words}"


def protocols_table(study: MethodStudy) -> TextTable:
    """Every method against the baseline under each protocol: the mean over exits, each exit, and the curve."""
    frame = differences_in_print(study)
    tasks = frame["where"].str.startswith("mean of")
    averaged = frame["backbone"].isin(frame[tasks]["backbone"])
    frame = frame[tasks | ~averaged]  # an encoder with one task has no average
    exits = [measure for measure in frame["measure"].unique() if measure.startswith("layer ")]
    measures = ["exits", *sorted(exits, key=lambda name: int(name.split()[1])), "fast", "slow"]
    keys = ["method", "backbone", "where", "examples", "seeds"]
    wide = frame.groupby([*keys, "measure"], sort=False)["points"].first().unstack("measure", sort=False)
    wide = wide.reindex(columns=measures).fillna(NOTHING)
    rows = []
    for method, own in wide.groupby(level="method", sort=False):
        rows += [(name_of(key[0]), *map(str, key[1:]), *cells) for key, *cells in own.itertuples()]
        if method in study.claims:
            paper = ("BERT, DeBERTa (SWEET paper)", "mean of GLUE tasks", "6,000", NOTHING)
            rest = [NOTHING] * (len(measures) - 1)
            rows.append((name_of(method), *paper, signed(study.claims[method], 1), *rest))
    names = [SPANS.get(measure, measure) for measure in measures[1:]]
    header = ("method", "encoder", "task", "examples", "seeds", "mean over exits", *names)
    note = (
        f"Points against {name_of(study.methods[0]) if study.methods else NOTHING} under the same protocol. The curve: "
        f"mean score over a range of costs. {PAIRED} {NESTED}"
    )
    return TextTable("Methods under each protocol: differences in points", header, tuple(rows), note, words=4)
