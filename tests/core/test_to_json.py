"""What goes into a record: plain JSON, and no folder of this machine."""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass
from datetime import UTC, date, datetime
from fractions import Fraction
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offramp._core.to_json import command_without_folders, to_json


class Colour(enum.Enum):
    RED = np.float32(0.5)


@dataclass
class Options:
    lr: float
    folder: Path


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float32(0.5), 0.5),
        (np.float64("nan"), None),
        (float("inf"), "inf"),
        (np.float16("-inf"), "-inf"),
        (np.int64(2**40), 2**40),
        (np.bool_(True), True),
        (True, True),
        (None, None),
        (np.array([[1.0, np.nan], [np.inf, 2.0]]), [[1.0, None], ["inf", 2.0]]),
        (np.array(3), 3),
        (np.array(["a", "b"]), ["a", "b"]),
        ((1, (2, [3])), [1, [2, [3]]]),
        ({3, 1, 2}, [1, 2, 3]),
        ({1: "a", 0.5: "b", None: "c"}, {"1": "a", "0.5": "b", "None": "c"}),
        ({np.int64(4): np.int8(2)}, {"4": 2}),
        (range(3), [0, 1, 2]),
        (Fraction(1, 4), 0.25),
        (Colour.RED, 0.5),
        (Options(1e-4, Path("runs/a")), {"lr": 1e-4, "folder": "runs/a"}),
        (date(2025, 1, 2), "2025-01-02"),
        (datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC), "2025-01-02T03:04:05+00:00"),
        (np.datetime64("2025-01-02"), "2025-01-02"),
        (b"bytes", "<builtins.bytes>"),
        (Options, f"<{__name__}.Options>"),
        (object(), "<builtins.object>"),
        (1 + 2j, "<builtins.complex>"),
    ],
)
def test_values(value: Any, expected: Any) -> None:
    found = to_json(value)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/home/jane/data/sst2", "sst2"),
        ("/home/jane/data/sst2/", "sst2"),
        ("/tmp", "tmp"),
        ("//server/share/file", "file"),
        ("~/data", "data"),
        ("~jane/data", "data"),
        ("../secret/data", "data"),
        ("..\\secret\\data", "data"),
        ("C:\\Users\\Jane Doe\\x.csv", "x.csv"),
        ("/home/jane doe/my data", "my data"),
        ("C:\\Users\\Jane\\x.csv", "x.csv"),
        ("D:/data/x.csv", "x.csv"),
        ("\\\\server\\share\\x.csv", "x.csv"),
        ("file:///home/jane/x.csv", "x.csv"),
        ("no file at /home/jane/x.csv, sorry", "no file at x.csv, sorry"),
        ("out=/home/jane/x", "out=x"),
        ("host:/home/jane/x", "host:x"),
        ("['/home/jane/x', \"/opt/y/z\"]", "['x', \"z\"]"),
        # none of these is a path of this machine
        ("https://example.org/a/b.html", "https://example.org/a/b.html"),
        ("runs/sst2-sweet", "runs/sst2-sweet"),
        ("minilm-l6", "minilm-l6"),
        ("</s>", "</s>"),
        ("[/INST] and/or 1/2", "[/INST] and/or 1/2"),
        ("/ but daphne , you 're too buff / fred", "/ but daphne , you 're too buff / fred"),
        ("speed / cost", "speed / cost"),
        ("about ~5/6 of it", "about ~5/6 of it"),
        ("...", "..."),
        ("", ""),
        ("\ud800 lone surrogate", "\ud800 lone surrogate"),
    ],
)
def test_texts(text: str, expected: str) -> None:
    assert to_json(text) == expected
    assert to_json({"key": [text]}) == {"key": [expected]}
    assert to_json({text: 1}) == {expected: 1}


def test_paths_inside_the_working_folder_are_relative_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    here = Path.cwd()
    assert to_json(here / "runs" / "a") == "runs/a"
    assert to_json(str(here / "runs" / "a")) == "runs/a"
    assert to_json(f"see {here}/runs/a") == "see runs/a"
    assert to_json(here) == "."
    assert to_json(Path("runs/../runs/a")) == "runs/a"
    assert to_json(here.parent / "other") == "other"
    assert to_json(Path("../other")) == "other"
    assert to_json(PurePosixPath("/x/y")) == "y"
    assert to_json(PureWindowsPath("C:\\x\\y")) == "y"


def test_a_home_with_blanks_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/jane doe")
    monkeypatch.setenv("USERPROFILE", "/home/jane doe")
    assert to_json("no file at /home/jane doe/data/x.csv") == "no file at x.csv"


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("offramp train --lr 1e-4 --output runs/a", "offramp train --lr 1e-4 --output runs/a"),
        ("/usr/bin/offramp train --data=/home/jane/d", "offramp train --data=d"),
        ("offramp train --data '/home/jane doe/d e'", "offramp train --data 'd e'"),
        ("offramp train --output /data", "offramp train --output data"),
        ("offramp 'open /home/jane/x", "offramp 'open x"),
    ],
)
def test_commands(command: str, expected: str) -> None:
    assert command_without_folders(command) == expected


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.floats(width=32).map(np.float32)
    | st.binary()
    | st.builds(Path, st.sampled_from(["/a/b", "c", "../d"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.integers() | st.floats(), inner, max_size=4)
        | st.lists(st.floats(), max_size=4).map(np.array)
    ),
    max_leaves=20,
)


@settings(deadline=None, max_examples=150)
@given(values)
def test_anything_becomes_json_and_stays_as_it_is(value: Any) -> None:
    found = to_json(value)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert to_json(found) == found


@settings(deadline=None, max_examples=150)
@given(
    st.text("ab ,=:('\""),
    st.lists(st.text("xyz-_1", min_size=1, max_size=4), min_size=1, max_size=3),
    st.text(" ,'\")", max_size=3),
)
def test_no_secret_folder_gets_through(before: str, parts: list[str], after: str) -> None:
    for root in ("/secret", "C:\\secret", "~secret", "file:///secret", "../secret"):
        separator = "\\" if "\\" in root else "/"
        text = f"{before} {separator.join([root, *parts])}{after}"
        assert "secret" not in str(to_json(text)), text
