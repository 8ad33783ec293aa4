"""Turn any value into plain JSON without the folders of this machine."""

from __future__ import annotations

import math
import numbers
import os
import re
import shlex
from collections.abc import Mapping, Sequence, Set
from dataclasses import fields, is_dataclass
from datetime import date
from enum import Enum
from pathlib import Path, PurePath, PureWindowsPath
from typing import Any

import numpy as np

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]

ROOTED = r"file:/+|~(?:[A-Za-z_][\w.-]*)?[/\\]|[A-Za-z]:[/\\]|\.\.[/\\]|\\\\(?=[^\s\\])"
WHOLE = re.compile(rf"(?:{ROOTED}|/+(?=[^\s/]+(?:/|$)))")
# Inside a sentence, one leading slash ("</s>", "/s") and the slashes of a URL are not a path.
INSIDE = re.compile(
    rf"(?<![^\s='\":,(\[])(?:{ROOTED}|(?<!:)/+(?=[^\s/]+/)|(?<=:)/(?=[^\s/]+/))[^\s'\",;()\[\]]*"
)


def to_json(value: Any) -> Json:
    """Turn numbers (numpy's too), text, paths, dates, enums, dataclasses and their containers into JSON's own types.

    NaN becomes None; infinities become `"inf"` and `"-inf"`, which `float()` reads. An unknown value becomes the name
    of its type, since a record at the end of a run must not fail.
    """
    if isinstance(value, np.ndarray | np.generic):
        return to_json(value.tolist())
    if isinstance(value, Mapping):
        return {
            without_folders(key) if isinstance(key, str) else str(to_json(key)): to_json(content)
            for key, content in value.items()
        }
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_json(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Set):
        return [to_json(item) for item in sorted(value, key=repr)]
    if isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray):
        return [to_json(item) for item in value]
    if isinstance(value, Enum):
        return to_json(value.value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        number = float(value)
        return None if math.isnan(number) else number if math.isfinite(number) else str(number)
    if isinstance(value, str):
        return without_folders(value)
    if isinstance(value, PurePath):
        return _shorten(str(value))
    if isinstance(value, date):
        return value.isoformat()
    kind = type(value) if not isinstance(value, type) else value
    return f"<{kind.__module__}.{kind.__qualname__}>"


def without_folders(text: str) -> str:
    """The text with its absolute paths made relative to the working folder, or cut to the last name."""
    home = os.path.expanduser("~")
    if len(home) > 1:  # "/" for some system users
        text = text.replace(home, "~")
    if WHOLE.match(text):
        return _shorten(text)
    return INSIDE.sub(lambda match: _shorten(match.group()), text)


def command_without_folders(command: str) -> str:
    """A command line with its paths shortened as in `without_folders`."""
    try:
        words = shlex.split(command)
    except ValueError:  # an open quote: no shell command
        return without_folders(command)
    return shlex.join("=".join(without_folders(piece) for piece in word.split("=")) for word in words)


def _shorten(path: str) -> str:
    """A path inside the working folder made relative to it; of another path the last name."""
    path = re.sub(r"^file:/+", "/", path)
    full = os.path.expanduser(path)
    foreign = full.startswith("~") or (os.name != "nt" and ("\\" in full or PureWindowsPath(full).drive))
    if not foreign and Path(os.path.abspath(full)).is_relative_to(Path.cwd()):
        return Path(os.path.relpath(full)).as_posix()
    return PureWindowsPath(path).name or "."
