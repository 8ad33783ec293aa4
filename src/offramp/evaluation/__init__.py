"""Scores, speed and robustness: curves, tables, intervals and comparisons from traces and attack rows."""

from offramp.evaluation.bootstrap import Interval, Statistic, differences, interval_table, intervals
from offramp.evaluation.compare import Comparison, compare
from offramp.evaluation.conventions import CONVENTIONS, from_paper, to_paper
from offramp.evaluation.curves import (
    RANGES,
    Curve,
    area,
    area_statistic,
    speed_accuracy,
    stack_curves,
    unstack_curves,
)
from offramp.evaluation.evaluate import Evaluation, ModelEvaluation, RuleEvaluation, compare_models, evaluate
from offramp.evaluation.operating_points import (
    exit_histogram,
    exit_statistic,
    per_exit,
    policy_scores,
    policy_statistic,
    reliability_table,
)
from offramp.evaluation.robustness import (
    Robustness,
    efficacy,
    efficiency_drop,
    gain_drop,
    robustness,
    robustness_by,
)
from offramp.evaluation.sanity_checks.checks import attack_doubts, refuse_unlike, trace_doubts
from offramp.evaluation.sanity_checks.random_baseline import random_baseline_doubts
from offramp.evaluation.timing import time_speedups

__all__ = [
    "CONVENTIONS",
    "RANGES",
    "Comparison",
    "Curve",
    "Evaluation",
    "Interval",
    "ModelEvaluation",
    "Robustness",
    "RuleEvaluation",
    "Statistic",
    "area",
    "area_statistic",
    "attack_doubts",
    "compare",
    "compare_models",
    "differences",
    "efficacy",
    "efficiency_drop",
    "evaluate",
    "exit_histogram",
    "exit_statistic",
    "from_paper",
    "gain_drop",
    "interval_table",
    "intervals",
    "per_exit",
    "policy_scores",
    "policy_statistic",
    "random_baseline_doubts",
    "refuse_unlike",
    "reliability_table",
    "robustness",
    "robustness_by",
    "speed_accuracy",
    "stack_curves",
    "time_speedups",
    "to_paper",
    "trace_doubts",
    "unstack_curves",
]
