"""JSON in every tabular form: the rows exactly, or an error in one line."""

import json

import pytest

from offramp._core.errors import DataError
from offramp.data import load_data
from offramp.data.files import read_file
from tests.data.rows import records

ROWS = records(12)
COLUMNS = {"text": [row["text"] for row in ROWS], "label": [row["label"] for row in ROWS]}


def forms():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(ROWS, index=range(30, 18, -1))
    for orient in ("records", "columns", "index", "split", "table"):
        yield frame.to_json(orient=orient)
    yield frame.to_json(orient="records", lines=True)
    yield json.dumps(ROWS, indent=1)
    yield json.dumps({"data": ROWS})
    yield json.dumps({"version": "1.0", "rows": ROWS, "count": 12})
    yield json.dumps(COLUMNS)
    yield "\ufeff" + "\r\n\r\n".join(map(json.dumps, ROWS))


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".ndjson"])
def test_every_form_under_every_suffix(suffix, tmp_path):
    path = tmp_path / f"a{suffix}"
    for content in forms():
        path.write_text(content)
        columns = read_file(path).columns
        assert {name: columns[name] for name in COLUMNS} == COLUMNS, content[:60]


DEEP = '{"a":' * 5000 + "1" + "}" * 5000


@pytest.mark.parametrize(
    ("suffix", "content", "message"),
    [
        (
            ".json",
            json.dumps([list(row.values()) for row in ROWS]),
            "entry 1: expected an object with columns",
        ),
        (".json", "[" * 100_000, "a.json: nested too deeply for a table"),
        (".jsonl", f'{{"text": "a"}}\n{DEEP}', "line 2: nested too deeply for a table"),
        (".json", '{"x": {"text": "a"}, "y": {"text": "b"}}', "expected rows or columns, got nested objects"),
        (
            ".json",
            '{"text": {"0": "a", "1": "b"}, "label": {"0": 1}}',
            "expected 2 rows in the column 'label', got 1",
        ),
        (
            ".json",
            '{"text": ["a"], "label": [0, 1]}',
            "expected columns of one length, got 'text' 1, 'label' 2",
        ),
        (
            ".json",
            json.dumps({"train": ROWS, "test": ROWS}),
            "one under each of 'train', 'test': save each as",
        ),
        (
            ".json",
            '{"columns": ["text"], "data": [["a", 1]]}',
            r"entry 1 of 'data': expected 1 values, got",
        ),
        (".json", '{"columns": 1, "data": 2}', "expected lists under 'columns' and 'data'"),
        (".json", '"text"', "expected a table, got 'text': write an object on each line"),
        (".json", '[{"text": "a"},\n{"te', "line 2: not JSON"),
        (".json", '{"text": "a", "text": "b"}', "the name 'text' occurs twice in"),
        (".jsonl", '{"text": "a"}\n{"text": "a", "text": "b"}', "line 2: the name 'text' occurs twice in"),
        (".jsonl", "\n".join(f'{{"text": "{i}", "label": Infinity}}' for i in range(9)), "got inf in 9 rows"),
    ],
)
def test_other_forms_are_refused_in_one_line(suffix, content, message, tmp_path):
    path = tmp_path / f"a{suffix}"
    path.write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        load_data(path)
    assert "\n" not in str(caught.value)
