"""Each task's files in tiny, as the standard download has them."""

import os
from pathlib import Path

import pytest

from offramp._core.errors import DataError
from offramp.data import GLUE, load_data, overlap
from offramp.data.glue import default_folder, read_glue

N = 20


def write(path: Path, header: str | None, rows: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*([header] if header else []), *rows]) + "\n", encoding="utf-8")


def single(split: str) -> list[str]:
    return [f"{split} film {i}\t{i % 2}" for i in range(N)]


def pairs(split: str, labels: tuple[str, ...]) -> list[str]:
    return [f"{i}\t{split} one {i}\t{split} two {i}\t{labels[i % len(labels)]}" for i in range(N)]


def mnli(split: str) -> list[str]:
    labels = ("neutral", "entailment", "contradiction")
    middle = "\t".join("x" for _ in range(7))
    return [f"{i}\t{middle}\t{split} one {i}\t{split} two {i}\t{'-'}\t{labels[i % 3]}" for i in range(N)]


MNLI_HEADER = (
    "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse\t"
    "sentence2_parse\tsentence1\tsentence2\tlabel1\tgold_label"
)
ENTAILMENT = ("entailment", "not_entailment")
MAKE = {
    "cola": (None, lambda split: [f"gj04\t{i % 2}\t\t{split} sentence {i}" for i in range(N)]),
    "sst2": ("sentence\tlabel", single),
    "mrpc": (
        "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String",
        lambda split: [f'{i % 2}\t1\t2\t{split} " one {i}\t{split} two " {i}' for i in range(N)],
    ),
    "qqp": (
        "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate",
        lambda split: [f"1\t2\t3\t{split} one {i}?\t{split} two {i}?\t{i % 2}" for i in range(N)],
    ),
    "stsb": (
        "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore",
        lambda split: [
            f"{i}\tg\tf\ty\to\ts\ts\t{split} one {i}\t{split} two {i}\t{i % 6:.3f}" for i in range(N)
        ],
    ),
    "mnli": (MNLI_HEADER, mnli),
    "qnli": ("index\tquestion\tsentence\tlabel", lambda split: pairs(split, ENTAILMENT)),
    "rte": ("index\tsentence1\tsentence2\tlabel", lambda split: pairs(split, ENTAILMENT)),
    "wnli": ("index\tsentence1\tsentence2\tlabel", lambda split: pairs(split, ("0", "1"))),
}


def make_task(root: Path, task: str, folder: str | None = None) -> Path:
    """A folder as the standard download has it."""
    header, rows = MAKE[task]
    path = root / (folder or GLUE[task].folder)
    write(path / "train.tsv", header, rows("train"))
    if task == "mnli":
        write(path / "dev_matched.tsv", header, rows("matched"))
        write(path / "dev_mismatched.tsv", header, rows("mismatched"))
    else:
        write(path / "dev.tsv", header, rows("dev"))
    write(path / "test.tsv", "index\tsentence", ["0\tunlabelled"])
    return path


@pytest.mark.parametrize("task", list(GLUE))
@pytest.mark.parametrize("found_by", ["folder", "task", "content", "name", "root"])
def test_every_task_however_it_is_named(task, found_by, tmp_path, monkeypatch):
    monkeypatch.setenv("OFFRAMP_GLUE", str(tmp_path))
    folder = make_task(tmp_path, task, "mine" if found_by in ("task", "content") else None)
    data = {
        "folder": lambda: load_data(folder),
        "task": lambda: load_data(folder, task=task),
        "content": lambda: load_data(folder),
        "name": lambda: load_data(task),
        "root": lambda: load_data(tmp_path, task=task.upper()),
    }[found_by]()
    assert data.name == task
    assert (data.labels, data.metrics, data.kind) == (GLUE[task].labels, GLUE[task].metrics, GLUE[task].kind)
    assert data.pair == (task not in ("cola", "sst2"))
    validation = data["validation"]
    split = "matched" if task == "mnli" else "dev"
    assert list(validation["id"]) == list(range(N))
    assert validation["text"][3].startswith(split)
    assert "3" in validation["text"][3]
    if data.pair:
        assert validation["text_pair"][3].startswith(f"{split} two")
    expected = {
        "stsb": [0.0, 1.0, 2.0, 3.0, 4.0, 5.0],
        "mnli": [1, 0, 2, 1, 0, 2],
        "cola": [0, 1, 0, 1, 0, 1],
    }
    assert list(validation["label"])[:6] == expected.get(task, [0, 1, 0, 1, 0, 1])
    assert len(data["train"]) + len(data["calibration"]) == N
    assert "test" not in data  # no labels there
    assert ("validation_mismatched" in data) == (task == "mnli")


def test_quotes_and_odd_line_separators_are_text(tmp_path):
    rows = [*single("train"), 'he said "no\t1', '"\t0', "line\u2028and\x85page\x0c\t1"]
    write(tmp_path / "SST-2" / "train.tsv", "sentence\tlabel", rows)
    write(tmp_path / "SST-2" / "dev.tsv", "sentence\tlabel", single("dev"))
    data = load_data(tmp_path / "SST-2")
    found = {*data["train"]["text"], *data["calibration"]["text"]}
    assert {'he said "no', '"', "line\u2028and\x85page\x0c"} <= found


def test_windows_line_ends(tmp_path):
    folder = make_task(tmp_path, "cola")  # the text is the last column
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert load_data(folder)["validation"]["text"][0] == "dev sentence 0"


def test_names_ignore_case_and_hyphens(tmp_path, monkeypatch):
    make_task(tmp_path / "glue", "stsb", "sts-b")
    monkeypatch.delenv("OFFRAMP_GLUE", raising=False)
    monkeypatch.chdir(tmp_path)  # ./glue
    assert load_data("STS-B").kind == "regression"


def test_labelled_mrpc_test_file_is_the_test_split(tmp_path):
    folder = make_task(tmp_path, "mrpc")
    write(folder / "msr_paraphrase_test.txt", MAKE["mrpc"][0], MAKE["mrpc"][1]("test"))
    assert len(load_data(folder)["test"]) == N


def test_labelled_test_file_is_used(tmp_path):
    folder = make_task(tmp_path, "sst2")
    write(folder / "test.tsv", "sentence\tlabel", single("test"))
    assert load_data(folder)["test"]["text"][0] == "test film 0"


def test_dev_alone_is_split_with_a_fixed_seed(tmp_path):
    write(
        tmp_path / "QNLI" / "dev.tsv",
        "index\tquestion\tsentence\tlabel",
        [f"{i}\tq {i}\ts {i}\t{ENTAILMENT[i % 2]}" for i in range(100)],
    )
    data = load_data(tmp_path / "QNLI")
    assert {split: len(rows) for split, rows in data.items()} == {
        "train": 80,
        "calibration": 10,
        "validation": 10,
    }
    assert list(data["validation"]["id"]) == list(load_data(tmp_path / "QNLI")["validation"]["id"])


def test_broken_lines_are_skipped_and_counted(tmp_path, caplog):
    rows = [f"1\t2\t3\tone {i}?\ttwo {i}?\t{i % 2}" for i in range(300)]
    write(tmp_path / "QQP" / "train.tsv", MAKE["qqp"][0], [*rows[:100], "half a line", *rows[100:], "1\t2"])
    data = load_data(tmp_path / "QQP")
    assert "2 lines with too few columns skipped" in caplog.text
    assert sum(map(len, data.values())) == 300
    assert max(i for split in data.values() for i in split["id"]) == 300  # numbers still count all lines


def test_many_broken_lines_are_another_layout(tmp_path):
    write(tmp_path / "QQP" / "train.tsv", MAKE["qqp"][0], ["1\t2\t3\ta\tb\t0", "x", "y", "z"])
    with pytest.raises(DataError, match=r"3 of 4 lines have fewer columns than qqp needs"):
        load_data(tmp_path / "QQP")


def test_wrong_task_names_the_missing_column(tmp_path):
    with pytest.raises(DataError, match=r"train\.tsv: no column 'question1'\. Columns: 'sentence', 'label'"):
        load_data(make_task(tmp_path, "sst2"), task="qqp")


def test_unknown_task_names_the_near_miss(tmp_path):
    with pytest.raises(DataError, match=r"unknown GLUE task 'qnly'\. Did you mean 'qnli'\?"):
        load_data(make_task(tmp_path, "sst2"), task="qnly")


def test_unknown_label(tmp_path):
    folder = make_task(tmp_path, "rte")
    write(folder / "dev.tsv", MAKE["rte"][0], pairs("dev", (*ENTAILMENT, "not_entailed")))
    expected = r"dev\.tsv: unknown label 'not_entailed'\. Did you mean 'not_entailment'\?"
    with pytest.raises(DataError, match=expected):
        load_data(folder)


def test_class_outside_the_range(tmp_path):
    folder = make_task(tmp_path, "sst2")
    write(folder / "train.tsv", "sentence\tlabel", [*single("train"), "odd\t7"])
    with pytest.raises(DataError, match=r"unknown label '7'\..* Known: 0, 1, negative, positive"):
        load_data(folder)


def test_score_outside_the_range(tmp_path):
    folder = make_task(tmp_path, "stsb")
    write(folder / "dev.tsv", MAKE["stsb"][0], ["0\tg\tf\ty\to\ts\ts\ta\tb\t5.5"])
    with pytest.raises(DataError, match=r"label 5\.5 is outside the range 0 … 5"):
        load_data(folder)


def test_kind_that_is_not_the_tasks(tmp_path):
    with pytest.raises(DataError, match="sst2 is a classification task, but kind='regression'"):
        load_data(make_task(tmp_path, "sst2"), kind="regression")


def test_folder_of_tasks_asks_which(tmp_path):
    make_task(tmp_path, "sst2")
    make_task(tmp_path, "rte")
    with pytest.raises(
        DataError, match=r"is a folder of tasks: choose one with task=…, or give one of RTE, SST-2"
    ):
        load_data(tmp_path)


def test_folder_without_its_files(tmp_path, monkeypatch):
    monkeypatch.setenv("OFFRAMP_GLUE", str(tmp_path))
    write(tmp_path / "SST-2" / "test.tsv", "index\tsentence", ["0\tunlabelled"])
    with pytest.raises(DataError, match=r"SST-2: expected train\.tsv or dev\.tsv, got test\.tsv"):
        load_data("sst2")


def test_empty_file_and_header_only(tmp_path):
    folder = make_task(tmp_path, "sst2")
    (folder / "train.tsv").write_text("")
    with pytest.raises(DataError, match=r"train\.tsv is empty"):
        load_data(folder)
    (folder / "train.tsv").write_text("sentence\tlabel\n")
    with pytest.raises(DataError, match=r"train\.tsv has no rows below its header"):
        load_data(folder)


def test_fixed_columns_cannot_be_chosen(tmp_path, monkeypatch):
    monkeypatch.setenv("OFFRAMP_GLUE", str(tmp_path))
    with pytest.raises(DataError, match="'sst2' has fixed columns and labels"):
        load_data("sst2", text="sentence")


def test_own_folder_with_dev_file_and_other_labels_is_no_glue_task(tmp_path):
    rows = [f"text {i}\t{'abc'[i % 3]}" for i in range(30)]
    for name in ("train", "dev"):
        write(tmp_path / "mine" / f"{name}.tsv", "sentence\tlabel", [f"{name} {row}" for row in rows])
    data = load_data(tmp_path / "mine")
    assert data.labels == ("a", "b", "c")
    assert len(data["validation"]) == 30


ROWS = {
    "sst2": (67_349, 872),
    "cola": (8_551, 1_043),
    "mrpc": (3_667, 408),
    "rte": (2_490, 277),
    "stsb": (5_749, 1_500),
    "qnli": (5_463,),
}


@pytest.mark.slow
@pytest.mark.skipif(
    not os.environ.get("OFFRAMP_GLUE"), reason="OFFRAMP_GLUE names no folder with the real files"
)
@pytest.mark.parametrize("task", list(ROWS))
def test_rows_of_the_real_files(task, caplog):
    folder = default_folder(task)
    if folder is None:
        pytest.skip(f"no folder for {task}")
    source = read_glue(folder, task)
    assert source is not None
    sizes = [len(rows.text) for split, rows in source.splits.items() if split != "test"]
    assert tuple(sizes) == ROWS[task]
    data = load_data(task)
    assert all(overlap(data["train"], rows) == 0 for split, rows in data.items() if split != "train")
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
