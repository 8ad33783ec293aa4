"""Attacks on models with layer 0: its weights, its exit and its time."""

from __future__ import annotations

from typing import Any

import pytest

from offramp.attacks import attack, transfer
from offramp.attacks.victims.white_box import WhiteBoxVictim
from offramp.evaluation import robustness
from offramp.evaluation.sanity_checks.checks import attack_doubts, victim_doubts

EXITS = (0, 1, 4)
FAST: dict[str, Any] = {"similarity": "none", "progress": False}


@pytest.fixture
def model(make_model: Any) -> Any:
    return make_model(exits=EXITS)


def test_a_white_box_follows_the_weights_of_layer_0(
    make_model: Any, policy_for: Any, tiny_data: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only layer 0 leaves early, so the encoder's table tells nothing of the words that keep a text."""
    model, data = make_model(exits=(0, 4)), tiny_data["validation"]
    # SAME's other term holds the first exit at its answer, which only matters for rules that compare exits.
    settings = {"recipe": "same-word", "disagreement_weight": 0.0, "top_n": 3, "rounds": 1, **FAST}

    def slowed() -> float:
        result = attack(model, data, policy=policy_for(model, data=data), **settings)
        return robustness(result.table, model.exit_layers, resamples=1)["adversarial_depth"]

    seeing = slowed()
    monkeypatch.setattr(type(model), "linear_tables", lambda self: [])
    assert seeing > slowed() + 0.4


def test_times_tell_whether_a_text_leaves_at_layer_0(model: Any, policy_for: Any, sentences: Any) -> None:
    policy = policy_for(model)
    victim = WhiteBoxVictim(model, policy)
    layers = [answer.layer for answer in victim.run([(text,) for text in sentences["text"]])]
    first, last = (sentences["text"][layers.index(layer)] for layer in (0, max(layers)))
    seconds = [min(victim.stopwatch((text,)) for _ in range(5)) for text in (first, last)]
    assert seconds[0] < seconds[1]


def test_checks_of_an_attack(model: Any, policy_for: Any, sentences: Any) -> None:
    policy = policy_for(model)
    result = attack(model, sentences, recipe="same-word", policy=policy, top_n=12, **FAST)
    doubts = [doubt.rsplit("[", 1)[1] for doubt in attack_doubts(result.table, result.metadata)]
    assert doubts == ["few]", "truncated]"]  # which are facts about these texts, not about layer 0
    assert victim_doubts(model, policy, sentences) == ()


def test_texts_of_an_attack_on_another_model(
    model: Any, make_model: Any, policy_for: Any, sentences: Any
) -> None:
    other = make_model()
    policies = {m: policy_for(m) for m in (model, other)}
    for source, target in ((model, other), (other, model)):
        result = attack(source, sentences, recipe="random", policy=policies[source], **FAST)
        moved = transfer(result, target, policies[target])
        assert robustness(moved.table, target.exit_layers, resamples=10).examples == len(sentences)


def test_a_trigger_is_searched_with_the_gradients_of_layer_0(
    model: Any, policy_for: Any, tiny_data: Any
) -> None:
    data = tiny_data["validation"].select(range(8))
    result = attack(model, data, recipe="waffle-universal", policy=policy_for(model, data=data), **FAST)
    assert result.metadata["trigger"]["words"]
    assert len(result.rows) == 4
