"""The released work pattern against ours: the same candidates and results, and what the benchmark counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from offramp._core.errors import ConfigError
from offramp.attacks import WhiteBoxVictim
from offramp.attacks.options import Options
from offramp.attacks.recipes import compose_recipe
from offramp.attacks.text.attacked_text import AttackedText
from offramp.bench.attacks import REFERENCE, bench_attack
from offramp.bench.released_same import ReferenceAttack
from tests.attacks.test_search import outcomes


@pytest.mark.parametrize(("family", "cascade"), [("bert", False), ("albert", False), ("roberta", True)])
def test_candidates_are_those_of_same_word(
    family: str, cascade: bool, make_model: Any, policy_for: Any, sentences: Any
) -> None:
    model = make_model(family, cascade=cascade)
    victim, options = WhiteBoxVictim(model, policy_for(model)), Options(top_n=10)
    recipe, twin = compose_recipe("same-word", victim, options), ReferenceAttack(victim, options)
    for text in map(AttackedText.of, sentences["text"][:4]):
        (look,) = victim.differentiate([text], recipe.objective.loss)
        ours = recipe.propose(look, np.random.default_rng(0))
        theirs = twin.candidates(text)
        assert len(ours) == len(theirs) == 10
        assert len(set(ours) & set(theirs)) >= 9  # estimates that differ by float noise may swap at the end


def test_the_twin_finds_what_ours_finds(make_model: Any, policy_for: Any, sentences: Any) -> None:
    model = make_model()
    policy = policy_for(model)
    data = sentences.select([1, 4, 6])
    ours = outcomes(model, policy, "same-word", data, top_n=6, beam=2, rounds=2)
    twin = ReferenceAttack(WhiteBoxVictim(model, policy), Options(top_n=6, beam=2, rounds=2))
    for outcome, text in zip(ours, data["text"], strict=True):
        before = twin.forward
        clean, best = twin.attack(AttackedText.of(text))
        assert clean.answer.layer == outcome.clean.answer.layer
        assert best.answer.layer == outcome.adversarial.answer.layer
        assert twin.forward - before >= outcome.budget.forward  # it never stops early
    assert twin.gradient >= sum(o.budget.gradient for o in ours)


def test_the_benchmark_counts(make_model: Any, policy_for: Any, sentences: Any) -> None:
    model = make_model()
    data = sentences.select([0, 4])
    options = Options(top_n=4, beam=1, rounds=1)
    same, released = bench_attack(model, policy_for(model), data, ("same-word",), turns=2, options=options)
    assert (same.name, released.name) == ("same-word", REFERENCE)
    for way in (same, released):
        assert way.examples == 2
        assert way.examples_per_second == pytest.approx(2 / way.seconds)
        assert 0 < way.model_share <= 1
        assert way.depth >= way.clean_depth
    assert released.forward == 1 + 4
    assert released.gradient == 1
    assert same.forward <= released.forward
    with pytest.raises(ConfigError, match=r"turns must be 1 to 2 \(the number of examples\), got 3"):
        bench_attack(model, policy_for(model), data, turns=3)
