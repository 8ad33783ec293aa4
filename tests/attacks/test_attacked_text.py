"""Words, spans and replacements: nothing but the word replaced may ever change."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offramp._core.errors import DataError
from offramp.attacks.text.attacked_text import WORD, AttackedText, is_word, word_tokens

ANY = st.text(max_size=60)
TRICKY = st.text(alphabet="ab'’- _.,\u0301\u0930\u093e映画é½²😀\0\n\t‐", max_size=30)
TEXTS = ANY | TRICKY
PAIRS = TEXTS | st.none()
NEW = st.from_regex(WORD, fullmatch=True) | st.sampled_from(["x", "don't", "naïve", "映画", "e\u0301a"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("It's a state-of-the-art film!", ["It's", "a", "state-of-the-art", "film"]),
        ("'quoted' words -- and - dashes", ["quoted", "words", "and", "dashes"]),
        ("rock 'n' roll", ["rock", "n", "roll"]),
        ("don’t snake_case", ["don’t", "snake", "case"]),
        ("cafe\u0301 naïve", ["cafe\u0301", "naïve"]),
        ("映画は good 😀👍🏽 1,234.5", ["映画は", "good", "1", "234", "5"]),
        ("a\0b\x01c", ["a", "b", "c"]),
        ("", []),
        ("... !? 😀", []),
        ("a--b a'-b", ["a", "b", "a", "b"]),
    ],
)
def test_words_by_hand(text: str, words: list[str]) -> None:
    assert list(AttackedText.of(text).words) == words


def test_both_segments_are_counted_through() -> None:
    text = AttackedText.of("who made it ?", "She did.")
    assert text.words == ("who", "made", "it", "She", "did")
    changed = text.replace(4, "slept").replace(0, "Whoever")
    assert (changed.text, changed.text_pair) == ("Whoever made it ?", "She slept.")
    assert changed.changed == (0, 4)
    assert changed.original == ("who made it ?", "She did.")
    assert text.segments == ("who made it ?", "She did.")  # the old one stays as it was
    assert [tuple(s) for s in changed.spans] == [(0, 0, 7), (0, 8, 12), (0, 13, 15), (1, 0, 3), (1, 4, 9)]


def test_a_pair_may_be_empty_and_is_not_lost() -> None:
    text = AttackedText.of("word", "")
    assert text.replace(0, "other").segments == ("other", "")
    assert AttackedText.of("word").text_pair is None


def test_undoing_a_change_leaves_no_trace() -> None:
    text = AttackedText.of("one two")
    assert text.replace(1, "three").replace(1, "two") == text
    assert text.replace(1, "two").changed == ()


@pytest.mark.parametrize("word", ["", " ", "two words", "x.", "-", "a_b", "'a", "\u0301a"])
def test_a_replacement_must_be_one_word(word: str) -> None:
    with pytest.raises(DataError, match="replaced by exactly one word, got"):
        AttackedText.of("some text").replace(0, word)


@pytest.mark.parametrize("index", [-1, 2])
def test_a_replacement_must_stand_at_a_word(index: int) -> None:
    with pytest.raises(DataError, match=r"words 0\.\.1, got index"):
        AttackedText.of("some text").replace(index, "word")


@settings(deadline=None)
@given(TEXTS, PAIRS)
def test_the_original_round_trips(text: str, pair: str | None) -> None:
    attacked = AttackedText.of(text, pair)
    assert (attacked.text, attacked.text_pair) == (text, pair)
    for word, (segment, start, end) in zip(attacked.words, attacked.spans, strict=True):
        assert attacked.segments[segment][start:end] == word
        assert is_word(word)


@settings(deadline=None)
@given(TEXTS, PAIRS, st.lists(st.tuples(st.integers(0, 20), NEW), max_size=6))
def test_edits_change_their_words_and_nothing_else(
    text: str, pair: str | None, edits: list[tuple[int, str]]
) -> None:
    attacked = original = AttackedText.of(text, pair)
    expected = list(original.words)
    for index, word in edits:
        if index < original.num_words:
            attacked = attacked.replace(index, word)
            expected[index] = word
    assert list(attacked.words) == expected
    # Rebuilt the slow way: the original's stretches between words, with the new words put in.
    for number, segment in enumerate(original.original):
        words = iter([w for w, span in zip(expected, original.spans, strict=True) if span.segment == number])
        assert attacked.segments[number] == WORD.sub(lambda _, words=words: next(words), segment)
    # Read afresh, the changed text has the same words at the same places.
    again = AttackedText.of(attacked.text, attacked.text_pair)
    assert again.words == attacked.words
    assert again.spans == attacked.spans
    assert attacked.changed == tuple(i for i, w in enumerate(expected) if w != original.words[i])
    assert hash(attacked) == hash(original) or attacked != original


def test_a_hundred_thousand_characters() -> None:
    text = AttackedText.of("word, " * 17_000)
    changed = text.replace(16_999, "last").replace(0, "first")
    assert changed.text == "first, " + "word, " * 16_998 + "last, "
    assert text.num_words == 17_000
    assert AttackedText.of("x" * 100_000).num_words == 1


def test_word_tokens_by_hand() -> None:
    text = AttackedText.of("It's unhappy!", "ok cut")
    #          [CLS]   It      '       s       un      ##happy  !         [SEP]   ok      [SEP]
    offsets = [(0, 0), (0, 2), (2, 3), (3, 4), (5, 7), (7, 12), (12, 13), (0, 0), (0, 2), (0, 0)]
    segments = [None, 0, 0, 0, 0, 0, 0, None, 1, None]
    assert word_tokens(text, offsets, segments) == [(1, 2, 3), (4, 5), (8,), ()]


def test_word_tokens_where_a_token_holds_a_space_or_two_words() -> None:
    text = AttackedText.of("a bc d")
    assert word_tokens(text, [(0, 1), (1, 4), (4, 6)], [0, 0, 0]) == [(0,), (1,), (2,)]  # leading spaces
    assert word_tokens(text, [(0, 4), (4, 5), (5, 6)], [0, 0, 0]) == [(0,), (0,), (2,)]
    assert word_tokens(text, [(0, 0), (0, 1)], [0, 0]) == [(1,), (), ()]  # an empty token owns nothing


@pytest.mark.parametrize("name", ["tiny_tokenizer", "bpe_tokenizer", "unigram_tokenizer"])
@settings(deadline=None)
@given(text=ANY, pair=ANY)
def test_tokens_of_a_word_cover_it_and_stay_inside(
    name: str, text: str, pair: str, request: pytest.FixtureRequest
) -> None:
    tokenizer = request.getfixturevalue(name)
    text, pair = text.replace("\0", ""), pair.replace("\0", "")
    attacked = AttackedText.of(text, pair)
    batch = tokenizer([text], [pair], return_offsets_mapping=True)
    offsets, segments = batch["offset_mapping"][0], batch.sequence_ids(0)
    for span, tokens in zip(attacked.spans, word_tokens(attacked, offsets, segments), strict=True):
        expected = tuple(  # every pair compared, instead of one walk
            i
            for i, ((start, end), segment) in enumerate(zip(offsets, segments, strict=True))
            if segment == span.segment and start < end and start < span.end and end > span.start
        )
        assert tokens == expected
