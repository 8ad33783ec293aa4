from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offramp._core.errors import ConfigError, DataError
from offramp.engine.batching import batches, pad, token_counts, windows

ENCODINGS = [
    {"input_ids": [5, 6], "token_type_ids": [0, 1], "attention_mask": [1, 1]},
    {"input_ids": [7, 8, 9], "token_type_ids": [0, 0, 1], "attention_mask": [1, 1, 1]},
]


def test_pads_on_the_right_with_each_inputs_own_value() -> None:
    batch = pad(ENCODINGS, {"input_ids": 99, "token_type_ids": 3, "attention_mask": 1})
    assert batch["input_ids"].tolist() == [[5, 6, 99], [7, 8, 9]]
    assert batch["token_type_ids"].tolist() == [[0, 1, 3], [0, 0, 1]]
    assert batch["attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1]], (
        "the mask's padding is 0 whatever is given"
    )
    assert {array.dtype for array in batch.values()} == {np.dtype(np.int64)}


def test_keeps_the_input_names_and_adds_only_a_missing_mask() -> None:
    batch = pad([{"input_ids": [4]}, {"input_ids": [4, 4]}])
    assert sorted(batch) == ["attention_mask", "input_ids"]
    assert batch["attention_mask"].tolist() == [[1, 0], [1, 1]]
    assert list(pad(ENCODINGS)) == list(ENCODINGS[0])


def test_batches_put_long_texts_first_and_keep_the_order_of_equals() -> None:
    encodings = [{"input_ids": [i] * n} for i, n in enumerate([2, 3, 2, 3, 1])]
    found = [(rows.tolist(), batch["input_ids"].shape) for rows, batch in batches(encodings, 2)]
    assert found == [([1, 3], (2, 3)), ([0, 2], (2, 2)), ([4], (1, 1))]


def test_batches_of_nothing() -> None:
    assert list(batches([], 4)) == []
    assert token_counts([]).shape == (0,)


@settings(deadline=None, max_examples=200)
@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=7), max_size=25), st.integers(1, 30))
def test_every_row_comes_once_whole_and_least_padded(ids: list[list[int]], batch_size: int) -> None:
    encodings = [{"input_ids": row} for row in ids]
    seen: list[int] = []
    for rows, batch in batches(encodings, batch_size, {"input_ids": -1}):
        seen += rows.tolist()
        assert 1 <= len(rows) <= batch_size
        assert batch["input_ids"].shape[1] == max(len(ids[row]) for row in rows)
        for row, padded, mask in zip(rows, batch["input_ids"], batch["attention_mask"], strict=True):
            assert padded[mask == 1].tolist() == ids[row]
            assert (padded[mask == 0] == -1).all()
    assert sorted(seen) == list(range(len(ids)))
    lengths = [len(ids[row]) for row in seen]
    assert lengths == sorted(lengths, reverse=True)


def test_batches_are_made_one_at_a_time() -> None:
    iterator = batches([{"input_ids": [1]}] * 5, 2)
    assert next(iterator)[0].tolist() == [0, 1]
    assert next(iterator)[0].tolist() == [2, 3]


def test_windows_read_no_further_than_asked() -> None:
    taken = []

    def source():  # type: ignore[no-untyped-def]
        for i in range(5):
            taken.append(i)
            yield {"input_ids": [i]}

    iterator = windows(source(), 2)
    assert next(iterator) == [{"input_ids": [0]}, {"input_ids": [1]}]
    assert taken == [0, 1]
    assert [len(window) for window in iterator] == [2, 1]


def test_empty_text_is_refused_with_its_place() -> None:
    with pytest.raises(DataError, match=r"encoding 1 needs one positive length .* got \{'input_ids': 0\}"):
        token_counts([{"input_ids": [1]}, {"input_ids": []}])
    with pytest.raises(DataError, match="got no inputs"):
        token_counts([{}])


def test_uneven_inputs_are_refused() -> None:
    uneven = {"input_ids": [1, 2], "attention_mask": [1]}
    with pytest.raises(DataError, match=r"got \{'input_ids': 2, 'attention_mask': 1\}: encode it without"):
        pad([uneven])


def test_mixed_tokenizers_are_refused() -> None:
    with pytest.raises(
        DataError, match=r"encoding 1 has the inputs \['input_ids'\], encoding 0 has .*one tokenizer"
    ):
        list(batches([ENCODINGS[0], {"input_ids": [1, 2]}], 2))


@pytest.mark.parametrize("batch_size", [0, -3])
def test_batch_size_below_one_is_refused(batch_size: int) -> None:
    with pytest.raises(
        ConfigError, match=f"batch_size must be a whole number of at least 1, got {batch_size}"
    ):
        list(batches(ENCODINGS, batch_size))


def test_texts_of_one_length_can_be_kept_among_themselves() -> None:
    encodings = [{"input_ids": [1] * length} for length in (2, 5, 2, 5, 5, 3)]
    found = [
        (rows.tolist(), batch["input_ids"].shape)
        for rows, batch in batches(encodings, 2, plan=lambda lengths: [0, 4], alike=True)
    ]
    assert found == [([1, 3, 4], (3, 5)), ([5], (1, 3)), ([0, 2], (2, 2))]
    assert list(batches([], 4, alike=True)) == []
