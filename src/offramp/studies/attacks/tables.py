"""The tables of an attack study's report."""

from __future__ import annotations

from itertools import product
from typing import Any

from offramp.attacks.recipes import recipe_named
from offramp.reports.text_table import TextTable, interval, number
from offramp.studies.attacks.compare import ALL, difference_table
from offramp.studies.attacks.study import AttackStudy, Numbers
from offramp.studies.training.tables import name_of

NESTED = "Brackets: 95 % bootstrap intervals over examples, and over seeds where there are several."
DROP = (
    "Gain lost: share of the saved FLOPs that the attack takes away, from costs averaged over what a row sums up; "
    "models that save nothing are left out of averages."
)
PAIRED = "Differences are paired: same examples, same seeds, same other settings."


def attack_tables(study: AttackStudy) -> dict[str, TextTable]:
    """Every table that the study has content for, by file name."""
    made = {
        "claims": claims_table(study),
        "recipes": effort_table(study),
        "recipe-differences": differences(study, "attack", "Recipes against the floor"),
        "strategies": differences(study, "method", "Training methods compared"),
        "criteria": criteria_table(study),
        "criterion-differences": differences(study, "criterion", "Exit rules compared"),
        "ablations": ablation_table(study),
        "robustness": study_robustness_table(study),
    }
    return {name: table for name, table in made.items() if table.rows}


def base_of(study: AttackStudy, axis: str) -> str:
    """What the others are compared with: the first method and exit rule; of attacks the floor, if there is one."""
    values = study.values(axis)
    floors = [value for value in values if axis == "attack" and recipe_named(study.recipe(value)).is_baseline]
    return (floors or values)[0]


def claims_table(study: AttackStudy) -> TextTable:
    """The gain lost to each attack, on average over tasks, methods and exit rules, beside the paper's claim."""
    methods = study.values("method")
    rows = []
    for backbone, attack in product(study.values("backbone"), study.values("attack")):
        for method in [ALL, *methods] if len(methods) > 1 else methods:
            wanted = {"backbone": backbone} | ({} if method == ALL else {"method": method})
            found = study.mean(place for place in study.shared(**wanted) if place.attack == attack)
            if found is not None:
                shown = "all" if method == ALL else name_of(method)
                rows.append(
                    (
                        backbone,
                        attack,
                        shown,
                        str(found.places),
                        str(found.seeds),
                        *_taken(study, attack, found),
                    )
                )
    header = (
        "encoder",
        "attack",
        "method",
        "settings",
        "seeds",
        "clean cost",
        "attacked cost",
        "gain lost",
        "claimed",
        "score lost",
    )
    note = (
        "A setting is a task, training method and exit rule; those that all attacks were tried on, if there are any. "
        "Above 1: costlier than the full model, which a cascade can be. Claimed by the SAME paper: 80 % of the gain is "
        f"lost on average, and accuracy attacks do not slow a model down. {DROP} {NESTED}"
    )
    return TextTable("What attacks take away, beside the paper's claim", header, tuple(rows), note, words=3)


def _taken(study: AttackStudy, attack: str, found: Numbers) -> tuple[str, ...]:
    """Costs, the gain lost beside the claim, and the score lost."""
    claim = recipe_named(study.recipe(attack)).claim
    costs = (_shown(found, "clean_cost"), _shown(found, "adversarial_cost"))
    return (*costs, _shown(found, "efficiency_drop"), number(claim, 1), _shown(found, "score_drop"))


def effort_table(study: AttackStudy) -> TextTable:
    """What each attack changed and asked, by task."""
    rows = []
    for backbone, attack, task in product(*map(study.values, ("backbone", "attack", "task"))):
        places = study.shared(backbone=backbone, task=task)
        found = study.mean(place for place in places if place.attack == attack)
        if found is not None:
            rows.append((backbone, attack, task, str(found.places), *_effort(found)))
    header = (
        "encoder",
        "attack",
        "task",
        "settings",
        "clean depth",
        "attacked depth",
        "gain lost",
        "score",
        "words",
        "similarity",
        "fluency",
        "forward",
        "gradient",
        "seconds",
    )
    note = (
        "Means per example over the training methods and exit rules that all attacks on a task were tried on, if there "
        "are any: words changed, similarity to the original, change in log-probability a token (bigram model of the "
        "training texts, nats), texts run, gradients taken, seconds. "
        f"{DROP} {NESTED}"
    )
    return TextTable("Recipes: effect and effort", header, tuple(rows), note, words=3)


def _effort(found: Numbers) -> tuple[str, ...]:
    def plain(measure: str, digits: int) -> str:
        return number(found.interval(measure)[0], digits)

    score = f"{plain('clean_score', 3)} → {plain('adversarial_score', 3)}"
    depths = (plain("clean_depth", 2), plain("adversarial_depth", 2))
    spent = (plain("forward_queries", 0), plain("gradient_queries", 1), plain("seconds", 2))
    changed = (plain("words_changed", 2), plain("similarity", 3), plain("fluency_change", 2))
    return (*depths, _shown(found, "efficiency_drop"), score, *changed, *spent)


def differences(study: AttackStudy, axis: str, title: str) -> TextTable:
    """Paired differences along methods, exit rules or attacks."""
    if len(study.values(axis)) < 2:
        return TextTable(title, (), ())
    base = base_of(study, axis)
    names = {"method": name_of}.get(axis, str)
    fixed = [name for name in ("attack", "task", "criterion", "method") if name != axis]
    several = len(study.values("task")) > 1
    rows = []
    for row in difference_table(study, axis, lambda values: base).to_pylist():
        if several and sum(row[name] != ALL for name in fixed if name != "attack") > 1:
            continue  # one by one: in the CSV
        told = [row["backbone"], *(_part(name, row[name]) for name in fixed), names(row[axis])]
        cells = (_signed(row, measure) for measure in ("clean_cost", "adversarial_cost", "efficiency_drop"))
        rows.append((*told, str(row["places"]), str(row["seeds"]), *cells))
    header = ("encoder", *fixed, axis, "settings", "seeds", "clean cost", "attacked cost", "gain lost")
    note = f"Against {names(base)}; above zero: more is lost. {PAIRED} {DROP} {NESTED}"
    return TextTable(title, header, tuple(rows), note, words=5)


def _part(name: str, value: str) -> str:
    return name_of(value) if name == "method" and value != ALL else value


def _signed(row: dict[str, Any], measure: str) -> str:
    estimate, low, high = (row[f"{measure}_{part}"] for part in ("difference", "low", "high"))
    return interval(estimate, low, high, 3, sign=True)


def criteria_table(study: AttackStudy) -> TextTable:
    """Which exit rule loses least, and whether clean speeds are equal."""
    criteria = study.values("criterion")
    if len(criteria) < 2:
        return TextTable("Exit rules", (), ())
    rows = []
    for backbone in study.values("backbone"):
        for attack in study.values("attack"):
            wanted = {"backbone": backbone, "attack": attack}
            common = study.met_by_all("criterion", criteria, study.where(**wanted))
            found = {c: study.mean([p for p in common if p.criterion == c]) for c in criteria}
            known = {c: numbers for c, numbers in found.items() if numbers is not None}
            least = min(known, key=lambda c: known[c].interval("efficiency_drop")[0], default="")
            for criterion, numbers in known.items():
                told = (_shown(numbers, m) for m in ("clean_cost", "adversarial_cost", "efficiency_drop"))
                mark = "least" if criterion == least else ""
                rows.append((backbone, attack, criterion, mark, str(numbers.places), *told))
    header = ("encoder", "attack", "exit rule", "", "settings", "clean cost", "attacked cost", "gain lost")
    note = (
        "Over the tasks and training methods that all exit rules have. A rule that saves less has less to lose: "
        f"compare rules at equal clean cost, as a study tuned with max_cost does. {DROP} {NESTED}"
    )
    return TextTable("Which exit rule degrades least", header, tuple(rows), note, words=4)


def ablation_table(study: AttackStudy) -> TextTable:
    """Recipes that were run with several options, against the one without."""
    rows = []
    for backbone in study.values("backbone"):
        for attack, base in ablated(study):
            pair = study.pair("attack", attack, base, backbone=backbone)
            if pair is not None:
                changed = ", ".join(
                    f"{name} {value}" for name, value in _changed(study, attack, base).items()
                )
                told = (_shown(pair[0], "adversarial_cost"), _shown(pair[0], "efficiency_drop"))
                gap = interval(*pair[0].against(pair[1], "efficiency_drop"), 3, sign=True)
                effort = (_plain(pair[0], "words_changed", 2), _plain(pair[0], "forward_queries", 0))
                rows.append((backbone, base, attack, changed, str(pair[0].places), *told, gap, *effort))
    header = (
        "encoder",
        "recipe",
        "variant",
        "options",
        "settings",
        "attacked cost",
        "gain lost",
        "against the recipe",
        "words",
        "forward",
    )
    note = f"Averages over tasks, training methods and exit rules that both have. {PAIRED} {DROP} {NESTED}"
    return TextTable("Ablations", header, tuple(rows), note, words=4)


def ablated(study: AttackStudy) -> list[tuple[str, str]]:
    """Attacks that are variants of another one: the variant, and the recipe under its own name."""
    attacks = study.values("attack")
    return [(a, study.recipe(a)) for a in attacks if a != study.recipe(a) and study.recipe(a) in attacks]


def _changed(study: AttackStudy, attack: str, base: str) -> dict[str, Any]:
    before = study.options(base)
    return {name: value for name, value in study.options(attack).items() if before.get(name) != value}


def study_robustness_table(study: AttackStudy) -> TextTable:
    """Every place with its numbers."""
    rows = []
    for place, found in study.numbers.items():
        told = (place.backbone, place.attack, place.task, name_of(place.method), place.criterion)
        costs = (_shown(found, "clean_cost"), _shown(found, "adversarial_cost"))
        depths = f"{_plain(found, 'clean_depth', 2)} → {_plain(found, 'adversarial_depth', 2)}"
        score = f"{_plain(found, 'clean_score', 3)} → {_plain(found, 'adversarial_score', 3)}"
        counts = (str(found.seeds), str(found.examples))
        rows.append((*told, *counts, depths, *costs, _shown(found, "efficiency_drop"), score))
    header = (
        "encoder",
        "attack",
        "task",
        "method",
        "exit rule",
        "seeds",
        "examples",
        "depth",
        "clean cost",
        "attacked cost",
        "gain lost",
        "score",
    )
    note = f"Depth and score: clean → attacked. A dash: nothing was saved. {NESTED}"
    return TextTable("Every attack", header, tuple(rows), note, words=5)


def _shown(found: Numbers, measure: str) -> str:
    return interval(*found.interval(measure))


def _plain(found: Numbers, measure: str, digits: int) -> str:
    return number(found.interval(measure)[0], digits)
