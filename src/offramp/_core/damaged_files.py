"""What a file is that cannot be read: a pointer, a web page, the first half of a download."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

HEAD = 512  # bytes that show what a file is
WEB_PAGE = (b"<!doctype html", b"<html")
ARCHIVES = {b"PK\x03\x04": "a zip archive", b"\x1f\x8b": "a gzip archive", b"BZh": "a bzip2 archive"}
ZIPPED = (".npz", ".bin", ".pt", ".pth")  # formats that are zip files themselves
FORMATS = {b"GGUF": "a GGUF model", b"\x89HDF": "an HDF5 file", b"\x80": "a pickle"}
END = {".json": (b"}", b"]"), ".parquet": (b"PAR1",)}  # the last bytes of a complete file


def file_problem(path: Path, error: Exception | None = None) -> str:
    """What is wrong with a file, as a predicate for a message: "is empty", "is cut off: …".

    Args:
        path: the file.
        error: raised by its reader; its first sentence serves where the file itself shows nothing.

    Returns:
        The problem; "" without an error if the file shows none.
    """
    try:
        size = path.stat().st_size
        if path.is_dir():
            return "is a folder, not a file"
        with path.open("rb") as file:
            head = file.read(HEAD)
            file.seek(max(size - HEAD, 0))
            tail = file.read().rstrip(b" \t\r\n\0")
    except FileNotFoundError:
        return "links to a file that is not there" if path.is_symlink() else "does not exist"
    except OSError as denied:
        return f"cannot be opened ({denied.strerror})"
    problem = _foreign(head, path.suffix) or _cut_off(path, head, tail, size)
    return problem or (
        "" if error is None else f"cannot be read ({type(error).__name__}: {first_sentence(error)})"
    )


def first_sentence(error: BaseException) -> str:
    """The first sentence of an error's text, on one line and without terminal colours; else the error's type."""
    text = " ".join(re.sub(r"\x1b\[[\d;]*m|\[\d+m", "", str(error)).split())
    return re.split(r"(?<=[^\W\d_]{2}[.!?]) (?=[A-Z(])", text)[0].rstrip(".") or type(error).__name__


def _foreign(head: bytes, suffix: str) -> str:
    """The problem of a file whose first bytes belong to another format."""
    if not head:
        return "is empty"
    if head.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the file itself ('git lfs pull' in its folder fetches it)"
    if head.lstrip().lower().startswith(WEB_PAGE):
        return "is a web page, not the file itself (its download failed)"
    # The first eight bytes of a safetensors file are a number, and may be those of any other format.
    if suffix not in ZIPPED and not (suffix == ".safetensors" and head[8:9] == b"{"):
        for start, name in ARCHIVES.items():
            if head.startswith(start):
                return f"is {name} (unpack it)"
        for start, name in FORMATS.items():
            if head.startswith(start) and suffix in (".safetensors", ".json", ".onnx"):
                return f"is {name} under another name"
    return ""


def _cut_off(path: Path, head: bytes, tail: bytes, size: int) -> str:
    """The problem of a file whose end is missing."""
    suffix = path.suffix
    if suffix == ".safetensors":
        return _cut_safetensors(path, head, size)
    if suffix in ZIPPED and head.startswith(b"PK") and b"PK\x05\x06" not in tail:
        return "is cut off: the end of the archive is missing"
    if suffix in END and head[:1] in b"{[P" and not tail.endswith(END[suffix]):
        return "is cut off: its end is missing"
    return ""


def safetensors_header(path: Path) -> dict[str, dict[str, Any]]:
    """Type, shape and bytes of each tensor in a safetensors file, without reading them; `ValueError` for none."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        content = file.read(min(size, path.stat().st_size))
    entries = json.loads(content)
    return {name: entry for name, entry in entries.items() if name != "__metadata__"}


def _cut_safetensors(path: Path, head: bytes, size: int) -> str:
    """The problem of a safetensors file that is shorter than its header says."""
    if head[8:9] != b"{":
        return "is no safetensors file, or its header is cut off"
    needed = 8 + int.from_bytes(head[:8], "little")
    if size >= needed:
        try:
            needed += max(
                (entry["data_offsets"][1] for entry in safetensors_header(path).values()), default=0
            )
        except (ValueError, KeyError, TypeError):
            return "has a damaged header"
    return f"is cut off: {size:,} of at least {needed:,} bytes are there" if size < needed else ""
