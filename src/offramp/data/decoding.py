"""A text file's content: UTF-8, with or without a byte order mark. Other files are named for what they are."""

from __future__ import annotations

from pathlib import Path

from offramp._core.errors import DataError

_SIGNATURES = {
    b"\x1f\x8b": "compressed with gzip: decompress it first",
    b"BZh": "compressed with bzip2: decompress it first",
    b"\xfd7zXZ\x00": "compressed with xz: decompress it first",
    b"\x28\xb5\x2f\xfd": "compressed with zstd: decompress it first",
    b"PK\x03\x04": "a zip archive or an Excel workbook: unpack it, or save the sheet as CSV",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook: save the sheet as CSV",
    b"PAR1": "a Parquet file: name it .parquet",
    b"ARROW1": "an Arrow file: name it .arrow",
    b"version https://git-lfs": "a Git LFS pointer, not the data: run 'git lfs pull'",
}


def read_bytes(path: Path) -> bytes:
    """A file's bytes; `DataError` if it cannot be read, or if it is a file of another type under this name."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    for start, description in _SIGNATURES.items():
        if data.startswith(start):
            raise DataError(f"{path}: expected text, but the file is {description}")
    return data


def read_text(path: Path) -> str:
    """A text file's content; `DataError` if it is empty or not UTF-8."""
    data = read_bytes(path)
    utf16 = data[:2] in (b"\xff\xfe", b"\xfe\xff") or data.count(0) > len(data) // 4
    hint = " (it looks like UTF-16)" if utf16 else ""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}: expected UTF-8, got the byte 0x{data[error.start]:02x} in line {line}{hint}; "
            "save the file as UTF-8"
        ) from error
    if not text.strip():
        raise DataError(f"{path} is empty; give a file with at least a few examples")
    if utf16:
        raise DataError(f"{path}: expected UTF-8, got a zero byte in every few{hint}; save the file as UTF-8")
    return text


def tab_separated(path: Path) -> list[list[str]]:
    """All lines, split at tabs. Only line feeds end a line, since texts contain other separators."""
    lines = [line.removesuffix("\r").split("\t") for line in read_text(path).split("\n")]
    return [line for line in lines if line != [""]]
