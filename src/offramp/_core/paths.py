"""Every path that a user gives, on the command line, in a file or in Python, is read here, once."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from typing import TypeAlias

from offramp._core.errors import ConfigError

UserPath: TypeAlias = str | os.PathLike[str]

URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # one letter would be a Windows drive
ABSENT = (errno.ENOENT, errno.ENOTDIR)


def user_path(value: object, name: str = "the path") -> Path:
    """The path that a user means: `~` and `~user` are home folders, all else is taken literally.

    A file or folder whose name starts with `~` is `./~name`; the result is then absolute, so that nothing that reads
    it again takes the name for a home folder.

    Args:
        value: text or any path object; it need not exist.
        name: of the option, for messages.

    Raises:
        ConfigError: not a path, empty, a URL, an unknown user, or a path that the system cannot look up.
    """
    text = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(text, str):
        raise ConfigError(
            f"expected {name} as text or pathlib.Path, got {value!r:.80} ({type(value).__name__}): write it as text"
        )
    if not text.strip():
        raise ConfigError(f"expected {name}, got an empty text: write '.' for the working folder")
    if "\0" in text:
        raise ConfigError(f"{name} holds a NUL character ({text!r:.80}), which no file name may: remove it")
    if URL.match(text):
        raise ConfigError(
            f"expected {name} on this machine, got the URL {text}: give the path of a file or folder, such as "
            f"{'/' + text[5:].lstrip('/') if text.startswith('file:') else './' + text.rstrip('/').rpartition('/')[2]}"
        )
    path = _from_home(text, name)
    try:
        path.stat()
    except OSError as error:
        if error.errno not in ABSENT:
            raise ConfigError(
                f"cannot look up {name} {str(path)!r:.200} ({error.strerror}): give another path"
            ) from error
    return path


def _from_home(text: str, name: str) -> Path:
    """The path with a leading `~` or `~user` replaced."""
    path = Path(text)
    if not path.parts or not path.parts[0].startswith("~"):
        return path
    literal = Path.cwd() / path
    if not text.startswith("~"):  # ./~name: pathlib drops the `./`
        return literal
    try:
        return path.expanduser()
    except RuntimeError as error:
        if literal.exists():
            return literal
        raise ConfigError(
            f"{name} {text} starts with ~ and no user has that name: write ./{text} for a file or folder of that name"
        ) from error
