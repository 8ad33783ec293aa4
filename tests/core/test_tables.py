"""Texts of whatever a program has in memory: each form gives the texts in order, or one line that says what to pass."""

from collections import namedtuple
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from datasets import Dataset, DatasetDict

from offramp._core.errors import DataError
from offramp._core.text import read_texts

TEXTS, SECOND = ["a film", "", "a play"], ["b", "c", "d"]
FRAME = pd.DataFrame({"stars": [1, None, 3], "text": TEXTS, "text_pair": SECOND}, index=[7, 7, 3])
ARROW = pa.table({"text": TEXTS, "text_pair": SECOND})
DATASET = Dataset.from_dict({"text": TEXTS, "text_pair": SECOND})
Row = namedtuple("Row", ["text_pair", "text"])

SINGLE = {
    "list": TEXTS,
    "tuple": tuple(TEXTS),
    "generator": (text for text in TEXTS),
    "keys": dict.fromkeys(TEXTS).keys(),
    "array": np.array(TEXTS),
    "objects": np.array(TEXTS, dtype=object),
    "series": FRAME["text"],
    "categories": FRAME["text"].astype("category"),
    "strings": FRAME["text"].astype("string"),
    "index": pd.Index(TEXTS),
    "frame": FRAME[["stars", "text"]],
    "arrow array": ARROW["text"],
    "arrow chunk": ARROW["text"].chunk(0),
    "dictionary": ARROW["text"].dictionary_encode(),
    "column": DATASET["text"],
    "dicts": [{"text": text, "label": 1} for text in TEXTS],
    "columns": {"text": TEXTS, "label": [1, 2, 3]},
}
PAIRED = {
    "pairs": list(zip(TEXTS, SECOND, strict=True)),
    "lists": [list(pair) for pair in zip(TEXTS, SECOND, strict=True)],
    "array": np.array([TEXTS, SECOND]).T,
    "structured": np.array(
        list(zip(SECOND, TEXTS, strict=True)), dtype=[("text_pair", "U9"), ("text", "U9")]
    ),
    "named tuples": [Row(*pair) for pair in zip(SECOND, TEXTS, strict=True)],
    "frame tuples": FRAME.itertuples(),
    "frame": FRAME,
    "arrow": ARROW,
    "batch": ARROW.to_batches()[0],
    "data set": DATASET,
    "formatted": DATASET.with_format("arrow"),
    "streamed": DATASET.to_iterable_dataset(),
    "columns": {"text_pair": np.array(SECOND), "text": pd.Series(TEXTS)},
}


@pytest.mark.parametrize("form", SINGLE)
def test_texts_in_every_form(form):
    assert read_texts(SINGLE[form]) == (TEXTS, None)


@pytest.mark.parametrize("form", PAIRED)
def test_pairs_in_every_form(form):
    assert read_texts(PAIRED[form]) == (TEXTS, SECOND)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("a film", "got one string: put it in a list"),
        (b"a film", "got one bytes object: put it in a list"),
        (None, "expected a list of texts, got NoneType: None: pass a list or a table"),
        (Path("a.csv"), r"expected a list of texts, got PosixPath: .*: pass a list or a table"),
        ({"a film", "a play"}, "got a set, which has no order"),
        ([b"a film"], "expected texts as strings, got bytes"),
        ([None], "expected texts as strings, got NoneType: None: drop the rows without text"),
        (np.array([b"a"]), "expected texts as strings, got bytes"),
        (np.array("a film"), "got one string"),
        (pd.Series(["a", None]), "got NoneType: None: drop the rows without text"),
        (pd.Series([1.5]), "expected texts as strings, got float"),
        (FRAME.iloc[0], r"got one row of a data frame: pass frame\.iloc\[\[i\]\]"),
        ([FRAME.iloc[0]], "expected texts as strings, got Series: stars"),
        (
            FRAME.rename(columns={"text": "review"}),
            "expected the columns 'text' and, for pairs, 'text_pair', got 'stars'",
        ),
        (pd.DataFrame([["a"]]), "expected strings as column names, got 0"),
        ({"text": "a film", "label": 1}, "got str: 'a film': put a single row in a list"),
        (
            {"text": TEXTS, "text_pair": SECOND[:1]},
            "expected columns of one length, got {'text': 3, 'text_pair': 1}",
        ),
        (DatasetDict(train=DATASET, test=DATASET), "the splits train, test: pass one, data"),
        ({"train": FRAME}, "the splits train: pass one, data"),
        (
            [{"text": "a"}, {"text": "b", "text_pair": "c"}],
            "expected the columns 'text' and, for pairs, 'text_pair'",
        ),
    ],
)
def test_what_is_no_text_is_refused_in_one_line(source, message):
    with pytest.raises(DataError, match=message) as caught:
        read_texts(source)
    assert "\n" not in str(caught.value)
