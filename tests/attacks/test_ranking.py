"""Answers to the strongest texts only: the same attack as with every answer, on fewer layers."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from offramp._core.errors import CriterionError
from offramp._core.seeding import generator
from offramp.attacks.objectives.base import ExitDepth, Objective
from offramp.attacks.objectives.same import Same
from offramp.attacks.objectives.uniform import DeepSloth
from offramp.attacks.options import Options
from offramp.attacks.recipes import compose_recipe
from offramp.attacks.search.base import Outcome, run_searches
from offramp.attacks.text.attacked_text import AttackedText
from offramp.attacks.victims.base import Answer, Key, Victim
from offramp.attacks.victims.ranking import RankedBatch, Ranking
from offramp.attacks.victims.white_box import WhiteBoxVictim
from offramp.criteria import make_criterion
from offramp.engine.batching import batches
from offramp.engine.policy import Policy
from tests.engine.toy_segments import Scripted, texts

WORDS = (
    "film",
    "story",
    "good",
    "bad",
    "funny",
    "boring",
    "warm",
    "music",
    "plot",
    "people",
    "movie",
    "slow",
)


class EveryAnswer(WhiteBoxVictim):
    """The slow twin: every text runs through all exits."""

    def run_ranked(self, segments: Sequence[Key], rankings: Sequence[Ranking]) -> list[Answer | None]:
        return Victim.run_ranked(self, segments, rankings)


def attack(victim: WhiteBoxVictim, recipe: str, strings: Sequence[str], **options: Any) -> list[Outcome]:
    composition = compose_recipe(recipe, victim, Options(top_n=30, beam=3, rounds=3, **options))
    searches = [
        composition.search.steps(AttackedText.of(text), composition, generator(0, i))
        for i, text in enumerate(strings)
    ]
    return run_searches(victim, searches, gradients=composition.needs_gradient)


@pytest.mark.parametrize(
    ("recipe", "family", "cascade", "criterion", "threshold"),
    [
        ("same-word", "bert", False, "confidence", None),
        ("same-word", "bert", False, "fixed", 2),  # success never comes, and every text ties
        ("same-word", "albert", False, "patience", 1),
        ("same-mixed", "roberta", True, "entropy", None),
        ("random-word", "bert", False, "fixed", 1),  # no value orders the ties: the first text wins
        ("random", "roberta", False, "entropy", None),
    ],
)
def test_the_attack_is_that_of_the_slow_twin(
    recipe: str,
    family: str,
    cascade: bool,
    criterion: str,
    threshold: Any,
    make_model: Any,
    policy_for: Any,
    sentences: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = make_model(family, cascade=cascade)
    policy = policy_for(model, criterion, threshold)
    ran: dict[type[WhiteBoxVictim], int] = {}
    for kind in (EveryAnswer, WhiteBoxVictim):
        segment, ran[kind] = type(model).segment, 0

        def counted(self: Any, k: int, state: Any, kind: Any = kind, segment: Any = segment) -> Any:
            state = segment(self, k, state)
            ran[kind] += len(self.head(k, state)[0])
            return state

        with monkeypatch.context() as patch:
            patch.setattr(type(model), "segment", counted)
            found = attack(kind(model, policy, batch_size=16), recipe, sentences["text"])
        if kind is EveryAnswer:
            expected = found
    for ours, slow in zip(found, expected, strict=True):
        assert ours.adversarial.text == slow.adversarial.text
        assert (ours.budget.forward, ours.budget.gradient) == (slow.budget.forward, slow.budget.gradient)
        assert ours.adversarial.answer.exit == slow.adversarial.answer.exit
        np.testing.assert_allclose(ours.adversarial.answer.logits, slow.adversarial.answer.logits, atol=1e-4)
        assert ours.adversarial.loss == pytest.approx(slow.adversarial.loss, abs=1e-5)
    assert ran[WhiteBoxVictim] < 0.95 * ran[EveryAnswer]


@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 40), st.booleans())
def test_the_answers_are_those_of_the_strongest_texts(seed: int, number: int, count: int, flat: bool) -> None:
    """A toy model whose exits read a table: places, ties and bounds, without a network."""
    rng = np.random.default_rng(seed)
    logits = rng.integers(-2, 3, size=(count, 4, 2)).astype(np.float32)  # few values, so that texts tie
    policy = Policy(make_criterion("confidence", threshold=0.9), (2, 4, 6, 8))
    objective: Objective = Same(weighting="flat") if flat else ExitDepth()
    rows, answers = ranked(logits, policy, Ranking(objective, number))
    exits = answers.exit
    value = objective.value(logits, exits)
    order = sorted(range(count), key=lambda i: (-exits[i], value[i], i))[:number]
    assert set(order) <= set(rows)
    above = objective.value(logits[:1], exits[:1])[0]
    layer = policy.exit_layers[exits[0]]
    rows, _ = ranked(logits, policy, Ranking.above(objective, (layer, -float(above))))
    best = order[0]
    assert (best in rows) == ((exits[best], -value[best]) > (exits[0], -above))


def ranked(logits: Any, policy: Policy, ranking: Ranking) -> tuple[list[int], Any]:
    """The rows that a ranking answers, in batches of seven, and the decisions for all."""
    net, encodings = Scripted(logits), texts([1] * len(logits))
    rows: list[int] = []
    for numbers, batch in batches(encodings, 7):
        entries = [(ranking, next(ranking.positions)) for _ in numbers]
        rows += numbers[RankedBatch(net, policy, entries).run(batch)].tolist()
    return rows, policy.decide(net.trace(encodings))


@given(st.integers(0, 10**6), st.sampled_from([2, 3, 7]), st.sampled_from([0.0, 0.3, 0.8, 1.0]))
def test_the_bound_rises_to_the_value(seed: int, classes: int, weight: float) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=rng.choice([0.1, 3.0, 30.0]), size=(20, 5, classes))
    exit = rng.integers(0, 5, size=20)
    for objective in (Same(weight), Same(weight, "flat"), ExitDepth(), DeepSloth()):
        value = objective.value(logits, exit)
        bounds = [objective.least(logits[:, :run], exit, 5) for run in range(1, 6)]
        np.testing.assert_array_equal(bounds[-1], value)
        for lower, higher in pairwise(bounds):
            assert (lower <= higher + 1e-9).all()


def test_a_broken_exit_is_an_error_in_a_ranking_too(make_model: Any, policy_for: Any) -> None:
    shared = make_model()
    model = copy.deepcopy(shared)
    victim = WhiteBoxVictim(model, policy_for(shared))
    for parameter in model.heads[-1].parameters():
        parameter.data.fill_(float("nan"))
    keys = [(f"good {word}",) for word in WORDS]
    with pytest.raises(CriterionError, match="expected finite logits, got NaN or infinity at exit"):
        victim.run_ranked(keys, [Ranking(Same(), 2)] * len(keys))


def test_constraints_that_read_answers_see_all_of_them(
    make_model: Any, policy_for: Any, sentences: Any
) -> None:
    model = make_model()
    policy = policy_for(model)
    for outcome, slow in zip(
        attack(WhiteBoxVictim(model, policy), "same-word", sentences["text"], preserve="prediction"),
        attack(EveryAnswer(model, policy), "same-word", sentences["text"], preserve="prediction"),
        strict=True,
    ):
        assert outcome.adversarial.text == slow.adversarial.text
        assert outcome.adversarial.answer.prediction == outcome.clean.answer.prediction
