"""The page of an attack study: the question, the answer in two sentences, and its sections."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from offramp._core.text import slug, some_of
from offramp.attacks.recipes.same import SAME_CLAIM
from offramp.reports.charts import percent
from offramp.reports.forest import Estimate, Forest, forest_chart
from offramp.reports.study_page import Chapter, StudyContents
from offramp.reports.summary import Summary, count_of, share
from offramp.reports.text_table import interval, number
from offramp.studies.attacks.results import AXES
from offramp.studies.attacks.study import AttackStudy, Estimates
from offramp.studies.training.tables import name_of

MOST_NAMES = 4  # in a sentence
NOTE = (
    "Bars: 95 % bootstrap intervals. Lines: nothing lost, and all of it; beyond, a text costs more than at full depth. "
    "Dashed: the SAME paper's claim."
)
ROWS = {"attack": "attack", "task": "task", "criterion": "exit rule"}  # charts, by the axis of their rows


def attack_contents(study: AttackStudy, records: Sequence[Mapping[str, Any]]) -> StudyContents:
    """What the page of an attack study shows; `records` are those of its trials."""
    summary = Summary(
        "How much of the saved work do attacks take away?", _scope(study), tuple(_answer(study))
    )
    chapters = [
        Chapter("What attacks take away", charts=list(_drops(study)), tables=("claims",)),
        Chapter("Recipes", tables=("recipes", "recipe-differences", "ablations"), figures=("ablations-*",)),
        Chapter("Training methods", tables=("strategies",), figures=("cost-*",)),
        Chapter("Exit rules", tables=("criteria", "criterion-differences")),
        Chapter("Every setting", tables=("robustness",)),
        Chapter("Transfer", tables=("transfer",), figures=("transfer-*",)),
    ]
    return StudyContents(summary, chapters, (), study.doubts, records)


def _scope(study: AttackStudy) -> str:
    victims = {(*attack.setting[:3], attack.seed) for attack in study.attacks}
    names = {axis: study.values(axis) for axis in AXES}
    facts = [
        some_of(names["backbone"], MOST_NAMES),
        some_of(names["task"], MOST_NAMES),
        some_of([name_of(method) for method in names["method"]], MOST_NAMES),
        f"exit rules {some_of(names['criterion'], MOST_NAMES)}",
        f"attacks {some_of(names['attack'], MOST_NAMES)}",
        count_of(len(victims), "model"),
    ]
    return " · ".join(facts)


def _answer(study: AttackStudy) -> Iterator[str]:
    """What the strongest slowdown attack takes away; then which method, else which exit rule, loses least and most."""
    means = {attack: study.average_of(attack) for attack in study.values("attack")}
    lost = {attack: mean for attack, mean in means.items() if mean is not None}
    if not lost:
        yield "No model saves anything before the attacks, so nothing can be taken away."
        return
    slowing = {attack: mean for attack, mean in lost.items() if slows(study, attack)}
    attack, mean = max((slowing or lost).items(), key=lambda item: item[1].value("efficiency_drop"))
    costs = (number(mean.value(f"{side}_cost"), 2) for side in ("clean", "adversarial"))
    yield (
        f"{attack} takes away {_lost(mean)} of the work that models save: their mean cost rises from "
        f"{' to '.join(costs)} of the full model's."
    )
    for axis, shown in (("method", name_of), ("criterion", str)):
        if len(study.values(axis)) > 1:
            yield from _least_and_most(study, axis, attack, shown)
            return


def _least_and_most(study: AttackStudy, axis: str, attack: str, shown: Callable[[str], str]) -> Iterator[str]:
    values = {value: study.average_of(attack, **{axis: value}) for value in study.values(axis)}
    lost = sorted(
        ((value, mean) for value, mean in values.items() if mean is not None),
        key=lambda pair: pair[1].value("efficiency_drop"),
    )
    if len(lost) > 1:
        (least, first), (most, last) = lost[0], lost[-1]
        yield f"{shown(least)} loses least, {_lost(first)}, and {shown(most)} most, {_lost(last)}."


def slows(study: AttackStudy, attack: str) -> bool:
    """Whether an attack is meant to slow a model down, more than random edits do."""
    recipe = study.recorded(attack).recipe
    return recipe.goal == "slowdown" and not recipe.is_baseline


def _lost(mean: Estimates) -> str:
    """The share of the gain that is lost, with its interval."""
    return share(dict(zip(("estimate", "low", "high"), mean.interval("efficiency_drop"), strict=True)), 0)


def _drops(study: AttackStudy) -> Iterator[Forest | None]:
    """The gain lost to every attack, on every task and under every exit rule, by method; for each encoder."""
    methods = study.values("method")
    for encoder in study.values("backbone"):
        for axis, noun in ROWS.items():
            values = study.values(axis)
            if len(values) == 1 and axis != "attack":
                continue
            attacks = values if axis == "attack" else study.values("attack")[:1]
            rows = {
                name_of(method): {
                    value: estimate
                    for value in values
                    if (estimate := _estimate(study, {axis: value}, attacks[0], encoder, method)) is not None
                }
                for method in methods
            }
            several = axis == "attack" and len(values) > 1
            what = "each attack" if several else attacks[0]
            by = "" if axis == "attack" else f"by {noun}, "
            yield forest_chart(
                f"chart-lost-{slug(f'{axis} {encoder}')}",
                f"Gain lost to {what}, {by}{encoder}",
                rows,
                x="Share of the saved work that is lost",
                say=lambda e: interval(e.value, e.low, e.high),
                write=percent,
                lines=(0.0, 1.0),
                dashed=(SAME_CLAIM,),
                note=NOTE,
            )


def _estimate(
    study: AttackStudy, value: Mapping[str, str], attack: str, encoder: str, method: str
) -> Estimate | None:
    """The average of an attack (of another one, if `value` names it) over the settings with these values."""
    wanted = {"backbone": encoder, "method": method, **value}
    mean = study.average_of(wanted.pop("attack", attack), **wanted)
    return None if mean is None else Estimate(*mean.interval("efficiency_drop"))
