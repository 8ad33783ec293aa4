"""Triggers in front of every text, and our search."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offramp._core.errors import ConfigError, DataError
from offramp.attacks import WhiteBoxVictim, attack, find_trigger
from offramp.attacks.objectives.uniform import Uniform
from offramp.attacks.text.attacked_text import WORD, AttackedText
from tests.attacks.asking import query

from .test_search import outcomes

FAST: dict[str, Any] = {"top_n": 8, "beam": 2, "rounds": 2, "similarity": "none", "progress": False}
WORDS = st.lists(st.from_regex(WORD, fullmatch=True), min_size=1, max_size=3)


@settings(max_examples=40, deadline=None)
@given(text=st.text(max_size=40), pair=st.none() | st.text(max_size=20), words=WORDS)
def test_words_in_front(text: str, pair: str | None, words: list[str]) -> None:
    plain = AttackedText.of(text, pair)
    front = plain.in_front(words)
    assert front.text == " ".join([*words, text])
    assert (front.text_pair, front.words, front.num_words) == (pair, plain.words, plain.num_words)
    assert front.num_changed == len(words)
    for span, word in zip(front.spans, front.words, strict=True):
        assert front.segments[span.segment][span.start : span.end] == word
    assert front.in_front([]) == plain
    if plain.num_words:
        assert front.replace(0, "x").text_pair == plain.replace(0, "x").text_pair
        assert front.replace(0, "x").text.startswith(" ".join(words))


def test_words_left_out() -> None:
    text = AttackedText.of("one two three", "four").replace(1, "longer").in_front(["so"])
    assert text.without(1).segments == ("so one  three", "four")
    assert text.without(3).segments == ("so one longer three", "")
    with pytest.raises(DataError, match="expected single words to put in front of a text, got 'two words'"):
        text.in_front(["two words"])


def test_a_trigger_is_what_it_claims(make_model: Any, policy_for: Any, sentences: Any) -> None:
    model = make_model()
    victim = WhiteBoxVictim(model, policy_for(model))
    texts = [AttackedText.of(text) for text in sentences["text"]]
    trigger = find_trigger(victim, texts, words=2, tries=4, rounds=1)
    answers = query(victim, [AttackedText.of(f"{trigger} {text}") for text in sentences["text"]])
    assert trigger.depth == np.mean([a.layer for a in answers])
    exits = np.array([a.exit for a in answers])
    far = Uniform().value(np.stack([a.logits for a in answers]), exits)
    assert trigger.closeness == pytest.approx(1 - far.mean(), abs=1e-5)
    assert trigger.clean_depth == np.mean([a.layer for a in query(victim, texts)])
    assert 1 <= len(trigger.words) <= 2
    # Clean; then for each size: the start, and one word a place tried four times, a gradient each.
    assert trigger.queries <= len(texts) * (1 + (1 + 4) + (1 + 2 * 4))
    assert trigger.gradients <= len(texts) * 3
    assert find_trigger(victim, texts, words=2, tries=4, rounds=1) == trigger
    with pytest.raises(ConfigError, match="1 to 3 words"):
        find_trigger(victim, texts, words=4)


def test_a_trigger_is_tried_on_other_examples(make_model: Any, policy_for: Any, sentences: Any) -> None:
    model = make_model()
    result = attack(model, sentences, recipe="waffle-universal", policy=policy_for(model), **FAST)
    searched = result.metadata["searched_on"]
    assert len(searched) == 4
    assert sorted([*searched, *result.column("id").tolist()]) == sentences["id"]
    words = " ".join(result.metadata["trigger"]["words"])
    assert result.metadata["options"]["trigger"] == words
    for row in result.rows:
        assert row["adversarial_text"] == f"{words} {row['text']}"
        assert row["words_changed"] == len(words.split())
    given = attack(
        model, sentences, recipe="waffle-universal", policy=policy_for(model), trigger="so good", **FAST
    )
    assert len(given) == len(sentences)
    with pytest.raises(DataError, match="at least 2 examples"):
        attack(model, sentences.select([0]), recipe="waffle-universal", policy=policy_for(model), **FAST)


def test_few_queries_do_what_many_do(make_model: Any, policy_for: Any, sentences: Any) -> None:
    for family, cascade in (("bert", False), ("roberta", True)):
        model = make_model(family, cascade=cascade)
        policy = policy_for(model)
        options = {"top_n": 30, "beam": 5, "rounds": 3}
        many = outcomes(model, policy, "same-word", sentences, **options)
        few = outcomes(model, policy, "same-plus", sentences, **options)
        depth = [np.mean([o.adversarial.answer.layer for o in found]) for found in (few, many)]
        assert depth[0] >= depth[1]
        assert sum(o.budget.forward for o in few) < sum(o.budget.forward for o in many)
