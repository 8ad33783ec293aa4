"""Atomic writes, and the names and folders of files that several rooms use."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from offramp._core.errors import OfframpError


def cache_dir() -> Path:
    """The folder of downloads, which may not exist yet: $OFFRAMP_CACHE, or `offramp` in the user's cache folder."""
    if chosen := os.environ.get("OFFRAMP_CACHE"):
        return Path(chosen).expanduser().absolute()
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


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """A draft to write to, which replaces a file at the end of the block: the file is complete or absent.

    A missing folder is made.

    Raises:
        OfframpError: the folder or file cannot be written, or the disk is full.
    """
    path = Path(path)
    draft = path.with_name(f".{path.name}.{os.urandom(4).hex()}.tmp")  # os.replace is atomic in one folder
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield draft
        os.replace(draft, path)
    except OSError as error:
        raise OfframpError(
            f"cannot write {path} ({error.strerror or error}): "
            "free some space, or choose a folder you may write to"
        ) from error
    finally:
        with suppress(OSError):  # its folder may be a file: the error above says so
            draft.unlink(missing_ok=True)
