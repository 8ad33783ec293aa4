"""The tables of an attack study: texts to read, and numbers to compute with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import TYPE_CHECKING

from offramp.evaluation.arrow_tables import as_table, from_rows
from offramp.reports.text_table import TextTable, change, interval, number
from offramp.studies.attacks.results import AXES
from offramp.studies.attacks.study import ALL, MEASURES, AttackStudy, Estimates, average, in_common
from offramp.studies.attacks.transfer_tables import summary_table, transfer_matrices
from offramp.studies.training.tables import name_of

if TYPE_CHECKING:
    import pyarrow as pa

NESTED = "Brackets: 95 % bootstrap intervals over examples, and over seeds where there are several."
DROP = (
    "Gain lost: share of the saved FLOPs that the attack takes away, from costs averaged over what a row sums up; "
    "models that save nothing are left out of averages."
)
PAIRED = "Differences are paired: same examples, same seeds, same other settings."
COMPARED = ("clean_cost", "adversarial_cost", "adversarial_depth", "efficiency_drop")
DIFFERENCES = {
    "clean cost": "clean_cost",
    "attacked cost": "adversarial_cost",
    "gain lost": "efficiency_drop",
}

Row = dict[str, str]  # cells by header


def attack_tables(study: AttackStudy) -> dict[str, TextTable]:
    """Every table that the study has content for, by file name."""
    tables = {
        "claims": claims_table(study),
        "recipes": effort_table(study),
        "recipe-differences": differences(study, "attack", "Recipes against the floor"),
        "strategies": differences(study, "method", "Training methods compared"),
        "criteria": criteria_table(study),
        "criterion-differences": differences(study, "criterion", "Exit rules compared"),
        "ablations": ablation_table(study),
        "robustness": settings_table(study),
        "transfer": summary_table(study.transfers),
    }
    for matrix in transfer_matrices(study.transfers):
        tables[f"transfer-{matrix.attack}-{matrix.task}-{matrix.backbone}"] = matrix.table()
    return {name: table for name, table in tables.items() if table.rows}


def _value(measure: str, digits: int) -> Callable[[Estimates], str]:
    return lambda estimates: number(estimates.value(measure), digits)


def _interval(measure: str) -> Callable[[Estimates], str]:
    return lambda estimates: interval(*estimates.interval(measure))


def _change(what: str, digits: int) -> Callable[[Estimates], str]:
    return lambda estimates: change(
        estimates.value(f"clean_{what}"), estimates.value(f"adversarial_{what}"), digits
    )


CELLS: dict[str, Callable[[Estimates], str]] = {
    "settings": lambda estimates: str(estimates.settings),
    "seeds": lambda estimates: str(estimates.seeds),
    "examples": lambda estimates: str(estimates.examples),
    "depth": _change("depth", 2),
    "clean depth": _value("clean_depth", 2),
    "attacked depth": _value("adversarial_depth", 2),
    "clean cost": _interval("clean_cost"),
    "attacked cost": _interval("adversarial_cost"),
    "gain lost": _interval("efficiency_drop"),
    "score lost": _interval("score_drop"),
    "score": _change("score", 3),
    "words": _value("words_changed", 2),
    "similarity": _value("similarity", 3),
    "fluency": _value("fluency_change", 2),
    "forward": _value("forward_queries", 0),
    "gradient": _value("gradient_queries", 1),
    "seconds": _value("seconds", 2),
}  # what a column shows of the estimates, by its header


def _cells(estimates: Estimates, *headers: str) -> Row:
    return {header: CELLS[header](estimates) for header in headers}


def _table(title: str, rows: Sequence[Row], note: str, words: int) -> TextTable:
    header = tuple(rows[0] if rows else ())
    return TextTable(title, header, tuple(tuple(row.values()) for row in rows), note, words)


def claims_table(study: AttackStudy) -> TextTable:
    """The gain lost to each attack, on average over tasks, methods and exit rules, beside the paper's claim."""
    methods, rows = study.values("method"), []
    for backbone, attack in product(study.values("backbone"), study.values("attack")):
        for method in [ALL, *methods] if len(methods) > 1 else methods:
            estimates = study.average_of(attack, backbone=backbone, method=method)
            if estimates is not None:
                row = {"encoder": backbone, "attack": attack, "method": _name("method", method)}
                row |= _cells(estimates, "settings", "seeds", "clean cost", "attacked cost", "gain lost")
                row["claimed"] = number(study.recorded(attack).recipe.claim, 1)
                rows.append(row | _cells(estimates, "score lost"))
    note = (
        "A setting is a task, training method and exit rule; those that all attacks were tried on, if there are any. "
        "Above 1: costlier than the full model, which a cascade can be. Claimed by the SAME paper: 80 % of the gain is "
        f"lost on average, and accuracy attacks do not slow a model down. {DROP} {NESTED}"
    )
    return _table("What attacks take away, beside the paper's claim", rows, note, 3)


def effort_table(study: AttackStudy) -> TextTable:
    """What each attack changed and asked, by task."""
    effect = ("settings", "clean depth", "attacked depth", "gain lost", "score")
    effort = ("words", "similarity", "fluency", "forward", "gradient", "seconds")
    rows = []
    for backbone, attack, task in product(*map(study.values, ("backbone", "attack", "task"))):
        estimates = study.average_of(attack, backbone=backbone, task=task)
        if estimates is not None:
            names = {"encoder": backbone, "attack": attack, "task": task}
            rows.append({**names, **_cells(estimates, *effect, *effort)})
    note = (
        "Means per example over the training methods and exit rules that all attacks on a task were tried on, if there "
        "are any: words changed, similarity to the original, change in log-probability a token (bigram model of the "
        "training texts, nats), texts run, gradients taken, seconds. "
        f"{DROP} {NESTED}"
    )
    return _table("Recipes: effect and effort", rows, note, 3)


def differences(study: AttackStudy, axis: str, title: str) -> TextTable:
    """Paired differences along methods, exit rules or attacks; averages over tasks only, where there are several."""
    fixed = [name for name in ("attack", "task", "criterion", "method") if name != axis]
    several = len(study.values("task")) > 1
    rows = []
    for row in difference_table(study, axis).to_pylist():
        if several and sum(row[name] != ALL for name in fixed if name != "attack") > 1:
            continue  # one by one: in the CSV
        names = {"encoder": row["backbone"], **{name: _name(name, row[name]) for name in (*fixed, axis)}}
        gaps = {}
        for header, measure in DIFFERENCES.items():
            gap, low, high = (row[f"{measure}_{end}"] for end in ("difference", "low", "high"))
            gaps[header] = interval(gap, low, high, 3, sign=True)
        rows.append({**names, "settings": str(row["places"]), "seeds": str(row["seeds"]), **gaps})
    note = f"Against {_name(axis, study.base(axis))}; above zero: more is lost. {PAIRED} {DROP} {NESTED}"
    return _table(title, rows, note, 5)


def _name(axis: str, value: str) -> str:
    """A value of an axis as tables show it."""
    return name_of(value) if axis == "method" and value != ALL else value


def criteria_table(study: AttackStudy) -> TextTable:
    """Which exit rule loses least, and whether clean speeds are equal."""
    criteria, rows = study.values("criterion"), []
    if len(criteria) < 2:
        return _table("Exit rules", (), "", 0)
    for backbone, attack in product(study.values("backbone"), study.values("attack")):
        common = in_common(study.select(backbone=backbone, attack=attack), "criterion", set(criteria))
        averages = {
            criterion: estimates
            for criterion in criteria
            if (estimates := average(common["estimates"][common["criterion"] == criterion])) is not None
        }
        least = min(averages, key=lambda criterion: averages[criterion].value("efficiency_drop"), default="")
        for criterion, estimates in averages.items():
            names = {"encoder": backbone, "attack": attack, "exit rule": criterion}
            cells = _cells(estimates, "settings", "clean cost", "attacked cost", "gain lost")
            rows.append({**names, "": "least" if criterion == least else "", **cells})
    note = (
        "Over the tasks and training methods that all exit rules have. A rule that saves less has less to lose: "
        f"compare rules at equal clean cost, as a study tuned with max_cost does. {DROP} {NESTED}"
    )
    return _table("Which exit rule degrades least", rows, note, 4)


def ablation_table(study: AttackStudy) -> TextTable:
    """Recipes that were run with several options, against the recipe without them."""
    rows = []
    for backbone, (attack, base) in product(study.values("backbone"), study.variants()):
        pair = study.pair("attack", attack, base, backbone=backbone)
        if pair is not None:
            before, after = study.recorded(base).options, study.recorded(attack).options
            changed = ", ".join(f"{k} {v}" for k, v in after.items() if before.get(k) != v)
            row = {"encoder": backbone, "recipe": base, "variant": attack, "options": changed}
            row |= _cells(pair[0], "settings", "attacked cost", "gain lost")
            gap = pair[0].difference(pair[1], "efficiency_drop")
            row["against the recipe"] = interval(*gap, 3, sign=True)
            rows.append(row | _cells(pair[0], "words", "forward"))
    note = f"Averages over tasks, training methods and exit rules that both have. {PAIRED} {DROP} {NESTED}"
    return _table("Ablations", rows, note, 4)


def settings_table(study: AttackStudy) -> TextTable:
    """Every setting with its estimates."""
    headers = ("seeds", "examples", "depth", "clean cost", "attacked cost", "gain lost", "score")
    rows = []
    for row in study.settings.itertuples():
        names = {"encoder": row.backbone, "attack": row.attack, "task": row.task}
        names |= {"method": name_of(row.method), "exit rule": row.criterion}
        rows.append({**names, **_cells(row.estimates, *headers)})
    note = f"Depth and score: clean → attacked. A dash: nothing was saved. {NESTED}"
    return _table("Every attack", rows, note, 5)


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

    Returns:
        A row per value and context: `AXES` ("all" is an average), `base`, `places` (how many settings are averaged),
        `seeds`; for each of `COMPARED` the value's own estimate, the base's, the difference, and its interval.
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
