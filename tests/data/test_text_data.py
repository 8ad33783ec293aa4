import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from offramp._core.errors import ConfigError, DataError
from offramp.data import TextData, fingerprint, load_data, overlap


@pytest.fixture
def data(tmp_path) -> TextData:
    rows = [f"text {i},{('rare', 'mid', 'often', 'often', 'often')[i % 5]}" for i in range(500)]
    path = tmp_path / "toy.csv"
    path.write_text("text,label\n" + "\n".join(rows))
    return load_data(path)


def test_it_is_a_mapping_that_describes_itself(data):
    assert list(data) == ["train", "calibration", "validation"]
    assert len(data) == 3
    assert "test" not in data
    assert data.get("test") is None
    assert repr(data) == "TextData(toy: train 400, calibration 50, validation 50; 3 classes)"
    assert (data.labels, data.num_labels, data.kind, data.pair) == (
        ("mid", "often", "rare"),
        3,
        "classification",
        False,
    )


def test_an_unknown_split_names_the_near_miss(data):
    with pytest.raises(
        DataError, match=r"unknown split of toy 'validaton'\. Did you mean 'validation'\?"
    ) as error:
        data["validaton"]
    assert isinstance(error.value, KeyError)
    assert not str(error.value).startswith("'")  # KeyError would show the repr


def test_columns_and_types(data):
    features = data["train"].features
    assert list(features) == ["id", "text", "label"]
    assert (features["id"].dtype, features["text"].dtype, features["label"].dtype) == (
        "int64",
        "string",
        "int64",
    )
    ids = [i for split in data.values() for i in split["id"]]
    assert sorted(ids) == list(range(500))
    row = data["validation"][0]
    assert row["text"] == f"text {row['id']}"
    assert not data["train"].cache_files  # in memory, nothing written


def test_subsamples_nest_keep_shares_and_leave_the_rest_alone(data):
    small, large = data.subsample(50, seed=3), data.subsample(120, seed=3)
    assert set(small["train"]["id"]) < set(large["train"]["id"]) < set(data["train"]["id"])
    assert set(data.subsample(3)["train"]["label"]) == {0, 1, 2}
    counts = [list(small["train"]["label"]).count(label) for label in range(3)]
    assert counts == [10, 30, 10]
    assert list(small["train"]["id"]) == sorted(small["train"]["id"])
    assert small["validation"] is data["validation"]
    assert set(data.subsample(50, seed=4)["train"]["id"]) != set(small["train"]["id"])


def test_a_subsample_larger_than_the_data_is_the_data(data):
    assert fingerprint(data.subsample(9999)["train"]) == fingerprint(data["train"])


def test_a_subsample_of_nothing_says_so(data):
    with pytest.raises(ConfigError, match="n must be a whole number of at least 1, got 0"):
        data.subsample(0)


def test_half_of_a_split_takes_the_place_of_the_calibration_rows(data):
    changed = data.calibrated_on("validation", seed=3)
    halves = [set(changed[name]["id"]) for name in ("calibration", "validation")]
    assert not halves[0] & halves[1]
    assert halves[0] | halves[1] == set(data["validation"]["id"])
    assert abs(len(halves[0]) - len(halves[1])) <= 1
    assert changed["train"].to_dict() == data["train"].to_dict()
    again = data.calibrated_on("validation", seed=3)
    assert again["calibration"]["id"] == changed["calibration"]["id"]
    for split in ("train", "calibration"):
        with pytest.raises(DataError, match="not trained on, got .*: try validation"):
            data.calibrated_on(split)


def test_fingerprint_knows_rows_and_not_their_order(data):
    rows = data["validation"]
    assert fingerprint(rows) == fingerprint(rows.shuffle(seed=1))
    assert fingerprint(rows) == fingerprint(rows.select(list(range(49, -1, -1))))
    assert fingerprint(rows) == fingerprint(rows.remove_columns("id"))
    assert fingerprint(rows.take(10)) == fingerprint(Dataset.from_list(rows.take(10).to_list()))
    assert fingerprint(rows) == fingerprint(rows.with_format("numpy"))


@pytest.mark.parametrize(
    "change",
    [
        {"text": ["a", "b"], "label": [0, 0]},
        {"text": ["a", "c"], "label": [0, 1]},
        {"text": ["a", "b", "b"], "label": [0, 1, 1]},
        {"text": ["a", "b"], "text_pair": ["", ""], "label": [0, 1]},
        {"text": ["a", "b"]},
    ],
)
def test_fingerprint_sees_every_change(change):
    base = Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]})
    assert fingerprint(base) != fingerprint(Dataset.from_dict(change))


@given(st.lists(st.tuples(st.text(max_size=3), st.integers(0, 2)), max_size=6), st.randoms())
def test_fingerprint_of_any_order(rows, random):
    mixed = random.sample(rows, len(rows))
    first, second = (
        Dataset.from_dict({"text": [text for text, _ in order], "label": [label for _, label in order]})
        for order in (rows, mixed)
    )
    assert fingerprint(first) == fingerprint(second)


def test_overlap_counts_different_shared_rows():
    first = Dataset.from_dict({"text": ["a", "a", "b", "c"], "text_pair": ["x", "x", "y", "z"]})
    second = Dataset.from_dict(
        {"text": ["a", "b", "c"], "text_pair": ["x", "other", "z"], "label": [0, 1, 1]}
    )
    assert overlap(first, second) == 2
    assert overlap(first, first) == 3
    assert overlap(first, Dataset.from_dict({"text": ["a"]})) == 0
