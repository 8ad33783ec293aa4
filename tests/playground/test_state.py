"""The state of a page and its address."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offramp.playground.state import MOST_CHARACTERS, PageState, read_state


def state(models: Any, *query: tuple[str, str], names: tuple[str, ...] = ("trained", "other")) -> PageState:
    return read_state(query, {name: models[name] for name in names})


def test_without_an_address_the_models_stand_side_by_side(models: Any) -> None:
    both = state(models)
    assert [side.model.name for side in both.sides] == ["trained", "other"]
    assert [side.rule for side in both.sides] == ["policy-confidence", "confidence"]
    assert (both.text, both.target, both.recipe, both.problems) == ("", 0, "same-word", ())
    assert len(state(models, names=("trained",)).sides) == 1
    assert state(models, names=("exported",)).recipe == "slowbert"
    assert state(models, names=("numbers",)).recipe == "slowbert"
    assert not state(models, names=("trained",)).pair
    assert state(models, names=("trained", "pairs")).pair


def test_two_rules_of_one_model(models: Any) -> None:
    query = [
        ("sides", "2"),
        ("rule", "margin"),
        ("rule", "policy-entropy"),
        ("threshold", ""),
        ("threshold", "0.3"),
    ]
    query += [("temperatures", "calibrated"), ("temperatures", "none"), ("target", "2")]
    page = state(models, *query, names=("trained",))
    left, right = page.sides
    assert (left.rule, left.threshold, left.policy.criterion.threshold) == ("margin", None, 0.8)
    assert (right.rule, right.threshold, right.policy.criterion.threshold) == ("policy-entropy", 0.3, 0.3)
    assert left.policy.temperatures == (1.0, 1.0, 1.0), "of the policy that was tuned for the model"
    assert right.policy.temperatures is None
    assert (page.target, page.problems) == (1, ())


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        (("model", "traned"), "Did you mean 'trained'?"),
        (("rule", "margn"), "Did you mean 'margin'?"),
        (("threshold", "5"), "'confidence' expected a number from 0 to 2 as threshold, got 5.0"),
        (("threshold", "nan"), "got nan"),
        (("threshold", "half"), "expected a number, got 'half'"),
        (("sides", "3"), "expected a whole number from 1 to 2 as sides, got '3': 2 is used"),
        (("words", "0"), "expected a whole number from 1 to 20 as words, got '0': 3 is used"),
        (("words", "9" * 5000), "expected a whole number from 1 to 20 as words"),
        (("recipe", "same"), "Did you mean 'same-"),
        (("temperatures", "hot"), "unknown temperatures 'hot'"),
        (
            ("text", "a" * (MOST_CHARACTERS + 1)),
            "at most 4,000 characters, got 4,001: the rest is left out",
        ),
    ],
)
def test_what_cannot_be_used_is_said_and_replaced(models: Any, query: tuple[str, str], problem: str) -> None:
    page = state(models, query)
    assert len(page.problems) == 1
    assert problem in page.problems[0]
    default = state(models)
    assert page.sides == default.sides
    assert (page.recipe, page.words, page.target) == (default.recipe, default.words, default.target)


NAMES = (
    "text",
    "text_pair",
    "sides",
    "model",
    "rule",
    "threshold",
    "temperatures",
    "target",
    "recipe",
    "words",
    "x",
)
VALUES = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        ["1", "2", "trained", "pairs", "numbers", "margin", "energy", "patience", "none", "same-char"]
    ),
    st.floats().map(str),
)


@given(query=st.lists(st.tuples(st.sampled_from(NAMES), VALUES), max_size=12))
def test_any_address_gives_a_page(query: list[tuple[str, str]], models: Any) -> None:
    page = read_state(query, models)
    assert 1 <= len(page.sides) <= 2
    assert 0 <= page.target < len(page.sides)
    for side in page.sides:
        assert side.rule in side.model.rules
        layers, model = side.model.segments.exit_layers, side.model.segments
        side.policy.check(layers, model.kind, model.gates, len(side.model.labels) or 1)
