"""Every path of a user is read by one function: home folders expanded, all else literal, nonsense refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offramp._core.errors import ConfigError
from offramp._core.paths import user_path


class AnyPath:
    """A path object of another library."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __fspath__(self) -> Any:
        return self.value


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


@pytest.mark.parametrize("path_type", [str, Path, AnyPath])
@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("~", "{home}"),
        ("~/runs/x", "{home}/runs/x"),
        ("runs/../x", "runs/../x"),
        ("a b/ü/日本", "a b/ü/日本"),
        ("$HOME/x", "$HOME/x"),
        ("C:", "C:"),
    ],
)
def test_home_folders_are_expanded_and_all_else_is_literal(
    path_type: Any, given: str, meant: str, home: Path
) -> None:
    assert user_path(path_type(given)) == Path(meant.format(home=home))


def test_a_name_that_starts_with_a_tilde(home: Path) -> None:
    here = Path.cwd()
    assert user_path("./~x") == here / "~x"
    assert user_path(user_path("./~/x")) == here / "~" / "x"
    with pytest.raises(ConfigError, match=r"no user has that name: write \./~no one/x"):
        user_path("~no one/x")
    (here / "~backup.csv").touch()
    assert user_path("~backup.csv") == here / "~backup.csv"


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0:"), min_size=1, max_size=20))
def test_reading_a_path_again_changes_nothing(text: str) -> None:
    try:
        path = user_path(text)
    except ConfigError:
        return
    assert user_path(path) == user_path(str(path)) == path


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("", "expected the model, got an empty text: write '.' for the working folder"),
        ("  ", "an empty text"),
        ("a\0b", "the model holds a NUL character"),
        (b"runs", r"expected the model as text or pathlib.Path, got b'runs' \(bytes\)"),
        (AnyPath(b"runs"), r"\(AnyPath\)"),
        (None, r"got None \(NoneType\)"),
        (3, r"got 3 \(int\)"),
        (["runs"], r"\(list\)"),
        ("file:///data/x", "got the URL file:///data/x: give the path of a file or folder, such as /data/x"),
        ("https://host/a/b/", r"such as \./b$"),
        ("s3://bucket/b", "this machine"),
        ("n" * 300, r"cannot look up the model .* \(File name too long\): give another path"),
    ],
)
def test_what_is_no_path_is_refused(value: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        user_path(value, "the model")


def test_links_are_followed_and_loops_refused() -> None:
    Path("real").mkdir()
    os.symlink("real", "link")
    assert user_path("link") == Path("link")
    os.symlink("loop", "loop")
    with pytest.raises(ConfigError, match="Too many levels of symbolic links"):
        user_path("loop")
