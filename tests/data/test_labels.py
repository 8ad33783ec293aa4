"""Labels out of files: classes, scores, and what is neither."""

import pytest

from offramp._core.errors import DataError
from offramp.data import load_data
from tests.data.rows import records, write


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ((0, 1), ("0", "1")),
        ((-1, 1), ("-1", "1")),
        ((10, 9), ("9", "10")),
        ((True, False), ("False", "True")),
        ((0.0, 1.0), ("0", "1")),
        (("yes", "no"), ("no", "yes")),
    ],
)
@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_label_types(values, names, suffix, tmp_path):
    rows = [{"text": f"t {i}", "label": values[i % 2]} for i in range(40)]
    data = load_data(write(tmp_path / f"a{suffix}", rows))
    assert (data.labels, data.kind) == (names, "classification")
    row = data["train"][0]
    assert data.labels[row["label"]] == names[names.index(str(rows[row["id"]]["label"]).removesuffix(".0"))]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_fractions_are_regression(suffix, tmp_path):
    rows = [{"text": f"t {i}", "score": i / 8} for i in range(40)]
    data = load_data(write(tmp_path / f"a{suffix}", rows))
    assert (data.kind, data.labels, data.num_labels, data.metrics) == (
        "regression",
        (),
        1,
        ("pearson", "spearman"),
    )
    assert data["train"].features["label"].dtype == "float64"
    row = data["train"][5]
    assert row["label"] == row["id"] / 8


def test_kind_can_be_forced(tmp_path):
    path = write(tmp_path / "a.csv", [{"text": f"t {i}", "label": i % 5} for i in range(100)])
    assert load_data(path).num_labels == 5
    assert load_data(path, kind="regression").kind == "regression"
    with pytest.raises(DataError, match=r"unknown kind 'regresion'\. Did you mean 'regression'\?"):
        load_data(path, kind="regresion")


def test_words_are_no_regression_labels(tmp_path):
    with pytest.raises(DataError, match=r"expected a number as regression label, got '(bad|good)'"):
        load_data(write(tmp_path / "a.csv", records()), kind="regression")


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_rows_without_a_label_are_dropped_and_counted(suffix, tmp_path, caplog):
    rows = [*records(), {"text": "unknown 1", "label": None}, {"text": "unknown 2", "label": None}]
    data = load_data(write(tmp_path / f"a{suffix}", rows))
    assert sum(map(len, data.values())) == 40
    assert "2 rows without a label dropped" in caplog.text


def test_nan_is_no_label(tmp_path):
    rows = [{"text": f"t {i}", "label": float("nan") if i == 0 else i / 4} for i in range(41)]
    data = load_data(write(tmp_path / "a.parquet", rows))
    assert 0 not in [i for split in data.values() for i in split["id"]]


@pytest.mark.parametrize("blank", ["nan", "NaN", " "])
@pytest.mark.parametrize(("labels", "kind"), [("01", "classification"), (("0.5", "1.25"), "regression")])
def test_a_text_files_word_for_nan_and_blanks_are_no_label(blank, labels, kind, tmp_path, caplog):
    rows = [{"text": f"t {i}", "label": labels[i % 2]} for i in range(40)]
    data = load_data(write(tmp_path / "a.csv", [*rows, {"text": "unknown", "label": blank}]))
    assert (data.kind, data.labels) == (kind, tuple(labels) if kind == "classification" else ())
    assert sum(map(len, data.values())) == 40
    assert "1 rows without a label dropped" in caplog.text


def test_a_number_that_no_model_holds_is_no_regression_label(tmp_path):
    rows = [{"text": f"t {i}", "label": f"{i}.5e{300 if i == 7 else 0}"} for i in range(40)]
    with pytest.raises(DataError, match=r"label 7\.5e300 is outside the range -3\.4\d*e\+38 … 3\.4\d*e\+38"):
        load_data(write(tmp_path / "a.csv", rows))


def test_no_label_at_all(tmp_path):
    with pytest.raises(DataError, match=r"a\.jsonl: no row has a label"):
        load_data(write(tmp_path / "a.jsonl", [{"text": f"t {i}", "label": None} for i in range(9)]))


def test_one_class_only(tmp_path):
    rows = [{"text": f"t {i}", "label": "spam"} for i in range(40)]
    with pytest.raises(
        DataError, match="expected at least two different labels, got 'spam' in each of 40 rows"
    ):
        load_data(write(tmp_path / "a.csv", rows))


def test_label_that_train_does_not_have(tmp_path):
    write(tmp_path / "mine" / "train.csv", records())
    write(tmp_path / "mine" / "dev.csv", [{"text": "x", "label": "god"}])
    with pytest.raises(
        DataError, match=r"dev\.csv: unknown label 'god'\. Did you mean 'good'\? Known: bad, good"
    ):
        load_data(tmp_path / "mine")


def test_a_label_for_each_row_is_no_class(tmp_path):
    rows = [{"text": f"t {i}", "label": f"id-{i}"} for i in range(150)]
    with pytest.raises(DataError, match="150 different labels in 150 rows are not classes"):
        load_data(write(tmp_path / "a.csv", rows))


def test_labels_of_a_strange_type(tmp_path):
    rows = [{"text": f"t {i}", "label": [i]} for i in range(9)]
    with pytest.raises(DataError, match="column 'label': expected strings or numbers as labels, got list"):
        load_data(write(tmp_path / "a.jsonl", rows))


def test_unlabelled_test_file_is_no_test_split(tmp_path):
    write(tmp_path / "mine" / "train.csv", records())
    write(tmp_path / "mine" / "test.csv", [{"index": i, "text": f"t {i}"} for i in range(9)])
    assert "test" not in load_data(tmp_path / "mine")
