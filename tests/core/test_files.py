"""Where a result goes is tried before the work; a failed write names its real cause."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from offramp._core.errors import OfframpError
from offramp._core.files import atomic_write, check_writable, write_failure


@pytest.mark.parametrize("target", ["here", "not/yet/there", ".", "a/../b", "link", "ü ñ"])
@pytest.mark.parametrize("file", [False, True])
def test_a_trial_leaves_nothing_behind(
    target: str, file: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("here").mkdir()
    os.symlink("here", "link")
    check_writable(Path(target, "policy.json") if file else Path(target), file=file)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["here", "link"]


@pytest.mark.parametrize(
    ("target", "file", "message"),
    [
        ("file", False, r"\(Not a directory\): a file stands where a folder is needed"),
        ("file/x", False, r"\(Not a directory\): a file stands where a folder is needed"),
        ("file/x.json", True, r"\(Not a directory\)"),
        ("folder", True, r"\(Is a directory\): a folder of that name exists: choose another name"),
        ("dangling/x", False, r"\(No such file or directory\): its folder is missing, or a link to nothing"),
        ("new/" + "n" * 300, False, r"\(File name too long\): choose a shorter name"),
        (os.devnull, True, "cannot write"),  # replacing a device would delete it
    ],
)
def test_what_cannot_be_written_is_refused_with_the_cause(
    target: str, file: bool, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("folder").mkdir()
    os.symlink("gone/away", "dangling")
    with pytest.raises(OfframpError, match=message):
        check_writable(Path(target), file=file)
    if file:
        with pytest.raises(OfframpError, match="cannot write"), atomic_write(target):
            pass
    assert sorted(os.listdir()) == ["dangling", "file", "folder"]


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (OSError(errno.ENOSPC, "full"), "No space left on device): free some space"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "free some space"),
        (PermissionError(errno.EACCES, "no"), "Permission denied): choose a folder you may write to"),
        (OSError(errno.EROFS, "no"), "choose a folder you may write to"),
        (OSError(errno.ENOLCK, "no"), "choose a folder on a local disk"),
        (OSError(errno.EIO, "no"), "choose another folder"),
        (
            RuntimeError("[enforce fail at inline_container.cc:672]"),
            "inline_container.cc:672]): free some space",
        ),
        (ValueError(), "(ValueError)"),
    ],
)
def test_the_cause_decides_the_remedy(error: Exception, remedy: str) -> None:
    message = str(write_failure("runs/x", error))
    assert message.startswith("cannot write runs/x (")
    assert remedy in message


def test_a_link_is_written_through(tmp_path: Path) -> None:
    (tmp_path / "real.json").write_text("old")
    os.symlink("real.json", tmp_path / "link.json")
    with atomic_write(tmp_path / "link.json") as draft:
        draft.write_text("new")
    assert (tmp_path / "link.json").is_symlink()
    assert (tmp_path / "real.json").read_text() == "new"
