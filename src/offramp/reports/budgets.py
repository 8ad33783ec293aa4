"""What attacks take away at several budgets of words, from the rows of one attack."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from offramp.evaluation.arrow_tables import floats
from offramp.evaluation.robustness import Robustness, robustness
from offramp.reports.charts import Chart, Lines, line_chart, percent
from offramp.reports.contents import AttackRun, ReportSection
from offramp.reports.text_table import TextTable, change, interval, number

if TYPE_CHECKING:
    import pyarrow as pa

BUDGETS = (0, 1, 2, 3, 5, 10, 20, 50)
RESAMPLES = 300
NOTE = (
    "Texts in which the attack changed more words than allowed count as not attacked. An attacker with the smaller "
    "budget from the start may do better: read these numbers as lower limits."
)

Budgets = dict[int, Robustness]  # by number of words


def at_budgets(attack: AttackRun) -> Budgets:
    """The robustness of a model to the texts of an attack with at most so many changed words.

    Returns:
        One entry for each budget up to the first that allows every text; none where the rows do not say how many words
        were changed.
    """
    changed = floats(attack.rows, "words_changed")
    if not len(changed) or not np.isfinite(changed).all():
        return {}
    most = next((budget for budget in BUDGETS if budget >= changed.max()), int(changed.max()))
    results = {}
    for budget in [budget for budget in BUDGETS if budget < most] + [most]:
        allowed = _limited(attack.rows, changed > budget)
        results[budget] = robustness(
            allowed, attack.exit_layers, metric=attack.metric, resamples=RESAMPLES, seed=attack.run.seed
        )
    return results


def _limited(rows: pa.Table, undone: Any) -> pa.Table:
    """The rows with the adversarial answers of some replaced by the clean ones."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for what in ("exit", "layer", "cost", "full_cost", "prediction"):
        name = f"adversarial_{what}"
        column = pc.if_else(pa.array(undone), rows[f"clean_{what}"], rows[name])
        rows = rows.set_column(rows.column_names.index(name), name, column)
    return rows


def budgets_table(section: ReportSection, budgets: Mapping[str, Budgets]) -> TextTable:
    """Before and after each attack, by the words that it may change; `budgets` by the attack's label."""
    rows = []
    for attack in section.attacks:
        for words, result in budgets[attack.label].items():
            sides = [
                change(result[f"clean_{name}"], result[f"adversarial_{name}"], digits)
                for name, digits in (("depth", 2), ("cost", 3), (attack.metric, 3))
            ]
            lost = vars(result.intervals["efficiency_drop"])
            drop = interval(lost["estimate"], lost["low"], lost["high"])
            rows.append((attack.label, number(words), *sides, drop))
    header = ("attack", "words", "depth", "cost", "score", "efficiency drop")
    note = f"{NOTE} Brackets: 95 % bootstrap intervals."
    return TextTable("Before and after, by changed words", header, tuple(rows), note)


def budgets_chart(id: str, budgets: Mapping[str, Budgets]) -> Chart | None:
    """The cost of the attacked texts against the words that may change; None without budgets."""
    lines = []
    for label, results in budgets.items():
        costs = [(words, result.intervals["adversarial_cost"]) for words, result in results.items()]
        line = [(float(words), cost.estimate) for words, cost in costs]
        band = [(float(words), cost.low, cost.high) for words, cost in costs]
        marks = [(x, y, f"{label}, {x:g} words: cost {y:.3f}") for x, y in line]
        lines.append(Lines(label, line, band, marks))
    steps = sorted({words for results in budgets.values() for words in results})
    if len(steps) < 2:
        return None
    return line_chart(
        id,
        "Cost of the attacked texts, by changed words",
        [line for line in lines if line.points],
        x="Words that may change in a text",
        y="Cost, as a share of the full model's work",
        at=steps if steps[-1] <= 10 else None,
        write=(lambda value: f"{value:g}", percent),
        note="At 0 words: the clean texts. Bands: 95 % bootstrap intervals.",
    )
