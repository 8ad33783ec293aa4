"""`offramp check`: conditions on the numbers of runs, for continuous integration."""

from __future__ import annotations

import math
from typing import Any

from offramp.cli.common import JsonFlag, emit, show
from offramp.cli.paths import PathOption
from offramp.reports.conditions import Outcome, check_conditions, read_conditions

FAILED = 1  # the exit code


def check(runs: PathOption, conditions: PathOption, *, json: JsonFlag = False) -> int:
    """Check whether the numbers of runs keep conditions; the exit code is 1 if they do not.

    For example `offramp check runs conditions.yaml`, with a file such as

        conditions:
          - {metric: accuracy, where: {command: evaluate}, min: 0.78}
          - {metric: gain_drop, where: {recipe: same-word}, max: 0.5}
          - {metric: bench.p95, where: {peer: ours-int8, batch_size: 1}, max: 4}
          - {metric: depth, where: {name: sweet}, baseline: ../results/demo, max_rise: 0.2}

    A metric is one of a record, or `table.column` of a table. `where` gives values of the run's options and of the
    table's columns. If several numbers match, each must keep the condition, and the table shows the worst. The exit
    code is 2 if the file is wrong, or names what no run has.

    Args:
        runs: folder of a run, of several runs, or of packed ones.
        conditions: the YAML file.
    """
    outcomes = check_conditions(runs, read_conditions(conditions))
    rows = [_row(outcome) for outcome in outcomes]
    show(f"conditions on {runs}", [{name: _text(value) for name, value in row.items()} for row in rows])
    passed = all(outcome.passed for outcome in outcomes)
    emit(json, {"passed": passed, "conditions": rows})
    return 0 if passed else FAILED


def _row(outcome: Outcome) -> dict[str, Any]:
    condition = outcome.condition
    return {
        "metric": condition.metric,
        "where": ", ".join(f"{name} {value}" for name, value in condition.where.items()),
        "value": outcome.value,
        "at_least": outcome.low if math.isfinite(outcome.low) else None,
        "at_most": outcome.high if math.isfinite(outcome.high) else None,
        "matching": outcome.matching,
        "worst": outcome.run,
        "passed": outcome.passed,
    }


def _text(value: Any) -> Any:
    return {True: "yes", False: "NO"}[value] if isinstance(value, bool) else value
