"""Tables of an attack study: every number, and paired differences between methods, exit rules and attacks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from offramp.evaluation.arrow_tables import from_rows
from offramp.studies.attacks.study import MEASURES, PLACE, AttackStudy

if TYPE_CHECKING:
    import pyarrow as pa

ALL = "all"
COMPARED = ("clean_cost", "adversarial_cost", "adversarial_depth", "efficiency_drop")


def number_table(study: AttackStudy) -> pa.Table:
    """Every number of every place: columns `PLACE`, `measure`, `estimate`, `low`, `high`, `seeds`, `examples`."""
    rows = [
        (
            *(getattr(place, name) for name in PLACE),
            measure,
            *found.interval(measure),
            found.seeds,
            found.examples,
        )
        for place, found in study.numbers.items()
        for measure in MEASURES
    ]
    return from_rows((*PLACE, "measure", "estimate", "low", "high", "seeds", "examples"), rows)


def difference_table(study: AttackStudy, axis: str, base: Callable[[Sequence[str]], str]) -> pa.Table:
    """Paired differences along one part of the place: methods, criteria, or attacks.

    For every task, and averaged over tasks; at each value of the other parts, and averaged over them.

    Args:
        study: the attacks.
        axis: `method`, `criterion` or `attack`.
        base: picks the value that the others are compared with.

    Returns:
        Columns `PLACE` (that of the axis names the value, "all" is an average), `base`, and for the clean cost, the
        adversarial cost and the efficiency drop the value's own, the difference, and its interval.
    """
    rows = []
    values = study.values(axis)
    first = base(values)
    for wanted in _contexts(study, axis):
        for value in values:
            pair = None if value == first else study.pair(axis, value, first, **wanted)
            if pair is not None:
                named = {name: wanted.get(name, ALL) for name in PLACE} | {axis: value}
                told = [
                    x
                    for m in COMPARED
                    for x in (pair[0].interval(m)[0], pair[1].interval(m)[0], *pair[0].against(pair[1], m))
                ]
                rows.append((*(named[name] for name in PLACE), first, pair[0].places, pair[0].seeds, *told))
    parts = ("", "_base", "_difference", "_low", "_high")
    columns = [f"{measure}{part}" for measure in COMPARED for part in parts]
    return from_rows((*PLACE, "base", "places", "seeds", *columns), rows)


def _contexts(study: AttackStudy, axis: str) -> list[Mapping[str, str]]:
    """The other parts, fixed one by one or averaged over: tasks, then one of the remaining two, then neither."""
    others = [name for name in ("criterion", "attack", "method") if name != axis]
    found: list[Mapping[str, str]] = []
    tasks = study.values("task")
    for backbone in study.values("backbone"):
        for task in (None, *tasks) if len(tasks) > 1 else tasks:
            fixed = {"backbone": backbone} | ({} if task is None else {"task": task})
            if axis == "attack":
                found.append(fixed)
                found += (
                    [{**fixed, name: v} for name in others for v in study.values(name)]
                    if task is None
                    else []
                )
                continue
            for attack in study.values("attack"):  # slowdowns of different attacks are not averaged
                found.append({**fixed, "attack": attack})
                rest = next(name for name in others if name != "attack")
                values = study.values(rest)
                found += [{**fixed, "attack": attack, rest: v} for v in values] if len(values) > 1 else []
    return list({repr(sorted(one.items())): one for one in found}.values())
