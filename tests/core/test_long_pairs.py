"""Long texts of a pair are shortened before they are tokenised, and give the ids that they gave."""

from random import Random
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offramp._core.long_pairs import LONG, MARGIN, shorten_pairs
from offramp.engine.file_encoder import FileEncoder
from offramp.model.encoding import TextEncoder

LENGTH = 12
WORDS = ["the ", "film", "unbeliev", "able ", "漢", "字", "! ", "é", "  ", "a", "🎬", "good bad "]


@pytest.fixture(scope="module")
def encoders(tiny_tokenizer, tmp_path_factory):
    """The encoder of a model and that of an exported folder, with one tokenizer."""
    folder = tmp_path_factory.mktemp("exported")
    core = type(tiny_tokenizer.backend_tokenizer).from_str(tiny_tokenizer.backend_tokenizer.to_str())
    core.no_padding()
    core.enable_truncation(LENGTH)
    core.save(str(folder / "tokenizer.json"))
    manifest = SimpleNamespace(
        tokenizer="tokenizer.json", inputs=("input_ids",), pad_values={"input_ids": 0}, max_length=LENGTH
    )
    return TextEncoder(tiny_tokenizer, LENGTH), FileEncoder(folder, manifest)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.sampled_from([3, 40, 150]), st.sampled_from([3, 40, 150]))
def test_the_ids_are_those_of_the_whole_texts(encoders, seed, first, second):
    draw = Random(seed)
    pair = tuple("".join(draw.choices(WORDS, k=count)) for count in (first, second))
    model, exported = encoders
    whole = model.tokenizer(*pair, truncation=True, max_length=LENGTH)["input_ids"]
    assert model([pair[0]], [pair[1]])[0]["input_ids"] == whole
    assert exported([pair[0]], [pair[1]])[0]["input_ids"] == whole


def test_two_long_texts_are_cut_before_their_pieces_are_combined(encoders):
    """Uncut, the library would make 10⁷ encodings of these."""
    model, exported = encoders
    texts = ["film " * 20_000], ["good " * 20_000]
    spans = model._spans(texts[0][0])
    assert len(spans) >= 20_000
    first, second = shorten_pairs(*texts, LENGTH, model._spans)
    assert len(model._spans(first[0])) == len(model._spans(second[0])) == LENGTH + MARGIN
    assert model(*texts)[0]["input_ids"] == exported(*texts)[0]["input_ids"]
    assert model.encode(*texts)[1] == 1


@pytest.mark.parametrize("left", [False, True])
def test_the_longer_text_stays_the_longer_one(left):
    def spans(text):
        return [(i, i + 1) for i in range(len(text))]

    first, second = shorten_pairs(["a" * 999 + "b"], ["c" + "d" * 998], LENGTH, spans, left=left)
    assert len(first[0]) == LENGTH + MARGIN + 1
    assert len(second[0]) == LENGTH + MARGIN
    assert first[0].endswith("b") is left
    assert second[0].startswith("c") is not left


def test_short_pairs_are_not_looked_at():
    def spans(text):
        raise AssertionError(text)

    text = "a" * (LONG * LENGTH // 2)
    assert shorten_pairs([text], [text], LENGTH, spans) == ([text], [text])
