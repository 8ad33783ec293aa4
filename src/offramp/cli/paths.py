"""The paths that commands take, and the folders that they write to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from cyclopts import CoercionError, Parameter, Token

from offramp._core.errors import ConfigError
from offramp._core.files import check_writable
from offramp._core.paths import user_path
from offramp._core.records import FILE_NAME, read_record
from offramp._core.run_folder import RunFolder


def read_path(hint: Any, tokens: Sequence[Token]) -> Path:
    """A path as `user_path` reads it: no shell expands the `~` of `--output=~/x`, nor one in a YAML file."""
    try:
        return user_path(tokens[0].value)
    except ConfigError as error:
        raise CoercionError(msg=str(error), token=tokens[0]) from error


PathOption = Annotated[Path, Parameter(converter=read_path)]


def results_folder(model: Path, name: str, output: Path | None = None) -> Path:
    """The folder of a command's results: the requested one, else one inside the model's folder.

    Raises:
        ConfigError: there is no such model folder, which trying the target would make.
    """
    if output is not None:
        return output
    if not model.is_dir():
        raise ConfigError(
            f"no model at {model}: no such folder; give the one that 'offramp train' wrote, or for a hub id the "
            "folder of the results with --output"
        )
    return model / name


@contextmanager
def writing(folder: Path, command: str = "") -> Iterator[None]:
    """Be the one process that writes a command's results to a folder, which is tried before the command works.

    Args:
        folder: made if it is missing.
        command: the command as its record names it, if it writes one to the folder.

    Raises:
        ConfigError: the folder holds the record of another command.
        OfframpError: the folder cannot be written, or another process writes to it.
    """
    check_writable(folder)
    record = folder / FILE_NAME
    if command and record.exists() and (before := read_record(record)["command"]) != command:
        raise ConfigError(f"{folder} holds the record of 'offramp {before}': give another folder")
    with RunFolder(folder, "run", mark="").lock():
        yield
