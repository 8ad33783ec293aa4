"""Tables of an attack study to compute with: every estimate, and paired differences along one axis."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import TYPE_CHECKING

from offramp.evaluation.arrow_tables import as_table, from_rows
from offramp.studies.attacks.results import AXES
from offramp.studies.attacks.study import ALL, MEASURES, AttackStudy

if TYPE_CHECKING:
    import pyarrow as pa

COMPARED = ("clean_cost", "adversarial_cost", "adversarial_depth", "efficiency_drop")


def number_table(study: AttackStudy) -> pa.Table:
    """Every estimate of every setting: columns `AXES`, `measure`, `estimate`, `low`, `high`, `seeds`, `examples`."""
    rows = [
        (*setting, measure, *estimates.interval(measure), seeds, examples)
        for *setting, estimates, seeds, examples in study.settings.itertuples(index=False, name=None)
        for measure in MEASURES
    ]
    return from_rows((*AXES, "measure", "estimate", "low", "high", "seeds", "examples"), rows)


def difference_table(study: AttackStudy, axis: str) -> pa.Table:
    """Paired differences to the base along one axis, by task and on average over tasks.

    Args:
        study: the attacks.
        axis: `method`, `criterion` or `attack`; see `AttackStudy.base`.

    Returns:
        A row per value and context: `AXES` ("all" is an average), `base`, `places` (how many settings are averaged),
        `seeds`; for each of `COMPARED` the value's own estimate, the base's, the difference, and its interval. Without
        rows where there is nothing to compare.
    """
    base, rows = study.base(axis), []
    others = [value for value in study.values(axis) if value != base]
    for context, value in product(_contexts(study, axis), others):
        pair = study.pair(axis, value, base, **context)
        if pair is not None:
            first, second = pair
            row: dict[str, object] = {name: context.get(name, ALL) for name in AXES}
            row |= {axis: value, "base": base, "places": first.settings, "seeds": first.seeds}
            for measure in COMPARED:
                gap, low, high = first.difference(second, measure)
                row |= {measure: first.value(measure), f"{measure}_base": second.value(measure)}
                row |= {f"{measure}_difference": gap, f"{measure}_low": low, f"{measure}_high": high}
            rows.append(row)
    return as_table(rows)


def _contexts(study: AttackStudy, axis: str) -> Iterator[dict[str, str]]:
    """What the other axes are fixed at: the task, then one of the remaining axes, or `ALL`."""
    tasks = study.values("task")
    for backbone, task in product(study.values("backbone"), [ALL, *tasks] if len(tasks) > 1 else tasks):
        fixed = {"backbone": backbone, "task": task}
        if axis == "attack":
            yield fixed
            for name in ("criterion", "method") if task == ALL else ():
                yield from ({**fixed, name: value} for value in study.values(name))
            continue
        rest = "criterion" if axis == "method" else "method"
        values = study.values(rest)
        # Slowdowns of different attacks are not averaged.
        for attack, value in product(study.values("attack"), [ALL, *values] if len(values) > 1 else [ALL]):
            yield {**fixed, "attack": attack, rest: value}
