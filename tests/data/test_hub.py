"""Data sets of the `datasets` library, saved to disk; and the hub when it cannot be reached."""

import datasets
import huggingface_hub.constants
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from offramp._core.errors import DataError
from offramp.data import load_data


@pytest.fixture(autouse=True)
def no_bars():
    shown = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    yield
    if not shown:
        datasets.enable_progress_bars()


def dataset(n=40, start=0, label=lambda i: i % 2, names=("up", "down")):
    features = Features(
        {"sentence": Value("string"), "label": ClassLabel(names=list(names)), "idx": Value("int32")}
    )
    rows = {
        "sentence": [f"text {i}" for i in range(start, start + n)],
        "label": [label(i) for i in range(n)],
        "idx": list(range(n)),
    }
    return Dataset.from_dict(rows, features=features)


def test_one_saved_data_set_keeps_its_class_order(tmp_path):
    dataset().save_to_disk(tmp_path / "saved")
    data = load_data(tmp_path / "saved")
    assert (data.name, data.labels) == ("saved", ("up", "down"))
    row = data["train"][0]
    assert row["label"] == row["id"] % 2
    assert [len(rows) for rows in data.values()] == [32, 4, 4]


def test_saved_splits_and_an_unlabelled_test_split(tmp_path):
    splits = {
        "train": dataset(),
        "validation": dataset(start=100),
        "test": dataset(start=200, label=lambda _: -1),
        "unsupervised": dataset(start=300),
    }
    DatasetDict(splits).save_to_disk(tmp_path / "saved")
    data = load_data(tmp_path / "saved")
    assert list(data) == ["train", "calibration", "validation"]
    assert len(data["validation"]) == 40


def test_rows_marked_as_unlabelled_are_dropped(tmp_path, caplog):
    dataset(n=42, label=lambda i: -1 if i < 2 else i % 2).save_to_disk(tmp_path / "saved")
    assert sum(map(len, load_data(tmp_path / "saved").values())) == 40
    assert "2 rows without a label dropped" in caplog.text


def test_a_class_that_no_row_has_is_still_a_class(tmp_path):
    dataset(names=("a", "b", "never")).save_to_disk(tmp_path / "saved")
    assert load_data(tmp_path / "saved").labels == ("a", "b", "never")


def test_class_names_that_look_like_numbers_or_have_blanks_around(tmp_path):
    names = ("1.0", "1.5", " mixed")
    dataset(n=60, label=lambda i: i % 3, names=names).save_to_disk(tmp_path / "saved")
    data = load_data(tmp_path / "saved")
    assert data.labels == names
    assert all(row["label"] == row["id"] % 3 for row in data["train"])


def test_class_index_outside_the_names(tmp_path):
    features = Features({"text": Value("string"), "label": ClassLabel(names=["a", "b"])})
    good = Dataset.from_dict({"text": ["x", "y"], "label": [0, 1]}, features=features)
    broken = good.with_format("arrow")[:].set_column(1, "label", [[0, 7]])
    Dataset(datasets.table.InMemoryTable(broken), info=good.info).save_to_disk(tmp_path / "saved")
    with pytest.raises(DataError, match=r"label 7 is outside the range 0 … 1 of \('a', 'b'\)"):
        load_data(tmp_path / "saved")


def test_task_of_a_saved_data_set_gives_the_metrics(tmp_path):
    saved = dataset(names=("unacceptable", "acceptable"))
    saved.save_to_disk(tmp_path / "saved")
    data = load_data(tmp_path / "saved", task="cola")
    assert (data.metrics, data.labels) == (("matthews", "accuracy"), ("unacceptable", "acceptable"))


def test_half_a_saved_data_set_says_so(tmp_path):
    dataset().save_to_disk(tmp_path / "saved")
    next((tmp_path / "saved").glob("*.arrow")).unlink()
    with pytest.raises(DataError, match="not a complete data set saved by `save_to_disk`"):
        load_data(tmp_path / "saved")


def test_saved_features_that_are_no_text(tmp_path):
    Dataset.from_dict({"text": [[1], [2]], "label": [0, 1]}).save_to_disk(tmp_path / "saved")
    with pytest.raises(DataError, match="column 'text': expected text, got list in 2 rows"):
        load_data(tmp_path / "saved")


@pytest.fixture
def offline(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hub-cache")
    monkeypatch.delenv("OFFRAMP_GLUE", raising=False)
    monkeypatch.chdir(tmp_path)


def test_hub_name_offline_says_what_else_works(offline):
    with pytest.raises(
        DataError, match=r"cannot load someone/something:fine from the hub .*give a folder or a file"
    ):
        load_data("someone/something:fine")


def test_glue_name_offline_says_where_to_put_the_folder(offline):
    expected = r"sst2: no folder SST-2 in \$OFFRAMP_GLUE or \./glue, .*SST-2/train\.tsv and SST-2/dev\.tsv"
    with pytest.raises(DataError, match=expected):
        load_data("sst2")
