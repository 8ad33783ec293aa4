"""Our search: the model of the words' surrogate, where evidence would leave, and what is tried."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from offramp.attacks import WhiteBoxVictim, attack
from offramp.attacks.constraints.constraints import Constraints
from offramp.attacks.options import Options
from offramp.attacks.recipes import compose_recipe
from offramp.attacks.search.base import PreparationCost
from offramp.attacks.search.surrogate import AdditiveSurrogate, ExitPredictor, evidence
from offramp.attacks.text.attacked_text import AttackedText
from offramp.attacks.transformations.vocabulary import Vocabulary
from offramp.attacks.victims.base import Answer
from offramp.attacks.victims.black_box import GreyBox
from offramp.criteria import make_criterion, scores
from offramp.engine.policy import Policy
from offramp.inference.tracing import trace
from tests.attacks.asking import query

from .test_search import outcomes

PROFILES = np.array([3.0, 0.0, -3.0])[:, None, None]  # (words, exits, features)


def additive(words: list[tuple[int, int]], removed: dict[int, float], scale: float) -> np.ndarray:
    """A victim whose evidence is a sum, as `AdditiveSurrogate` takes it to be; every word's share is a third."""
    value = 1.0 + sum(removed[place] + scale * PROFILES[word, 0, 0] / 3 for place, word in words)
    return np.array([[value]])


def test_first_guess_by_hand() -> None:
    surrogate = AdditiveSurrogate(np.array([[1.0]]), PROFILES, 1 / 3, [4, 7], {7: 0})
    # Place 4 holds a word without a profile; place 7 the first word, which goes as the new one comes.
    assert surrogate.effects(np.array([0, 0, 1]), np.array([0, 2, 2]))[:, 0, 0].tolist() == [1.0, -1.0, -2.0]
    assert surrogate.noise == pytest.approx(0.7 * np.sqrt(2 / 3), abs=1e-5)


def test_one_answer_by_hand() -> None:
    surrogate = AdditiveSurrogate(np.array([[1.0]]), PROFILES, 1 / 3, [4], {})
    surrogate.learn([(((4, 1),), np.array([[3.0]]))])
    # The second word says what the mean says, so that 3 - 1 is the removal's, halved by the prior.
    assert surrogate.removed[0, 0, 0] == pytest.approx(1.0)
    assert surrogate.scale[0, 0] == pytest.approx(1.0)


def test_surrogate_are_learned() -> None:
    removed, places = {0: 0.5, 2: -1.5, 5: 0.0}, [0, 2, 5]
    surrogate = AdditiveSurrogate(np.array([[1.0]]), PROFILES, 1 / 3, places, {})
    rng = np.random.default_rng(0)
    for _ in range(160):
        chosen = rng.choice(places, size=rng.integers(1, 4), replace=False)
        changes = tuple(sorted((int(place), int(rng.integers(3))) for place in chosen))
        surrogate.learn([(changes, additive(list(changes), removed, 2.0))])
    assert surrogate.removed[:, 0, 0] == pytest.approx([removed[place] for place in places], abs=0.1)
    assert surrogate.scale[0, 0] == pytest.approx(2.0, abs=0.1)
    assert surrogate.noise[0, 0] < 0.2 * surrogate.spread[0, 0]
    guess = (
        surrogate.clean
        + surrogate.effects(np.array([1]), np.array([0]))
        + surrogate.effects(np.array([2]), np.array([2]))
    )
    assert guess[0, 0, 0] == pytest.approx(additive([(2, 0), (5, 2)], removed, 2.0)[0, 0], abs=0.2)


@pytest.mark.parametrize(
    "rule",
    ["confidence", "entropy", "margin", "patience", "patience_confidence", "vote", "energy", "learned"],
)
@pytest.mark.parametrize("cascade", [False, True])
def test_a_guess_from_true_evidence_is_the_victims_answer(
    rule: str, cascade: bool, make_model: Any, policy_for: Any, sentences: Any
) -> None:
    model = make_model(cascade=cascade, gates=rule == "learned")
    first = scores(make_criterion(rule), trace(model, sentences))[:, 0]
    threshold = 1.0 if rule.startswith("patience") else float(np.median(first))
    victim = WhiteBoxVictim(model, policy_for(model, rule, threshold))
    answers = query(victim, [AttackedText.of(text) for text in sentences["text"]])
    predictor = ExitPredictor(victim, Vocabulary.of_model(model), 5)
    guess = predictor(np.stack([evidence(answer) for answer in answers]))
    assert guess.layer.tolist() == [answer.layer for answer in answers]
    assert guess.prediction.tolist() == [answer.prediction for answer in answers]
    early = np.array([not answer.last for answer in answers])
    assert early.any() or rule == "patience"  # whose first exit lets nothing leave
    assert (guess.excess[~early] == 0).all()
    assert (guess.excess[early] >= 0).all()
    assert rule.startswith("patience") or guess.excess[early].any()  # a whole number is reached, not passed


def test_profiles_are_what_words_say_alone(make_model: Any, policy_for: Any) -> None:
    model = make_model(gates=True)
    victim = WhiteBoxVictim(model, policy_for(model))
    vocabulary = Vocabulary.of_model(model)
    predictor = ExitPredictor(victim, vocabulary, 7)
    assert len(set(predictor.words)) == 7
    assert set(predictor.words) <= set(vocabulary.words)
    assert predictor.words == ExitPredictor(victim, vocabulary, 7).words
    assert ExitPredictor(victim, vocabulary, 10**6).words == vocabulary.words
    alone = query(victim, [AttackedText.of(word) for word in predictor.words])
    assert predictor.profiles == pytest.approx(np.stack([evidence(answer) for answer in alone]), abs=1e-5)
    assert predictor.profiles.shape == (7, len(model.exit_layers), len(model.labels) + 1)
    assert predictor.one_word_tokens == 3


def test_gates_are_finite_evidence() -> None:
    gates = np.array([0.0, 0.5, 1.0], dtype=np.float32)
    found = evidence(Answer(np.zeros((3, 2), np.float32), 0, 1, 0, 1.0, 1.0, gates))
    assert np.isfinite(found).all()
    assert found[:, 2] == pytest.approx([-13.8, 0.0, 13.8], abs=0.1)


def test_what_is_tried(make_model: Any, policy_for: Any) -> None:
    model = make_model()
    victim = WhiteBoxVictim(model, policy_for(model))
    recipe = compose_recipe("same-plus", victim, Options.of())
    assert not recipe.needs_gradient
    words = recipe.search.predictor.words
    text = AttackedText.of(f"{words[0]} unheardof")
    edits = recipe.search._edits(text, [0, 1], recipe)
    assert len(edits) == 2 * len(words) - 1
    assert [0, 0] not in edits.tolist()
    near = compose_recipe("same-plus", victim, Options.of(max_edits=1))
    left = near.search._edits(text, [0, 1], near)
    assert 0 <= len(left) < len(edits)
    assert all(near.constraints.permits(text.replace(row, words[word])) for row, word in left.tolist())


def test_a_surrogate_with_other_exits(make_model: Any, policy_for: Any, sentences: Any) -> None:
    """Its evidence is asked on the side; the victim alone is counted and decides."""
    model, other = make_model(), make_model(cascade=True, gates=True)
    grey = GreyBox(
        WhiteBoxVictim(model, policy_for(model)), WhiteBoxVictim(other, policy_for(other, "learned", 0.5))
    )
    result = attack(grey, sentences, recipe="same-plus", rounds=2, similarity="none", progress=False)
    white = attack(
        model,
        sentences,
        recipe="same-plus",
        policy=policy_for(model),
        rounds=2,
        similarity="none",
        progress=False,
    )
    assert result.column("clean_layer").tolist() == white.column("clean_layer").tolist()
    assert (result.column("adversarial_layer") >= result.column("clean_layer")).all()
    assert result.column("adversarial_layer").sum() > result.column("clean_layer").sum()


def test_the_prediction_stays_where_it_must(make_model: Any, policy_for: Any, sentences: Any) -> None:
    model = make_model()
    for found in outcomes(model, policy_for(model), "same-plus", sentences, preserve="prediction"):
        assert found.adversarial.answer.prediction == found.clean.answer.prediction
    held = Constraints(preserve="label")
    answer = Answer(np.zeros((3, 2), np.float32), 0, 1, 1, 1.0, 1.0)
    assert held.holds(answer, 1)
    assert not held.holds(answer, 0)


def test_what_was_run_beforehand_is_told(make_model: Any, policy_for: Any, sentences: Any) -> None:
    model = make_model()
    victim = WhiteBoxVictim(model, policy_for(model))
    predictor = ExitPredictor(victim, Vocabulary.of_model(model), 7)
    assert predictor.prepared == PreparationCost(7)
    assert len(predictor.profiles) == 7
    assert predictor.prepared.texts == 7
    assert predictor.prepared.seconds > 0
    told = {"similarity": "none", "progress": False, "rounds": 1}
    assert (
        attack(model, sentences, recipe="same-plus", policy=policy_for(model), **told).metadata["prepared"]
        > 0
    )
    assert (
        attack(model, sentences, recipe="same-word", policy=policy_for(model), **told).metadata["prepared"]
        == 0
    )


def test_a_victim_that_nothing_slows_down_is_asked_once(
    make_model: Any, policy_for: Any, sentences: Any
) -> None:
    model = make_model()
    for found in outcomes(model, policy_for(model, threshold=0.0), "same-plus", sentences):
        assert found.budget.forward == 1
        assert found.adversarial.text == found.clean.text


def test_victims_of_the_same_weights_share_vocabulary_and_profiles(
    make_model: Any, policy_for: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once in a process, whatever the recipe or the run; other weights or temperatures have their own."""
    model = copy.deepcopy(make_model())
    policy = policy_for(make_model())
    asked: list[int] = []
    run = WhiteBoxVictim.run

    def counted(self: WhiteBoxVictim, keys: Any) -> list[Answer]:
        asked.append(len(keys))
        return run(self, keys)

    monkeypatch.setattr(WhiteBoxVictim, "run", counted)

    def predictor(policy: Policy) -> ExitPredictor:
        victim = WhiteBoxVictim(model, policy)
        return ExitPredictor(victim, Vocabulary.of_model(model), 20)

    first, second = predictor(policy), predictor(policy)
    assert first.vocabulary is second.vocabulary
    with torch.no_grad():
        model.heads[0].classifier.bias += 0.5  # no earlier test has these weights
    np.testing.assert_array_equal(first.profiles, second.profiles)
    assert first.profiles is second.profiles
    assert asked == [20]
    assert (first.prepared.texts, second.prepared.texts) == (20, 20)
    warm = predictor(replace(policy, temperatures=(2.0,) * len(policy.exit_layers)))
    np.testing.assert_allclose(warm.profiles * 2, first.profiles, rtol=1e-5)
    with torch.no_grad():
        model.heads[0].classifier.bias += 0.5
    assert not np.array_equal(predictor(policy).profiles, first.profiles)
    assert asked == [20] * 3
