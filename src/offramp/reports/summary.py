"""The first screen of the page: what was asked, the answer in two sentences, and what it would hide."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from offramp._core.text import some_of
from offramp.reports.bench_summary import bench_question
from offramp.reports.contents import AttackRun, ReportContents, ReportSection
from offramp.reports.doubt_groups import MOST
from offramp.reports.text_table import interval

LIMIT = 0.01  # the loss of score that an answer allows
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Summary:
    """What was asked of some records, in which scope, and the answer as sentences."""

    question: str
    scope: str
    answer: tuple[str, ...]


def summarise(contents: ReportContents) -> Summary:
    """The question and answer of the first data set that has an answer."""
    for section in contents.sections:
        answer = answers(section)
        if answer:
            return Summary(_question(section), _scope(section), tuple(answer))
    commands = sorted({run.command.replace("_", " ") for run in contents.runs})
    records = count_of(len(contents.runs), "record")
    sentence = f"The tables below show the numbers of {records} ({', '.join(commands)})."
    return Summary(f"What did the runs in {contents.title} measure?", "", (sentence,))


def answers(section: ReportSection) -> list[str]:
    """The answer in at most two sentences; none where the runs answer no question."""
    models = _models(section)
    best = _best(models) if models else ""
    attack = _strongest(section, best)
    sentences = [_saving(section, models, best)] if models else []
    if attack is not None:
        sentences.append(_lost(attack, best))
    elif models:
        sentences.append(_compared(section) or _timed(section, best) or _score(models[best]))
    return sentences or bench_question(section)[1]


def cautions(section: ReportSection) -> list[str]:
    """What the answer alone would hide: a model that saves less, but answers better."""
    models = _models(section)
    if len(models) < 2:
        return []
    best, top = _best(models), max(models, key=lambda label: models[label]["full"]["estimate"])
    if models[top]["full"]["estimate"] <= models[best]["full"]["estimate"]:
        return []
    scores = f"{share(models[top]['full'])} against {share(models[best]['full'])}"
    return [
        f"{top} answers better at its last exit than {best}: {scores}. Compare the curves, not the losses."
    ]


def _question(section: ReportSection) -> str:
    data = f" on {section.data}" if section.data else ""
    if not section.labelled("policy"):
        if not section.attacks:
            return f"{bench_question(section)[0]}{data}?"
        return f"How much of the saved work do attacks take away{data}?"
    attacked = ", and what is left of it under attack" if section.attacks else ""
    return f"How much work do early exits save{data}{attacked}?"


def _scope(section: ReportSection) -> str:
    evaluated = section.labelled("policy")
    facts = []
    if evaluated:
        names = some_of([label for label, _ in evaluated], MOST)
        facts.append(f"{count_of(len(evaluated), 'model')}: {names}")
        rules = dict.fromkeys(str(run.get("criterion", "")) for _, run in evaluated)
        facts.append("exit rule " + ", ".join(filter(None, rules)) if any(rules) else "")
        sizes = {int(run.get("examples")) for _, run in evaluated if run.get("examples")}
        facts.append(f"{min(sizes):,} texts" if len(sizes) == 1 else "")
    if section.attacks:
        recipes = dict.fromkeys(str(attack.rows["recipe"][0]) for attack in section.attacks)
        sizes = {attack.robustness.examples for attack in section.attacks}
        texts = f"{min(sizes):,}" if len(sizes) == 1 else f"{min(sizes):,} to {max(sizes):,}"
        facts.append(f"attacks on {texts} texts: {', '.join(recipes)}")
    return " · ".join(filter(None, facts))


def _models(section: ReportSection) -> dict[str, dict[str, Row]]:
    """The numbers of each model's policy, by name."""
    models = {
        label: {row["name"]: row for row in run.tables["policy"].to_pylist()}
        for label, run in section.labelled("policy")
    }
    needed = ("score", "full", "drop", "cost")
    return {label: rows for label, rows in models.items() if all(_defined(rows.get(name)) for name in needed)}


def _defined(row: Row | None) -> bool:
    return row is not None and row["estimate"] is not None and math.isfinite(row["estimate"])


def _best(models: Mapping[str, Mapping[str, Row]]) -> str:
    """The model that costs least among those that lose at most `LIMIT`; else the model that loses least."""
    kept = [label for label, rows in models.items() if _within(rows)]
    if kept:
        return min(kept, key=lambda label: models[label]["cost"]["estimate"])
    return min(models, key=lambda label: models[label]["drop"]["estimate"])


def _within(rows: Mapping[str, Row]) -> bool:
    return bool(rows["drop"]["estimate"] <= LIMIT + 1e-9)


def _saving(section: ReportSection, models: Mapping[str, Mapping[str, Row]], best: str) -> str:
    kept, rows = sum(map(_within, models.values())), models[best]
    metric = next(str(run.get("metric", "accuracy")) for _, run in section.labelled("policy"))
    change = f"{_lost_or_gained(rows['drop'])} of {metric.replace('_', ' ')}"
    digits = 0 if rows["cost"]["estimate"] >= 0.01 else 2
    work = f"{best} needs {share(rows['cost'], digits)} of its full model's work and {change}"
    if len(models) == 1:
        return work + ("." if kept else ": more than 1 point.")
    if not kept:
        return f"No model stays within 1 point of its last exit: {work}, the smallest loss."
    if kept == 1:
        return f"{work}: the only one of {len(models)} models that loses at most 1 point."
    return f"{work}: the least work among the {kept} models that lose at most 1 point."


def _strongest(section: ReportSection, model: str) -> AttackRun | None:
    """The attack that costs the model most; of another model where this one was not attacked."""
    own = [attack for attack in section.attacks if attack.run.name == model]
    return max(own or section.attacks, key=_added, default=None)


def _added(attack: AttackRun) -> float:
    return attack.robustness["adversarial_cost"] - attack.robustness["clean_cost"]


def _lost(attack: AttackRun, best: str) -> str:
    numbers, victim = attack.robustness, attack.run.name
    recipe, drop = attack.rows["recipe"][0].as_py(), vars(numbers.intervals["efficiency_drop"])
    words = numbers["words_changed"]
    effort = f", changing {words:.1f} words a text" if math.isfinite(words) else ""
    if math.isnan(drop["estimate"]):
        depth = numbers["clean_depth"], vars(numbers.intervals["adversarial_depth"])
        moved = f"layer {depth[0]:.1f} to layer {_interval(depth[1], 1)}"
        return f"The attack {recipe} moves the mean exit of {victim} from {moved}{effort}."
    whose = "that saving" if victim == best else f"the work that {victim} saves"
    return f"The attack {recipe} takes away {share(drop, 0)} of {whose}{effort}."


def _compared(section: ReportSection) -> str:
    """The method whose curve is furthest from the baseline's, where several were compared."""
    rows = [row for _, row in section.rows("scores") if row["place"] == "whole"]
    others = [row for row in rows if row["difference"] is not None and math.isfinite(row["difference"])]
    if not others:
        return ""
    baseline = next((row["method"] for row in rows if row not in others), "the baseline")
    row = max(others, key=lambda row: abs(row["difference"]))
    gap = {"estimate": row["difference"], "low": row["difference_low"], "high": row["difference_high"]}
    plus = "+" if gap["estimate"] > 0 else ""
    chance = ", which may be chance" if gap["low"] <= 0 <= gap["high"] else ""
    return f"Averaged over all costs, {row['method']} scores {plus}{points(gap)} against {baseline}{chance}."


def _timed(section: ReportSection, best: str) -> str:
    for label, run in section.labelled("timing"):
        rows = run.tables["timing"].to_pylist()
        threshold = run.get("threshold")
        own = [row for row in rows if row["threshold"] == threshold]
        if label == best and own:
            bounds = {"estimate": own[0]["time_speedup"], "low": own[0]["speedup_low"]}
            speed = _interval(bounds | {"high": own[0]["speedup_high"]}, 1)
            return f"Measured, it is {speed} times as fast as at full depth."
    return ""


def _score(rows: Mapping[str, Row]) -> str:
    return f"It scores {share(rows['score'])}; its last exit scores {share(rows['full'])}."


def count_of(number: int, noun: str) -> str:
    """Such as `1 record` and `2 records`."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def share(row: Row, digits: int = 1) -> str:
    """A share in percent with its interval: `38 % [36, 40]`."""
    return _interval(row, digits, " %", 100)


def _lost_or_gained(drop: Row) -> str:
    if drop["estimate"] >= 0:
        return f"loses {points(drop)}"
    ends = (None if drop[name] is None else -drop[name] for name in ("high", "low"))
    return f"gains {points(dict(zip(('estimate', 'low', 'high'), (-drop['estimate'], *ends), strict=True)))}"


def points(row: Row) -> str:
    """A difference in points with its interval: `0.7 points [0.0, 1.5]`."""
    return _interval(row, 1, " points", 100)


def _interval(row: Row, digits: int, unit: str = "", times: int = 1) -> str:
    estimate, low, high = (
        None if row[name] is None else round(times * row[name], digits) + 0.0  # not −0
        for name in ("estimate", "low", "high")
    )
    shown, *bounds = interval(estimate, low, high, digits).split(" ", 1)
    return " ".join([f"{shown}{unit}", *bounds])
