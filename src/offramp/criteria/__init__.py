"""Exit criteria: when may an example leave?"""

from offramp.criteria.base import Criterion, Memory, first_exit, scores
from offramp.criteria.registry import CRITERIA, make_criterion, with_threshold
from offramp.criteria.threshold_grid import best_so_far, threshold_grid

__all__ = [
    "CRITERIA",
    "Criterion",
    "Memory",
    "best_so_far",
    "first_exit",
    "make_criterion",
    "scores",
    "threshold_grid",
    "with_threshold",
]
