"""Vocabulary, importance, transformations, constraints: against slow twins and by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from offramp._core.errors import ConfigError
from offramp.attacks.constraints.constraints import Constraints
from offramp.attacks.objectives.same import Same
from offramp.attacks.options import Options
from offramp.attacks.search.space import EveryWord, Shuffled, TopGradient, gradient_norms
from offramp.attacks.text.attacked_text import AttackedText, is_word
from offramp.attacks.transformations.characters import CharacterChange, character_changes, homoglyphs
from offramp.attacks.transformations.model_word import GradientWord, first_order
from offramp.attacks.transformations.vocabulary import RandomWord, Vocabulary
from offramp.attacks.victims.base import TokenizedText
from offramp.attacks.victims.white_box import WhiteBoxVictim
from tests.attacks.asking import gradients

TOKENIZERS = ("tiny_tokenizer", "bpe_tokenizer", "unigram_tokenizer")


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_vocabulary_is_the_whole_words(name: str, request: pytest.FixtureRequest) -> None:
    tokenizer = request.getfixturevalue(name)
    vocabulary = Vocabulary.of(tokenizer, len(tokenizer))
    tokens = tokenizer.convert_ids_to_tokens(vocabulary.ids.tolist())
    assert {"good", "and"} <= set(vocabulary.words)
    assert all(word.isalpha() for word in vocabulary.words)
    assert len(set(vocabulary.words)) == len(vocabulary.words)
    marked = {"tiny_tokenizer": "", "bpe_tokenizer": "Ġ", "unigram_tokenizer": "▁"}[name]
    assert tokens == [marked + word for word in vocabulary.words]
    # Independent of decoding: what carries the word mark and letters only, and is no special token.
    whole = {t for t in tokenizer.get_vocab() if t.startswith(marked) and t[len(marked) :].isalpha()}
    assert set(tokens) == {t for t in whole if t not in tokenizer.all_special_tokens and "Ã" not in t}


def test_vocabulary_stays_within_the_table(tiny_tokenizer: Any) -> None:
    assert Vocabulary.of(tiny_tokenizer, 20).ids.max() < 20


def test_same_word_ignores_case() -> None:
    vocabulary = Vocabulary(np.arange(4), ("Film", "film", "plot", "STRASSE"))
    assert vocabulary.same_word("FILM") == [0, 1]
    assert vocabulary.same_word("straße") == [3]
    assert vocabulary.same_word("acting") == []


def test_first_order_by_hand() -> None:
    table = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
    small = torch.tensor([[1.0], [3.0], [5.0]])  # a second member with another width
    g, h = torch.tensor([[2.0, -1.0]]), torch.tensor([[0.5]])
    # From token 1: to 0: (−1,0)·g + (−2)·h = −3; to itself 0; to 2: (−1,2)·g + 2·h = −4 + 1 = −3.
    assert first_order([table, small], torch.tensor([1]), [g, h]).tolist() == [[-3.0, 0.0, -3.0]]


@pytest.mark.parametrize("family", ["bert", "roberta", "albert"])
@pytest.mark.parametrize("cascade", [False, True])
def test_gradient_words_are_the_lowest_brute_force_estimates(
    family: str, cascade: bool, make_model: Any, policy_for: Any
) -> None:
    model = make_model(family, cascade=cascade)
    victim = WhiteBoxVictim(model, policy_for(model))
    tables = model.embedding_tables()
    vocabulary = Vocabulary.of(model.tokenizer, tables[0].num_embeddings)
    text = AttackedText.of("A dull, boring masterpiece", "Good film")
    (look,) = gradients(victim, [text], Same().loss)
    words = [1, 2, 3, 4]
    estimates = []
    for word in words:
        place = look.tokens[word][0]
        for row, token in enumerate(vocabulary.ids.tolist()):
            if vocabulary.words[row].casefold() == text.words[word].casefold():
                continue
            estimate = 0.0
            for table, gradient in zip(tables, look.gradients, strict=True):
                now, new = table.weight.detach()[[look.ids[place], token]]
                estimate += float(((new - now).double() * gradient[place].double()).sum())
            estimates.append((estimate, word, vocabulary.words[row]))
    edits = GradientWord(vocabulary, tables).edits(look, words, 12, rng())
    known = {(word, new): estimate for estimate, word, new in estimates}
    found = [known[(e.position, e.word)] for e in edits]
    assert len(edits) == len(set(edits)) == 12
    assert found == pytest.approx(sorted(found), abs=1e-4)
    assert found == pytest.approx([e for e, _, _ in sorted(estimates)[:12]], abs=1e-4)
    everything = GradientWord(vocabulary, tables).edits(look, words, 10**6, rng())
    assert {tuple(e) for e in everything} == set(known)
    assert GradientWord(vocabulary, tables).edits(look, [], 12, rng()) == []


def test_gradient_words_follow_a_model_in_training(victim: WhiteBoxVictim) -> None:
    tables = victim.model.embedding_tables()
    move = GradientWord(Vocabulary.of(victim.model.tokenizer, tables[0].num_embeddings), tables)
    (look,) = gradients(victim, [AttackedText.of("dull plot")], Same().loss)
    before = move.edits(look, [0], 5, rng())
    with torch.no_grad():
        tables[0].weight.neg_()
    assert move.edits(look, [0], 5, rng()) != before
    with torch.no_grad():
        tables[0].weight.neg_()


def test_random_words_are_other_words() -> None:
    vocabulary = Vocabulary(np.arange(3), ("good", "bad", "film"))
    look = TokenizedText(AttackedText.of("Good film here"), [], [(1,), (2,), (3,)])
    edits = RandomWord(vocabulary).edits(look, [0, 1], 50, rng())
    assert sorted(edits) == [(0, "bad"), (0, "film"), (1, "bad"), (1, "good")]
    assert len(RandomWord(vocabulary).edits(look, [0, 1], 2, rng())) == 2
    assert RandomWord(vocabulary).edits(look, [], 5, rng()) == []


def test_character_changes_by_hand() -> None:
    changes = character_changes("see")
    assert changes["swap"] == ["ese"]  # the two e's exchanged are the word itself
    assert changes["deletion"] == ["ee", "se"]
    assert len(changes["insertion"]) == len(set(changes["insertion"])) == 4 * 26 - 3
    assert "sееe" not in changes["homoglyph"]
    assert "sеe" in changes["homoglyph"]  # with a Cyrillic е
    assert character_changes("I")["deletion"] == []
    assert not any(character_changes("x" * 100_000).values())  # each change would be as long


@settings(deadline=None)
@given(st.from_regex(r"[\w']{1,8}", fullmatch=True).filter(is_word))
def test_character_changes_are_words_one_step_away(word: str) -> None:
    sizes = {"swap": 0, "insertion": 1, "deletion": -1, "homoglyph": 0}
    for kind, changes in character_changes(word).items():
        assert len(changes) == len(set(changes))
        for changed in changes:
            assert changed != word
            assert is_word(changed)
            if kind != "homoglyph":
                assert len(changed) == len(word) + sizes[kind]
            if kind == "swap":
                assert sorted(changed) == sorted(word)


def test_homoglyphs_survive_normalisation() -> None:
    assert "о" in homoglyphs("o")
    assert not set("ｏ𝐨0") & set(homoglyphs("o"))
    assert homoglyphs("映") == homoglyphs("!") or homoglyphs("映") == ()


def test_words_and_kinds_take_turns() -> None:
    look = TokenizedText(AttackedText.of("unforgettable cat"), [], [(1,), (2,)])
    edits = CharacterChange().edits(look, [1, 0], 40, rng())
    assert len(edits) == len(set(edits)) == 40
    kinds = {(w, c): k for w in (0, 1) for k, cs in character_changes(look.text.words[w]).items() for c in cs}
    first = [(e.position, kinds[tuple(e)]) for e in edits[:8]]
    assert first == [(w, k) for w in (1, 0) for k in ("swap", "insertion", "deletion", "homoglyph")]
    assert CharacterChange().edits(look, [1, 0], 40, np.random.default_rng(1)) != edits
    few = CharacterChange().edits(look, [1], 10**6, rng())
    assert len(few) == len({c for cs in character_changes("cat").values() for c in cs})


def test_gradient_norms_over_several_tables() -> None:
    look = TokenizedText(
        AttackedText.of("a"), [], [], (torch.tensor([[3.0, 0.0], [0, 0]]), torch.tensor([[4.0], [2.0]]))
    )
    assert gradient_norms(look).tolist() == [5.0, 2.0]


def test_top_gradient_takes_the_words_of_the_largest_tokens() -> None:
    text = AttackedText.of("one two three four")
    norms = torch.tensor([9.0, 1.0, 5.0, 4.0, 2.0, 8.0, 7.0])[:, None]
    look = TokenizedText(text, list(range(7)), [(1, 2), (3,), (4,), (5,)], (norms,))
    # Tokens 0 and 6 are separators; word 3 is not allowed. Of the rest, 2 (5.0), 3 (4.0), 4 (2.0), 1 (1.0).
    assert TopGradient(1).rank(look, [0, 1, 2], rng()) == [0]
    assert TopGradient(3).rank(look, [0, 1, 2], rng()) == [0, 1, 2]
    assert TopGradient(2).rank(look, [2, 3], rng()) == [3, 2]
    assert EveryWord().rank(look, [2, 0], rng()) == [2, 0]
    assert sorted(Shuffled().rank(look, [2, 0, 1], rng())) == [0, 1, 2]


@pytest.mark.parametrize(
    ("words", "count", "budget"),
    [
        (0.1, 5, 3),
        (0.1, 30, 3),
        (0.1, 31, 4),
        (0.1, 100, 10),
        (0.5, 10, 5),
        (1.0, 7, 7),
        (1, 50, 1),
        (4, 2, 4),
    ],
)
def test_budget(words: float, count: int, budget: int) -> None:
    assert Constraints(words).budget(AttackedText.of("film " * count)) == budget
    if isinstance(words, float):
        assert budget == max(3, math.ceil(round(words * count, 9)))


def test_allowed_words() -> None:
    text = AttackedText.of("The film is NOT a slow film").replace(1, "plot")
    look = TokenizedText(text, [], [(i,) for i in range(6)] + [()])
    constraints = Constraints()
    assert constraints.allowed(look) == [5]  # 1 is changed, 6 was cut away, the rest are stop words
    assert constraints.stop_words == ENGLISH_STOP_WORDS
    full = text.replace(5, "quick").replace(6, "movie")
    assert not constraints.open(full)
    assert constraints.allowed(TokenizedText(full, [], look.tokens)) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beem": 3}, "unknown attack option 'beem'. Did you mean 'beam'"),
        ({"beam": 0}, "beam must be a whole number of at least 1, got 0"),
        (
            {"disagreement_weight": 1.2},
            "disagreement_weight is a share between 0 and 1, got 1.2: write 0.012",
        ),
        ({"max_changed_words": 0}, "a share above 0, or a number of at least 1, got 0"),
        (
            {"max_changed_words": 1.5},
            "max_changed_words, unless it is a whole number of words, is a share above 0 and at most 1, got 1.5",
        ),
        ({"queries": 0}, "queries must be a whole number of at least 1"),
        # As a file may have them.
        ({"rounds": "five"}, "at least 1, got 'five'"),
        ({"beam": 2.5}, "beam must be a whole number of at least 1, got 2.5"),
        ({"top_n": None}, "top_n must be a whole number of at least 1, got None"),
        ({"max_edits": True}, "at least 1, got True"),
        ({"disagreement_weight": "0.8"}, "between 0 and 1, got '0.8'"),
        ({"max_changed_words": "3"}, "a share above 0 and at most 1, got '3'"),
        ({"preserve": 3}, "unknown value of preserve 3"),
        ({"min_similarity": "high"}, "min_similarity is a share between 0 and 1, got 'high'"),
        ({"min_similarity": 80}, "got 80: write 0.8 for 80 %"),
        ({"max_changed_words": "10%"}, "got '10%': write 0.1 for 10 %"),
        ({"trigger": ["the"]}, "one string of words"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Options.of(**options)
