import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from offramp._core.errors import DataError
from offramp._core.seeding import generator
from offramp.data.splits import arrange, row_codes, stratified_order


def table(texts, labels, pairs=None, groups=None):
    texts = list(texts)
    columns = {"id": range(len(texts)), "text": texts, "text_pair": pairs, "label": labels, "group": groups}
    return pa.table({name: list(values) for name, values in columns.items() if values is not None})


def texts(split):
    return split["text"].to_pylist()


def cut(splits, **options):
    return arrange(splits, name="toy", stratify=options.pop("stratify", True), **options)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=200), st.integers(0, 3))
def test_every_prefix_keeps_the_shares_of_the_classes(labels, seed):
    labels = np.array(labels)
    order = stratified_order(len(labels), labels, generator(seed))
    assert sorted(order) == list(range(len(labels)))
    classes, totals = np.unique(labels, return_counts=True)
    for n in range(1, len(labels) + 1):
        counts = np.array([(labels[order[:n]] == c).sum() for c in classes])
        assert np.abs(counts - n * totals / len(labels)).max() <= len(classes)
        assert (counts > 0).sum() == min(n, len(classes)) or n > len(classes)


def test_every_class_comes_before_any_second_row():
    labels = np.array([0] * 97 + [1, 2, 3])
    order = stratified_order(100, labels, generator(0))
    assert set(labels[order[:4]]) == {0, 1, 2, 3}


def test_rows_that_come_last_come_last_in_their_class():
    labels = np.array([0, 0, 0, 1, 1, 1])
    order = list(stratified_order(6, labels, generator(0), last=np.array([1, 0, 0, 0, 0, 1], dtype=bool)))
    assert order.index(0) > max(order.index(1), order.index(2))
    assert order.index(5) > max(order.index(3), order.index(4))


def test_row_codes_tell_text_and_pair_apart():
    first = table(["a", "a b", "a"], [0, 0, 0], ["b c", "c", "b c"])
    second = table(["a", "a"], [1, 1], ["b c", "c"])
    mine, theirs = row_codes([first, second])
    assert mine[0] == mine[2] == theirs[0]
    assert len({mine[0], mine[1], theirs[1]}) == 3
    crossed = row_codes([table(["a", "a", "b"], [0, 0, 0], ["x", "y", "x"])])[0]
    assert len(set(crossed)) == 3


def test_default_sizes_are_a_tenth_of_the_rows_at_most_1000():
    small = cut({"train": table(map(str, range(300)), [0, 1] * 150)})
    assert {name: len(rows) for name, rows in small.items()} == {
        "train": 240,
        "calibration": 30,
        "validation": 30,
    }
    large = cut({"train": table(map(str, range(12_000)), [0, 1] * 6000)})
    assert [len(rows) for rows in large.values()] == [10_000, 1000, 1000]


def test_classes_keep_their_shares_and_a_rare_class_gets_one():
    labels = [0] * 800 + [1] * 190 + [2] * 8 + [3] * 2
    splits = cut({"train": table(map(str, range(1000)), labels)})
    for split in ("calibration", "validation"):
        counts = np.bincount(splits[split]["label"].to_numpy(), minlength=4)
        assert counts[0] in range(76, 83)
        assert counts[1] in range(17, 21)
        assert counts[2] >= 1
    assert set(splits["train"]["label"].to_pylist()) == {0, 1, 2, 3}
    assert 3 in splits["validation"]["label"].to_pylist()  # two rows: one is cut, one is trained on


def test_a_class_with_one_row_is_trained_on():
    splits = cut({"train": table(map(str, range(41)), [0, 1] * 20 + [2])})
    assert 2 in splits["train"]["label"].to_pylist()


def test_seed_decides_and_nothing_else():
    source = {"train": table(map(str, range(200)), [0, 1] * 100)}
    assert texts(cut(source, seed=1)["calibration"]) == texts(cut(source, seed=1)["calibration"])
    assert texts(cut(source, seed=1)["calibration"]) != texts(cut(source, seed=2)["calibration"])


def test_validation_stays_the_same_whatever_is_cut_for_calibration():
    source = {"train": table(map(str, range(200)), [0, 1] * 100)}
    small, large = (cut(source, calibration_size=size) for size in (10, 60))
    assert texts(small["validation"]) == texts(large["validation"])
    assert (len(small["calibration"]), len(large["calibration"])) == (10, 60)


def test_official_splits_are_kept_whole_and_train_gives_way(caplog):
    caplog.set_level("INFO")
    train = table([*map(str, range(100)), "v", "t"], [0, 1] * 51)
    held = {"validation": table(["v", "w"], [0, 1]), "test": table(["t", "w"], [0, 1])}
    splits = cut({"train": train, **held})
    assert texts(splits["validation"]) == ["v", "w"]
    assert texts(splits["test"]) == ["t", "w"]
    assert {"v", "t"}.isdisjoint(texts(splits["train"]) + texts(splits["calibration"]))
    assert "toy: train: 2 rows dropped" in caplog.text


def test_given_calibration_gives_way_to_validation_and_train_to_calibration():
    splits = cut(
        {
            "train": table(["a", "b", "c", "d"], [0, 1, 0, 1]),
            "calibration": table(["c", "v"], [0, 1]),
            "validation": table(["v", "d"], [0, 1]),
        }
    )
    assert texts(splits["train"]) == ["a", "b"]
    assert texts(splits["calibration"]) == ["c"]


def test_same_text_with_another_pair_is_another_row():
    splits = cut(
        {
            "train": table(["a"] * 20, [0, 1] * 10, [f"p{i}" for i in range(20)]),
            "validation": table(["a"], [0], ["p3"]),
        }
    )
    assert len(splits["train"]) + len(splits["calibration"]) == 19


@given(st.lists(st.tuples(st.sampled_from("abcdefghijkl"), st.integers(0, 1)), min_size=30, max_size=80))
def test_no_row_ever_stands_in_two_splits(rows):
    try:
        splits = cut({"train": table([text for text, _ in rows], [label for _, label in rows])})
    except DataError:
        return  # too few different rows
    sets = [set(texts(split)) for split in splits.values()]
    assert len(set.union(*sets)) == sum(map(len, sets))
    assert all(sets)


def test_copies_are_not_cut_while_there_are_others():
    rows = [*map(str, range(60)), *(f"twin {i // 2}" for i in range(40))]
    for seed in range(3):
        splits = cut({"train": table(rows, [0] * 30 + [1] * 30 + [0, 0, 1, 1] * 10)}, seed=seed)
        assert len([text for text in texts(splits["train"]) if text.startswith("twin")]) == 40
        assert [len(split) for split in splits.values()] == [80, 10, 10]


def test_groups_never_part():
    pages = [f"page{i // 7}" for i in range(700)]
    splits = cut({"train": table(map(str, range(700)), [0, 1] * 350, groups=pages)})
    sets = [set(split["group"].to_pylist()) for split in splits.values()]
    assert sum(map(len, sets)) == 100
    assert len(splits["validation"]) == 70


def test_validation_alone_is_split_up():
    splits = cut({"validation": table(map(str, range(100)), [0, 1] * 50)})
    assert [len(split) for split in splits.values()] == [80, 10, 10]


def test_regression_is_cut_without_classes():
    splits = cut({"train": table(map(str, range(100)), np.linspace(0, 5, 100))}, stratify=False)
    assert [len(split) for split in splits.values()] == [80, 10, 10]


def test_a_cut_leaves_some_of_each_class_or_says_why_not():
    source = {"train": table(map(str, range(102)), [0] * 100 + [1] * 2), "validation": table(["v"], [0])}
    splits = cut(source, calibration_size=100)
    assert sorted(splits["train"]["label"].to_pylist()) == [0, 1]
    with pytest.raises(DataError, match="toy: calibration: cannot cut 101 of 102 rows"):
        cut(source, calibration_size=101)


@pytest.mark.parametrize(("rows", "size"), [(2, None), (10, 10), (10, 9)])
def test_too_few_rows_say_so(rows, size):
    with pytest.raises(DataError, match=r"toy: (validation|calibration): cannot cut .* a file of its own"):
        cut({"train": table(map(str, range(rows)), [0, 1] * (rows // 2))}, calibration_size=size)


def test_train_that_is_the_validation_file_says_so():
    same = table(["a", "b"], [0, 1])
    with pytest.raises(DataError, match="toy: train: each of its 2 rows is also in another split"):
        cut({"train": same, "validation": same})
