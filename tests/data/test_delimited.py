"""CSV and TSV in every dialect: the rows exactly, or an error that gives the line."""

import csv
import io
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from offramp._core.errors import DataError
from offramp.data import load_data
from offramp.data.files import read_file

BODY = [(f"text {i}", ("bad", "good")[i % 2]) for i in range(40)]
LINES = [f"{text},{label}" for text, label in BODY]


def read(folder: Path, content: str, suffix: str = ".csv") -> list[tuple[str, str]]:
    path = folder / f"a{suffix}"
    path.write_bytes(content.encode())
    columns = read_file(path).columns
    return list(zip(columns["text"], columns["label"], strict=True))


texts = st.one_of(
    st.text(alphabet="ab ,;\t|\"\\\n\r'#=", max_size=6), st.text(alphabet='a,"\\\n', max_size=6)
)
styles = st.fixed_dictionaries(
    {
        "delimiter": st.sampled_from(",;\t|"),
        "quoting": st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC, csv.QUOTE_NONE]),
        "doublequote": st.booleans(),
        "escapechar": st.sampled_from([None, "\\"]),
        "lineterminator": st.sampled_from(["\n", "\r\n", "\r"]),
    }
)


@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(texts, st.sampled_from(["bad", "good"])), min_size=1, max_size=5),
    style=styles,
    suffix=st.sampled_from([".csv", ".tsv"]),
    label_first=st.booleans(),
)
def test_the_rows_exactly_or_an_error(tmp_path, rows, style, suffix, label_first):
    stream = io.StringIO(newline="")
    order = -1 if label_first else 1
    try:
        csv.writer(stream, **style).writerows(row[::order] for row in [("text", "label"), *rows])
    except csv.Error:
        assume(False)  # the dialect cannot hold these rows
    try:
        result = read(tmp_path, stream.getvalue(), suffix)
    except DataError:
        return
    assert result == rows


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".CSV"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_file_shows_its_delimiter(delimiter, suffix, tmp_path):
    content = "\n".join(delimiter.join(row) for row in [("text", "label"), *BODY])
    assert read(tmp_path, content, suffix) == BODY


@pytest.mark.parametrize(
    "content",
    [
        "sep=;\ntext;label\n" + "\n".join(LINES).replace(",", ";"),
        '"sep=^"\r\ntext^label\r\n' + "\r\n".join(LINES).replace(",", "^"),
        "text,label,,\n" + ",,\n".join(LINES) + ",,",
        "text,label\n" + ",\n".join(LINES) + ",",
        "text,label,\n" + "\n".join(LINES),
        '\ufeff"text","label"\n\n \n' + "\n\n".join(LINES) + "\n\n",
        "text,label\r" + "\r".join(LINES),
    ],
    ids=["sep=;", "sep=^", "empty columns", "empty values", "empty name", "blank lines", "CR"],
)
def test_what_spreadsheets_add_is_no_row(content, tmp_path):
    assert read(tmp_path, content) == BODY


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (r'"he said \"no\", twice",bad', 'he said "no", twice'),
        (r'"it ends in \"",bad', 'it ends in "'),
        (r"first\, second,bad", "first, second"),
        (r'"C:\films\",bad', "C:\\films\\"),
        (r'"a ""b"" \n",bad', r'a "b" \n'),
        (r"¯\_(ツ)_/¯,bad", r"¯\_(ツ)_/¯"),
        ('5" pipe,bad', '5" pipe'),
        ('"two\nlines, one text",bad', "two\nlines, one text"),
        ("a\u2028b\x0c\x85,bad", "a\u2028b\x0c\x85"),
        ('"' + "long, " * 50_000 + '",bad', "long, " * 50_000),
        ("# a hashtag,bad", "# a hashtag"),
        ("# a rating,4.75", "# a rating"),
    ],
)
def test_one_text_in_its_quoting(line, text, tmp_path):
    before = csv.field_size_limit()
    (first, label), *others = read(tmp_path, "\n".join(["text,label", line, *LINES]))
    assert (first, label, others) == (text, line.rpartition(",")[2], BODY)
    assert csv.field_size_limit() == before


BACKSLASH = (
    "the backslash may be text or an escape. Give load_data the table itself, as pandas.read_csv reads it"
)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([r"C:\\films,bad"], f"line 2: {BACKSLASH}"),
        ([r'"C:\films say \"hi\"",bad'], "line 2: a quote is not closed, or stands inside a quoted value"),
        (['"open,bad'], "line 2: a quote is not closed"),
        (['"open,bad', 'shut",good'], "line 2: the quotes may be text, or enclose a value of several lines"),
        ([*LINES, '"cut, off'], "line 42: a quote is not closed"),
        (["a, b,bad"], r"line 2: expected 2 values, for 'text', 'label', got 3\. Look for a quote"),
        (["", "a"], "line 3: expected 2 values, for 'text', 'label', got 1"),
        (["a,bad,", "b,bad"], "line 3: expected 2 values, for 'text', 'label', got 2, unlike other rows"),
        (["a,bad", "# a comment"], r"got 1\. Remove the lines that are comments"),
        (
            [*LINES, "# from here, by hand"],
            "line 42: expected a row, got '# from here', which looks like a comment",
        ),
        (["a,bad", "# from here, by hand", "# b,bad"], "line 3: expected a row, got '# from here'"),
        (["a,bad", " text,label"], "line 3: the header is there once more: remove it"),
        (["a,bad\r"], "line 2: another line end than before: save the file with one kind of line ends"),
        (["a\\", ",bad", "\rb,bad"], "line 2: the file has several kinds of line ends"),
    ],
)
def test_what_is_not_sure_is_refused_with_its_line(lines, message, tmp_path):
    with pytest.raises(DataError, match=message) as caught:
        read(tmp_path, "\n".join(["text,label", *lines]))
    assert "\n" not in str(caught.value)


def test_the_ways_out_work(tmp_path):
    pandas = pytest.importorskip("pandas")
    path = tmp_path / "a.csv"
    path.write_text("text,label\nC:\\\\films,bad\n" + "\n".join(LINES))
    data = load_data(pandas.read_csv(path, escapechar="\\"))
    assert "C:\\films" in {text for rows in data.values() for text in rows["text"]}
    two = [f"{text};{i},{label};x" for i, (text, label) in enumerate(BODY)]
    path.write_text("\n".join(["text;n,label;x", *two]))
    with pytest.raises(DataError, match="comma and semicolon are possible: add the line sep=, at the top"):
        read_file(path)
    path.write_text("\n".join(["sep=,", "text;n,label;x", *two]))
    assert list(read_file(path).columns) == ["text;n", "label;x"]


def test_a_file_without_a_header(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("sep=;\n")
    with pytest.raises(DataError, match="line 2: expected a line of column names, got the end of the file"):
        load_data(path)
    expected = "If these are values or a comment, begin the file with a line of column names"
    for first in ("", "# a comment\n", "# a comment, by hand\n"):
        path.write_text(first + "\n".join(LINES))
        with pytest.raises(DataError, match=rf"{expected}|line 2: .*Remove the lines that are comments"):
            load_data(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x1f\x8b\x08", "the file is compressed with gzip: decompress it first"),
        (b"PK\x03\x04", "the file is a zip archive or an Excel workbook"),
        (
            b"version https://git-lfs.github.com/spec/v1\n",
            "a Git LFS pointer, not the data: run 'git lfs pull'",
        ),
        (
            "text,label\na,b\n".encode("utf-16-le"),
            r"a zero byte .*it looks like UTF-16.*save the file as UTF-8",
        ),
    ],
)
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_another_file_under_this_name(content, message, suffix, tmp_path):
    (tmp_path / f"a{suffix}").write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_data(tmp_path / f"a{suffix}")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["0,5", "1,5", "2"], "labels such as '[01],5' have a decimal comma: write a point"),
        (["0.5", "n/a", "1"], "expected names or numbers as labels, got 'n/a' beside '0.5'"),
        (["Good", "good", "bad"], "the labels 'Good' and 'good' differ in case only"),
    ],
)
def test_labels_that_are_not_clear(labels, message, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text;label\n" + "".join(f"text {i};{labels[i % 3]}\n" for i in range(40)))
    with pytest.raises(DataError, match=message):
        load_data(path)
    if labels[0] != "Good":
        assert set(load_data(path, kind="classification").labels) == set(labels)


def test_columns_that_differ_in_case(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text,Label,label\n" + "".join(f"{line},x{i % 3}\n" for i, line in enumerate(LINES)))
    with pytest.raises(
        DataError, match="the columns 'Label', 'label' differ in case or spaces only: rename one"
    ):
        load_data(path)
    assert load_data(path, text="text", label="Label").labels == ("bad", "good")
