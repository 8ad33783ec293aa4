"""Atomic writes, and the names and folders of files that several rooms use."""

from __future__ import annotations

import errno
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from offramp._core.errors import OfframpError
from offramp._core.paths import UserPath, user_path


def cache_dir() -> Path:
    """The folder of downloads, which may not exist yet: $OFFRAMP_CACHE, or `offramp` in the user's cache folder."""
    if chosen := os.environ.get("OFFRAMP_CACHE"):
        return user_path(chosen, "$OFFRAMP_CACHE").absolute()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "offramp"


def policy_file(criterion: str) -> str:
    """Name of the file beside a model that holds its policy for an exit criterion."""
    return f"policy-{criterion}.json"


REMEDIES = {
    "free some space, or choose a folder on another disk": ("ENOSPC", "EDQUOT", "EFBIG"),
    "choose a folder you may write to": ("EACCES", "EPERM", "EROFS"),
    "choose a shorter name": ("ENAMETOOLONG",),
    "a folder of that name exists: choose another name for the file": ("EISDIR",),
    "a file stands where a folder is needed: choose another folder": ("ENOTDIR", "EEXIST"),
    "its folder is missing, or a link to nothing: choose another folder": ("ENOENT",),
    "choose a folder on a local disk": ("ENOLCK", "ENOSYS", "ENOTSUP", "EOPNOTSUPP", "ESTALE"),
}


def write_failure(path: UserPath, error: Exception) -> OfframpError:
    """The error for a file or folder that cannot be written: the cause as the system names it, and what to do."""
    number = getattr(error, "errno", None)
    # The libraries that write weights pass on the system's text alone.
    reason = os.strerror(number) if number else " ".join(str(error).split()) or type(error).__name__
    for remedy, names in REMEDIES.items():
        numbers = [getattr(errno, name) for name in names if hasattr(errno, name)]
        if number in numbers or (number is None and any(os.strerror(n) in reason for n in numbers)):
            return OfframpError(f"cannot write {path} ({reason:.200}): {remedy}")
    remedy = (
        "choose another folder" if number else "free some space, or choose another folder"
    )  # torch names no cause
    return OfframpError(f"cannot write {path} ({reason:.200}): {remedy}")


def check_writable(target: Path, *, file: bool = False) -> None:
    """Try to write where a result will go, before the work for it; nothing is left there.

    Args:
        target: the folder that will hold the result, which may not exist yet.
        file: `target` is the result itself, a file.

    Raises:
        OfframpError: a later write would fail.
    """
    folder = target.parent if file else target
    existing = next((path for path in (folder, *folder.parents) if os.path.lexists(path)), folder)
    try:
        if file:
            _refuse_special(target)
        with tempfile.TemporaryDirectory(prefix=".", suffix=".tmp", dir=existing) as scratch:
            trial = scratch / folder.relative_to(existing)
            trial.mkdir(parents=True, exist_ok=True)
            (trial / "trial").write_bytes(bytes(4096))  # a full disk still has room for names
    except OSError as error:
        raise write_failure(target, error) from error


def _refuse_special(path: Path) -> None:
    """Raise `OSError` for a folder or a device: replacing a device would delete it."""
    if path.exists() and not path.is_file():
        number = errno.EISDIR if path.is_dir() else errno.EPERM
        raise OSError(number, os.strerror(number))


@contextmanager
def atomic_write(path: UserPath) -> Iterator[Path]:
    """A draft to write to, which replaces a file at the end of the block: the file is complete or absent.

    A missing folder is made. A link is followed.

    Raises:
        OfframpError: the folder or file cannot be written, or the disk is full.
    """
    path = user_path(path)
    target = path.resolve()
    draft = target.with_name(f".{os.urandom(8).hex()}.tmp")  # os.replace is atomic in one folder
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _refuse_special(target)
        yield draft
        os.replace(draft, target)
    except OSError as error:
        raise write_failure(path, error) from error
    finally:
        with suppress(OSError):  # its folder may be a file: the error above says so
            draft.unlink(missing_ok=True)
