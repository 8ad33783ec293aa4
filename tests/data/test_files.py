"""CSV, TSV, JSON, JSON Lines and Parquet, good and bad."""

import json

import pytest

from offramp._core.errors import DataError
from offramp.data import load_data
from tests.data.rows import SUFFIXES, WORDS, records, write


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_one_file_is_split(suffix, tmp_path):
    data = load_data(write(tmp_path / f"reviews{suffix}", records()))
    assert (data.name, data.labels, data.metrics) == ("reviews", WORDS, ("accuracy",))
    assert {split: len(rows) for split, rows in data.items()} == {
        "train": 32,
        "calibration": 4,
        "validation": 4,
    }
    for rows in data.values():
        for row in rows:
            assert row["text"] == f"text {row['id']}"
            assert row["label"] == row["id"] % 2


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_folder_with_split_files(suffix, tmp_path):
    for i, name in enumerate(("train", "valid", "calib", "test")):
        write(tmp_path / "mine" / f"{name}{suffix}", records(start=100 * i))
    (tmp_path / "mine" / "README.md").write_text("not data")
    data = load_data(str(tmp_path / "mine"))
    assert list(data) == ["train", "calibration", "validation", "test"]
    assert all(len(rows) == 40 for rows in data.values())


def test_mapping_from_split_to_file(tmp_path):
    files = {
        "dev": write(tmp_path / "b.jsonl", records(start=100)),
        "train": write(tmp_path / "a.csv", records()),
    }
    data = load_data(files)
    assert data["validation"]["text"][0] == "text 100"
    with pytest.raises(DataError, match=r"unknown split 'tran'\. Did you mean 'train'\?"):
        load_data({"tran": tmp_path / "a.csv"})
    with pytest.raises(DataError, match="two entries are called validation"):
        load_data({**files, "val": tmp_path / "a.csv"})
    with pytest.raises(DataError, match=r"aa\.csv does not exist\. Did you mean .*a\.csv"):
        load_data({"train": tmp_path / "aa.csv"})
    with pytest.raises(DataError, match="expected rows to train on, got only test"):
        load_data({"test": tmp_path / "a.csv"})


def test_sizes_and_seed_are_arguments(tmp_path):
    path = write(tmp_path / "a.csv", records(200))
    data = load_data(path, calibration_size=30, validation_size=50, seed=7)
    assert (len(data["calibration"]), len(data["validation"])) == (30, 50)
    assert list(data["calibration"]["id"]) != list(load_data(path, calibration_size=30)["calibration"]["id"])
    with pytest.raises(DataError, match="expected calibration_size of at least 1 row, got 0"):
        load_data(path, calibration_size=0)


@pytest.mark.parametrize(
    ("columns", "pair"),
    [
        (("Sentence", "Label"), False),
        (("review", "sentiment"), False),
        (("premise", "hypothesis", "label"), True),
        (("sentence1", "sentence2", "target"), True),
        (("question", "sentence", "class"), True),
    ],
)
def test_usual_column_names_are_found(columns, pair, tmp_path):
    rows = [
        dict(zip(columns, [f"a {i}", f"b {i}", WORDS[i % 2]][-len(columns) :], strict=True))
        for i in range(40)
    ]
    data = load_data(write(tmp_path / "a.csv", rows))
    assert data.pair == pair
    assert data["train"].column_names == ["id", "text", *(["text_pair"] if pair else []), "label"]


def test_columns_can_be_chosen(tmp_path):
    rows = [{"label": i, "text": "no", "x": f"x {i}", "y": f"y {i}", "z": WORDS[i % 2]} for i in range(40)]
    data = load_data(write(tmp_path / "a.csv", rows), text="x", text_pair="y", label="z")
    row = data["train"][0]
    assert (row["text"], row["text_pair"]) == (f"x {row['id']}", f"y {row['id']}")


def test_task_of_a_file_gives_columns_and_class_names(tmp_path):
    rows = [{"Quality": i % 2, "#1 String": f"a {i}", "#2 String": f"b {i}"} for i in range(40)]
    data = load_data(write(tmp_path / "a.tsv", rows), task="mrpc")
    assert (data.labels, data.metrics) == (("not_equivalent", "equivalent"), ("accuracy", "f1"))


def test_csv_quoting(tmp_path):
    path = tmp_path / "a.csv"
    odd = 'he said ""no"",\nthen\tleft'
    path.write_text("text,label\n" + f'"{odd}",x\n,y\n' + "\n".join(f"t{i},{'xy'[i % 2]}" for i in range(30)))
    data = load_data(path)
    found = {text for rows in data.values() for text in rows["text"]}
    assert 'he said "no",\nthen\tleft' in found
    assert "" in found  # empty text is text


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (['he said "no', '"', "plain"], {'he said "no', '"', "plain"}),  # no quoting: quotes are text
        (['"a ""quoted"" one"', '"two\twords"', "plain"], {'a "quoted" one', "two\twords", "plain"}),
    ],
)
def test_tsv_with_and_without_quoting(cells, expected, tmp_path):
    path = tmp_path / "a.tsv"
    rows = [*cells, *(f"t{i}" for i in range(30))]
    path.write_text("text\tlabel\n" + "\n".join(f"{cell}\t{i % 2}" for i, cell in enumerate(rows)))
    found = {text for split in load_data(path).values() for text in split["text"]}
    assert expected <= found


# Texts


def test_nul_and_lone_surrogates_are_replaced_and_counted(tmp_path, caplog):
    path = tmp_path / "a.jsonl"
    odd = ['{"text": "cut \\ud83d off", "label": "bad"}', '{"text": "nul \\u0000 here", "label": "good"}']
    path.write_text("\n".join([*odd, *(json.dumps(row) for row in records())]))
    found = {text for rows in load_data(path).values() for text in rows["text"]}
    assert {"cut \ufffd off", "nul \ufffd here"} <= found
    assert "replaced by U+FFFD in 2 texts" in caplog.text


def test_pairs_of_surrogates_are_one_character(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(['{"text": "\\ud83d\\ude00", "label": "bad"}', *map(json.dumps, records())]))
    assert "\U0001f600" in {text for rows in load_data(path).values() for text in rows["text"]}


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_nul_in_every_format(suffix, tmp_path):
    path = write(tmp_path / f"a{suffix}", [{"text": "a\0b", "label": "bad"}, *records()])
    assert "a\ufffdb" in {text for rows in load_data(path).values() for text in rows["text"]}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_long_and_empty_texts(suffix, tmp_path):
    rows = [{"text": "x" * 100_000, "label": "bad"}, {"text": "", "label": "good"}, *records()]
    data = load_data(write(tmp_path / f"a{suffix}", rows))
    lengths = {len(text) for split in data.values() for text in split["text"]}
    assert {0, 100_000} <= lengths


def test_a_text_longer_than_a_block(tmp_path):
    rows = [{"text": "x" * 3_000_000, "label": "bad"}, *records()]
    data = load_data(write(tmp_path / "a.csv", rows))
    assert max(len(text) for split in data.values() for text in split["text"]) == 3_000_000


def test_missing_texts_are_empty_and_counted(tmp_path, caplog):
    rows = [{"text": None, "label": "bad"}, *records()]
    assert "" in {
        text for split in load_data(write(tmp_path / "a.jsonl", rows)).values() for text in split["text"]
    }
    assert "1 missing texts read as empty" in caplog.text


# Files and columns


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".json"])
@pytest.mark.parametrize("content", ["", "\n \n", "\ufeff"])
def test_empty_file(suffix, content, tmp_path):
    path = tmp_path / f"a{suffix}"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=rf"a\{suffix} is empty"):
        load_data(path)


@pytest.mark.parametrize(
    ("suffix", "header"), [(".csv", "text,label"), (".tsv", "text\tlabel\n"), (".json", "[]")]
)
def test_header_only(suffix, header, tmp_path):
    path = tmp_path / f"a{suffix}"
    path.write_text(header)
    with pytest.raises(DataError, match="has no rows below its header"):
        load_data(path)


def test_missing_column_lists_what_there_is_and_the_near_miss(tmp_path):
    path = write(tmp_path / "a.csv", [{"Reviews": f"t {i}", "stars": i % 5} for i in range(40)])
    with pytest.raises(
        DataError, match=r"no column 'review'\. Did you mean 'Reviews'\? Columns: 'Reviews', 'stars'"
    ):
        load_data(path, text="review", label="stars")
    expected = r"no column has a usual name for the text \(text, .*choose one with text=… Columns: 'Reviews', 'stars'"
    with pytest.raises(DataError, match=expected):
        load_data(path)
    with pytest.raises(DataError, match=r"usual name for the label .*choose one with label=…"):
        load_data(path, text="Reviews")


def test_column_missing_in_another_split(tmp_path):
    write(tmp_path / "mine" / "train.csv", records())
    write(tmp_path / "mine" / "dev.csv", [{"sentence": "x", "label": "good"}])
    with pytest.raises(DataError, match=r"dev\.csv: no column 'text'\. .*Columns: 'sentence', 'label'"):
        load_data(tmp_path / "mine", text="text")


def test_column_that_is_there_twice(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text,label,text\na,0,b\nc,1,d\n")
    with pytest.raises(DataError, match="the column 'text' occurs twice; rename one"):
        load_data(path)


@pytest.mark.parametrize(
    "columns", [{"text": "text", "text_pair": "text"}, {"text": "label", "label": "label"}]
)
def test_one_column_in_two_roles(columns, tmp_path):
    with pytest.raises(DataError, match="expected different columns, got text="):
        load_data(write(tmp_path / "a.csv", records()), **columns)


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet", ".csv"])
def test_numbers_are_no_text(suffix, tmp_path):
    rows = [{"age": 20 + i, "label": WORDS[i % 2]} for i in range(40)]
    with pytest.raises(DataError, match=r"column 'age': expected text, got (int in 40 rows|numbers only)"):
        load_data(write(tmp_path / f"a{suffix}", rows), text="age")


def test_bytes_that_are_not_utf8(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes("text,label\na,0\ncaf\xe9,1\n".encode("latin-1"))
    with pytest.raises(
        DataError, match=r"a\.csv: expected UTF-8, got the byte 0xe9 in line 3; save the file as UTF-8"
    ):
        load_data(path)
    path.write_text("text,label\na,0\n", encoding="utf-16")
    with pytest.raises(DataError, match="it looks like UTF-16"):
        load_data(path)


@pytest.mark.parametrize("body", ['"open,1\nb,0\n', "a,b,1\n", "a\n"])
def test_malformed_csv(body, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text,label\n" + body)
    with pytest.raises(
        DataError,
        match=r"a\.csv, line 2: (a quote is not closed|expected 2 values, for .text., .label., got [13]\. Look for)",
    ):
        load_data(path)


def test_malformed_json(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a", "label": 1}\n{"text": \n')
    with pytest.raises(DataError, match=r"a\.jsonl, line 2: expected one JSON object"):
        load_data(path)
    path.write_text('{"text": "a", "label": 1}\n[1, 2]\n')
    with pytest.raises(DataError, match=r"a\.jsonl, line 2: expected an object with columns"):
        load_data(path)
    (tmp_path / "a.json").write_text("[1, 2")
    with pytest.raises(DataError, match=r"a\.json, line 1: not JSON"):
        load_data(tmp_path / "a.json")


def test_no_parquet(tmp_path):
    (tmp_path / "a.parquet").write_text("text,label")
    with pytest.raises(DataError, match=r"a\.parquet cannot be read .*give a Parquet file"):
        load_data(tmp_path / "a.parquet")


def test_unknown_suffix(tmp_path):
    (tmp_path / "a.xlsx").write_text("x")
    with pytest.raises(
        DataError, match=r"unknown file type '\.xlsx'\. Known: .*\.csv.* save the sheet as CSV"
    ):
        load_data(tmp_path / "a.xlsx")


def test_path_that_does_not_exist(tmp_path):
    write(tmp_path / "reviews.csv", records())
    with pytest.raises(DataError, match=r"review\.csv does not exist\. Did you mean .*reviews\.csv\?"):
        load_data(tmp_path / "review.csv")
    with pytest.raises(DataError, match=r"does not exist \(there is no folder .*nowhere\)"):
        load_data(tmp_path / "nowhere" / "a.csv")


def test_unknown_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"unknown data 'sst3'\. Did you mean 'sst2'\?.*hub name owner/name"):
        load_data("sst3")


def test_folder_without_known_files(tmp_path):
    with pytest.raises(DataError, match=r"expected files named train, validation or test .*got nothing"):
        load_data(tmp_path)
    write(tmp_path / "reviews.csv", records())
    with pytest.raises(DataError, match=r"got reviews\.csv"):
        load_data(tmp_path)


def test_two_files_for_one_split(tmp_path):
    write(tmp_path / "train.csv", records())
    write(tmp_path / "train.jsonl", records())
    with pytest.raises(DataError, match=r"both train\.csv and train\.jsonl could be train"):
        load_data(tmp_path)
