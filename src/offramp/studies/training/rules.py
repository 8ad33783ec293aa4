"""Exit rules compared on the traces of a training study: which rule leaves best, for each way of training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from offramp._core.errors import CriterionError, DataError
from offramp._core.paths import UserPath, user_path
from offramp._core.seeding import generator
from offramp.criteria import CRITERIA, Criterion, make_criterion, scores
from offramp.engine.policy import Policy
from offramp.evaluation.curves import RANGES
from offramp.reports import check_report, write_report
from offramp.reports.study_page import study_page
from offramp.reports.text_table import TextTable
from offramp.reports.write import NO_FIGURES
from offramp.studies.training.figures import study_figures
from offramp.studies.training.page import training_contents
from offramp.studies.training.results import Result, load_results, records_of
from offramp.studies.training.study import MethodStudy, study
from offramp.studies.training.tables import curve_differences_table, curves_table, name_of, winners_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FITTED = 0.25  # share of the validation rows that rules are fitted on; the others are scored
BASELINE = CRITERIA["confidence"].label
RECALL = f"{BASELINE} with recall"

# By the names of tables: every rule that has a threshold, and the variants of some.
RULES: dict[str, Criterion] = {
    **{rule.label: make_criterion(name) for name, rule in CRITERIA.items() if rule.tunable},
    "Vote by cost": make_criterion("vote", weighting="cost"),
    "Vote by accuracy": make_criterion("vote", weighting="accuracy"),
    "Vote by cost, reset": make_criterion("vote", weighting="cost", reset=True),
    RECALL: make_criterion("confidence"),
}


def rules_report(
    folder: UserPath,
    output: UserPath,
    *,
    figures: Sequence[str] = NO_FIGURES,
    table_files: bool = True,
    resamples: int = 1000,
    progress: bool = False,
) -> dict[str, Path]:
    """Write a report that compares all exit rules on the models of a training study, and return its files by name.

    Each way of training is an encoder of its own in the tables, and the rules are the methods. All rules see the same
    models and rows. A quarter of the rows serves to fit what a rule fits, and only the others are scored.

    Args:
        folder: of the study.
        output, figures, table_files, resamples, progress: as for `study_report`, which also lists the errors.
    """
    check_report(output)
    ruled, left_out = apply_rules(load_results(folder))
    results = study(ruled, resamples=resamples, progress=progress)
    drawn: dict[str, Figure] = {}
    if figures:
        made = study_figures(results)
        drawn = {name: figure for name, figure in made.items() if name.startswith("curves-")}
    rows = f"Scored on {1 - FITTED:.0%} of the validation rows; what a rule fits is fitted on the others."
    title, tables = f"{user_path(folder).resolve().name}, exit rules", _tables(results)
    missing = (*left_out, *results.left_out)
    contents = training_contents(results, left_out=missing, records=records_of([folder]), measure="fast")
    return write_report(
        output,
        title=title,
        lead=[
            f"{len(results.compared)} pairs of a model and a rule, {len(results.groups)} comparisons. {rows}"
        ],
        doubts=[f"left out: {reason}" for reason in missing],
        tables=tables,
        figures=drawn,
        shown=figures,
        table_files=table_files,
        page=lambda drawn: study_page(title, contents, tables, drawn),
        progress=progress,
    )


def _tables(results: MethodStudy) -> dict[str, TextTable]:
    """Differences on average over the tasks, then task by task; areas; and the winners on the curves."""
    differences, winners = curve_differences_table(results), winners_table(results)
    title = "Exit rules: differences in points"
    averaged = tuple(row for row in differences.rows if row[1].startswith("mean of"))
    single = tuple(row for row in differences.rows if row not in averaged)
    tables = {
        "rules": replace(differences, title=title, rows=averaged),
        "tasks": replace(differences, title=f"{title}, task by task", rows=single),
        "areas": curves_table(results),
        "winners": replace(winners, rows=tuple(row for row in winners.rows if row[2] in RANGES)),
    }
    return {name: table for name, table in tables.items() if table.rows}


def apply_rules(results: Sequence[Result]) -> tuple[list[Result], list[str]]:
    """Each result once under every rule that it allows, with the rule as its method; and the rules left out.

    Raises:
        DataError: no result allows the baseline, such as those of regression.
    """
    ruled, refused = list[Result](), dict[str, int]()
    for result in results:
        fitted, scored = split_rows(len(result.trace))
        for label, rule in RULES.items():
            try:
                own = _fit(rule, result, fitted)
            except CriterionError as error:
                reason = f"{label}: {error}"
                refused[reason] = refused.get(reason, 0) + 1
                continue
            encoder = f"{result.setting.backbone}, {name_of(result.method)}"
            answering = recalled(result) if label == RECALL else result
            ruled.append(
                replace(
                    answering,
                    setting=replace(result.setting, backbone=encoder),
                    method=label,
                    strategy=BASELINE,  # so the baseline comes first
                    rule=own,
                    logits_trace=answering.logits_trace.take(scored),
                )
            )
    if not any(result.method == BASELINE for result in ruled):
        raise DataError(f"no model of this study can leave by {BASELINE}: rules are compared for classifiers")
    return ruled, [f"{reason} ({count} models)" for reason, count in refused.items()]


def recalled(result: Result) -> Result:
    """A result that leaves by confidence, and answers as `Policy.recall` has it.

    A text that leaves by confidence before the last exit is surer there than at any exit before. So recall changes only
    what the last exit answers.
    """
    trace, policy = result.trace, Policy(result.rule, result.trace.exit_layers, recall=True)
    logits = trace.logits.copy()
    logits[:, -1] = trace.logits[np.arange(len(trace)), policy.answer_exits(trace)[:, -1]]
    return replace(result, logits_trace=replace(trace, logits=logits), temperatures=None)


def split_rows(examples: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows to fit rules on, and rows to score: the same for all models of a task."""
    order = generator(0, "rules", examples).permutation(examples)
    cut = round(FITTED * examples)
    return np.sort(order[:cut]), np.sort(order[cut:])


def _fit(rule: Criterion, result: Result, rows: NDArray[np.intp]) -> Criterion:
    """The rule fitted to some rows of a model; `CriterionError` if the model does not allow the rule."""
    run = result.trace.take(rows)
    rule.check(run.exits, run.kind, run.gates is not None)
    fitted = rule.fit(run).with_temperatures(result.temperatures)
    scores(fitted, run)  # a trace may lack what the rule reads
    return fitted
