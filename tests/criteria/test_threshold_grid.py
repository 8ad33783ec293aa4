"""The grid realises every outcome that any threshold can have, once, from the laxest to the strictest."""

from itertools import pairwise

import numpy as np
import pytest
from criteria_table import EXITS, ROWS, random_trace
from hypothesis import given, settings
from hypothesis import strategies as st

from offramp._core.errors import CriterionError
from offramp.criteria import first_exit, make_criterion, scores, threshold_grid, with_threshold

TUNABLE = {name: row for name, row in ROWS.items() if row.rule.tunable}
every_tunable = pytest.mark.parametrize("row", TUNABLE.values(), ids=TUNABLE)


def outcomes(rule, table, thresholds):
    return [tuple(first_exit(with_threshold(rule, t), table)) for t in thresholds]


def all_thresholds(rule, table):
    """Every score, just above and below it, and the ends: no outcome escapes these."""
    low, high = rule.threshold_range
    if rule.whole:
        return range(1, EXITS + 2)
    values = np.unique(table)
    near = np.concatenate([values, np.nextafter(values, -np.inf), np.nextafter(values, np.inf)])
    return [low, *near[(near >= low) & (near <= high)], high]


@every_tunable
@given(seed=st.integers(0, 10**6), n=st.integers(1, 12))
@settings(max_examples=20, deadline=None)
def test_every_outcome_once_from_lax_to_strict(row, seed, n):
    table = scores(row.rule, random_trace(seed, row.kind, n=n))
    grid = threshold_grid(row.rule, table)
    found = outcomes(row.rule, table, grid)
    assert len(set(found)) == len(found)
    assert set(found) == set(outcomes(row.rule, table, all_thresholds(row.rule, table)))
    assert all((np.array(a) <= b).all() for a, b in pairwise(found))
    assert set(found[-1]) == {EXITS - 1}


@every_tunable
def test_the_ends_hold_for_new_data_too(row):
    grid = threshold_grid(row.rule, scores(row.rule, random_trace(0, row.kind)))
    new = scores(row.rule, random_trace(99, row.kind, n=200))
    first, last = outcomes(row.rule, new, [grid[0], grid[-1]])
    assert set(last) == {EXITS - 1}
    if not row.rule.whole:
        assert set(first) == {0}


def test_by_hand():
    # .6 at exit 1 hides .5 at exit 2; exit 3 is the last. Outcomes change at .2, .6 and .8.
    table = np.array([[0.6, 0.5, 0.9], [0.2, 0.8, 0.1]])
    assert threshold_grid(make_criterion("confidence"), table) == pytest.approx([0.0, 0.4, 0.7, 2.0])
    # Where a low score leaves, .5 comes after .6 and counts; .8 comes after .2 and does not.
    assert threshold_grid(make_criterion("entropy"), table) == pytest.approx([1000.0, 0.55, 0.35, 0.0])


def test_neighbouring_floats_have_no_middle():
    high = np.nextafter(0.5, 1)
    grid = threshold_grid(make_criterion("confidence"), np.array([[0.5, 1.0], [high, 1.0]]))
    assert grid.tolist() == [0.0, high, 2.0]


def test_fewer_points_keep_both_ends():
    rng = np.random.default_rng(0)
    table = rng.uniform(size=(100, 4))
    rule = make_criterion("confidence")
    every, few = threshold_grid(rule, table), threshold_grid(rule, table, max_points=7)
    assert len(few) == 7
    assert (few[0], few[-1]) == (every[0], every[-1])
    assert np.isin(few, every).all()
    assert len(threshold_grid(rule, table, max_points=10**6)) == len(every)


def test_no_examples_leave_the_ends():
    assert threshold_grid(make_criterion("margin"), np.empty((0, 3))).tolist() == [0.0, 2.0]


def test_rules_without_a_choice_are_refused():
    for name in ("fixed", "oracle"):
        with pytest.raises(CriterionError, match=f"'{name}' has no threshold to choose"):
            threshold_grid(make_criterion(name), np.zeros((2, 2)))
    with pytest.raises(CriterionError, match="max_points of at least 2"):
        threshold_grid(make_criterion("margin"), np.zeros((2, 2)), max_points=1)
