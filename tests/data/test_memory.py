"""Tables in memory: what `load_data` reads gives the rows exactly; what it cannot read is refused in one line."""

from collections import namedtuple
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, IterableDatasetDict

from offramp._core.errors import DataError
from offramp.data import load_data
from tests.data.rows import records

ROWS = records()
PAIRS = [(row["text"], row["label"]) for row in ROWS]
FRAME = pd.DataFrame(ROWS)
ARROW = pa.Table.from_pylist(ROWS)
DATASET = Dataset.from_list(ROWS)
NAMED = DATASET.cast_column("label", ClassLabel(names=["good", "bad"]))
Labelled = namedtuple("Labelled", ["text", "label"])


class Foreign:
    """A table of another library, such as polars: it shares Arrow's memory and is no iterable."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return ARROW.__arrow_c_stream__(requested_schema)


def rows_of(data: Any) -> list[tuple[str, str]]:
    rows = sorted(
        (row["id"], row["text"], data.labels[row["label"]]) for split in data.values() for row in split
    )
    return [(text, label) for _, text, label in rows]


FORMS = {
    "frame": FRAME,
    "index": FRAME.set_index(pd.Index(range(90, 50, -1))),
    "categories": FRAME.astype({"label": "category"}),
    "strings": FRAME.astype("string"),
    "arrow": ARROW,
    "batch": ARROW.to_batches()[0],
    "foreign": Foreign(),
    "data set": DATASET,
    "formatted": DATASET.with_format("pandas"),
    "streamed": DATASET.to_iterable_dataset(),
    "named": NAMED,
    "named, streamed": NAMED.to_iterable_dataset(),
    "splits": DatasetDict(train=NAMED),
    "streamed splits": IterableDatasetDict({"train": NAMED.to_iterable_dataset()}),
    "dicts": ROWS,
    "pairs": tuple(PAIRS),
    "lists": [list(pair) for pair in PAIRS],
    "named tuples": [Labelled(*pair) for pair in PAIRS],
    "frame tuples": list(FRAME.itertuples()),
    "columns": FRAME.to_dict("list"),
    "columns of any type": {"text": FRAME["text"], "label": np.array(FRAME["label"])},
    "array": np.array(PAIRS),
    "structured": np.array([pair[::-1] for pair in PAIRS], dtype=[("label", "U9"), ("text", "U9")]),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_table_in_memory(form):
    data = load_data(FORMS[form])
    assert rows_of(data) == PAIRS
    assert data.labels == (
        ("good", "bad") if ("named" in form and "tuples" not in form) or "splits" in form else ("bad", "good")
    )


def test_generators_and_options():
    assert rows_of(load_data(dict(row) for row in ROWS)) == PAIRS
    assert rows_of(load_data(zip(*zip(*PAIRS, strict=True), strict=True))) == PAIRS
    renamed = FRAME.rename(columns={"text": "a", "label": "b"})
    assert rows_of(load_data(renamed, text="a", label="b", validation_size=np.int64(5))) == PAIRS


def test_a_mapping_from_split_to_table(tmp_path):
    FRAME.to_csv(tmp_path / "a.csv", index=False)
    held = {"text": ["one more", "and one"], "label": ["bad", "good"]}
    pairs = list(zip(*held.values(), strict=True))
    for validation in (held, pairs, pd.DataFrame(held), Dataset.from_dict(held)):
        data = load_data({"train": tmp_path / "a.csv", "dev": validation})
        assert list(data["validation"]["text"]) == ["one more", "and one"]
    with pytest.raises(DataError, match="unknown split 'tran'. Did you mean 'train'?"):
        load_data({"tran": FRAME})


def test_labels_of_any_type_and_missing_ones(caplog):
    labels = [0, "0", 1.0, np.int64(1), "1.0", np.str_("0"), None, pd.NA] * 5
    for source in (
        pd.DataFrame({"text": FRAME["text"], "label": labels}),
        [{"text": text, "label": label} for text, label in zip(FRAME["text"], labels, strict=True)],
    ):
        data = load_data(source)
        expected = [(f"text {i}", "001110"[i % 8]) for i in range(40) if i % 8 < 6]
        assert (rows_of(data), data.labels) == (expected, ("0", "1"))
    assert "10 rows without a label dropped" in caplog.text


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, "expected a file, a name or labelled rows, got NoneType: pass a data frame"),
        (3, "expected a file, a name or labelled rows, got int"),
        (b"a.csv", "expected a file, a name or labelled rows, got bytes"),
        ({"a", "b"}, "expected a file, a name or labelled rows, got set"),
        ("", "expected the name of a data set, a file or a folder, got an empty string"),
        ([], "the table has no rows"),
        ({}, "expected columns of one length, got no columns"),
        (FRAME.head(0), "the table has no rows"),
        (FRAME["text"], "row 1: expected a text and a label, got 'text 0': pass a data frame"),
        (FRAME.iloc[0], "expected a file, a name or labelled rows, got Series"),
        ([FRAME.iloc[0]], "row 1: expected a text and a label, got text"),
        (["a text"], "row 1: expected a text and a label, got 'a text'"),
        ([("a", "b", "c")], "row 1: expected a text and a label"),
        ([("text", "label"), *PAIRS], "row 1: expected a text and a label, got column names"),
        ([pair[::-1] for pair in PAIRS], "got more different labels than texts: the text comes first"),
        ([*ROWS, "a text"], "entry 41: expected an object with columns, got 'a text'"),
        (
            {"text": "a", "label": "b"},
            "expected a list of values under 'text', got str: 'a': put a single row",
        ),
        ({"text": ["a"], "label": [1, 2]}, "expected columns of one length, got {'text': 1, 'label': 2}"),
        (pd.DataFrame(PAIRS), "expected strings as column names, got 0: name the columns"),
        (pd.concat({"x": FRAME}, axis=1), r"expected strings as column names, got \('x', 'text'\)"),
        (pd.concat([FRAME, FRAME], axis=1), "expected different columns, got .*: rename one"),
        (pa.table([["a"], ["b"]], names=["text", "text"]), "cannot be read as a table"),
        ([{0: "a", "label": "b"}], "expected strings as column names, got 0"),
        ({"train": None}, "expected a list of values under 'train', got NoneType"),
    ],
)
def test_what_is_no_table_is_refused_in_one_line(source, message):
    with pytest.raises(DataError, match=message) as caught:
        load_data(source)
    assert "\n" not in str(caught.value)


def test_options_of_the_wrong_type():
    with pytest.raises(DataError, match="expected a string as text, got 3"):
        load_data(FRAME, text=3)  # type: ignore[arg-type]
    for size in (0.1, "5", True):
        with pytest.raises(
            DataError, match="expected validation_size of at least 1 row, got .*: give a whole number"
        ):
            load_data(FRAME, validation_size=size)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="got data that load_data returned: use them as they are"):
        load_data(load_data(FRAME))
