"""The bigram model: a distribution, worked by hand, and what it can and cannot tell."""

from __future__ import annotations

import math

import numpy as np
import pytest

from offramp.evaluation.fluency import DISCOUNT, END, START, Bigram, fluency_change, token_pairs

TEXTS = ["the film was good", "the film was bad", "the plot was good"]


def test_by_hand() -> None:
    model = Bigram(["a b", "a c"])
    # Pairs: (<s>, a) twice, (a, b), (a, c), (b, </s>), (c, </s>): five types; </s> stands in two contexts, the
    # others in one.
    alone = (1 - DISCOUNT) / 5 + DISCOUNT * 4 / 5 / 5
    assert model.probability("a", "b") == pytest.approx((1 - DISCOUNT) / 2 + DISCOUNT * 2 / 2 * alone)
    assert model.probability("never", "b") == pytest.approx(alone)
    assert model.probability("a", "never") == pytest.approx(DISCOUNT * DISCOUNT * 4 / 5 / 5)
    whole = [model.probability(*pair) for pair in ((START, "a"), ("a", "b"), ("b", END))]
    assert model.score("A b") == pytest.approx(sum(map(math.log, whole)) / 3)


def test_probabilities_sum_to_one() -> None:
    model = Bigram(TEXTS)
    words = [*model.contexts, "<unknown>"]
    for before in (START, "the", "was", "good", "never"):
        assert sum(model.probability(before, word) for word in words) == pytest.approx(1)


def test_what_is_usual_is_likelier() -> None:
    model = Bigram(TEXTS)
    assert (
        model.score("the film was good") > model.score("the film was zoning") > model.score("was zoning the")
    )
    changes = fluency_change(
        model, [("the plot was bad",)] * 2, [("the plot was bad",), ("the plot xx bad",)]
    )
    assert changes[0] == 0 > changes[1]
    pair = fluency_change(model, [("the plot", "was bad")], [("the plot", "was xx")])
    assert pair[0] == pytest.approx((model.score("was xx") - model.score("was bad")) / 2)


def test_nothing_to_learn_from_and_nothing_to_score() -> None:
    assert np.isfinite(Bigram([]).score("a b"))
    assert np.isfinite(Bigram(TEXTS).score(""))
    before, after = zip(*token_pairs("It isn't “state-of-the-art”, no!"), strict=True)
    assert (before[0], before[1:], after[-1]) == (START, after[:-1], END)
    assert list(after[:-1]) == [
        "it",
        "isn't",
        "“",
        "state-of-the-art",
        "”",
        ",",
        "no",
        "!",
    ]
