"""One run, one record: the command, its options, the results and the machine, as one JSON file.

Tables and figures are made from records alone. A record names no host, no user and no absolute path.
"""

from __future__ import annotations

import json
import os
import platform
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from offramp._core import environment
from offramp._core.errors import DataError
from offramp._core.files import atomic_write
from offramp._core.paths import UserPath, user_path
from offramp._core.to_json import command_without_folders, to_json

RECORD = "offramp-run"  # marks our files among a run folder's other JSON
SCHEMA = 1
FILE_NAME = "record.json"


@dataclass(frozen=True)
class RunRecord:
    """The content of a record, as plain JSON values.

    Attributes:
        command: the command, as a user would type it.
        config: every option of the run.
        metrics: results by name.
        seed: the run's seed.
        tables: results with rows, by name: a list of dicts, or a dict of columns.
        started: UTC start in ISO 8601.
        seconds: wall time from `started` to the writing of the record, in seconds.
        versions: of Python, offramp, torch, transformers, numpy and onnxruntime, as far as installed.
        git: commit of the checkout that offramp runs from, and `dirty`; None for an installed copy.
        hardware: CPU model, usable cores, RAM in GiB, GPU if one was used.
        platform: operating system, kernel and C library.
    """

    command: str
    config: dict[str, Any]
    metrics: dict[str, Any]
    seed: int
    tables: dict[str, Any]
    started: str
    seconds: float
    versions: dict[str, str]
    git: dict[str, Any] | None
    hardware: dict[str, Any]
    platform: str
    record: str = RECORD
    schema: int = SCHEMA


def write_record(
    folder_or_path: UserPath,
    *,
    command: str,
    config: Mapping[str, Any],
    metrics: Mapping[str, Any],
    seed: int,
    tables: Mapping[str, Any] | None = None,
    started: datetime | None = None,
) -> Path:
    """Write the record of a run that has just ended, and return its path.

    Args:
        folder_or_path: the run's folder, which then holds `record.json`, or a path that ends in `.json`.
        command, config, metrics, seed, tables: see `RunRecord`; values may be numpy's, paths, dataclasses.
        started: `datetime.now(UTC)` from before the run; None for a run that took no time.

    Raises:
        OfframpError: the file cannot be written.
    """
    now = datetime.now(UTC)
    start = (started or now).astimezone(UTC)
    record = RunRecord(
        command=command_without_folders(command),
        config=cast(dict[str, Any], to_json(config)),
        metrics=cast(dict[str, Any], to_json(metrics)),
        seed=int(seed),
        tables=cast(dict[str, Any], to_json(tables or {})),
        started=start.isoformat(timespec="seconds"),
        seconds=round((now - start).total_seconds(), 3),
        versions=environment.versions(),
        git=environment.git_state(),
        hardware=environment.hardware(),
        platform=platform.platform(),  # without the host's name
    )
    path = user_path(folder_or_path)
    path = path if path.suffix == ".json" else path / FILE_NAME
    write_text(path, json.dumps(asdict(record), indent=2, allow_nan=False) + "\n")
    return path


def write_text(path: UserPath, text: str) -> None:
    """Write a complete file or none, and make a missing folder; raises the errors of `atomic_write`."""
    with atomic_write(path) as draft, open(draft, "x", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def read_record(path: UserPath) -> dict[str, Any]:
    """One record; `DataError` if the file is missing, not JSON, or not a record of this version."""
    path = user_path(path)
    content = _read_json(path)
    if not _is_record(content):
        raise DataError(
            f"{path} is JSON, but not a run record of offramp: give a file that an offramp command wrote"
        )
    return check_record(content, path)


def read_records(root: UserPath, pattern: str = "*.json") -> list[dict[str, Any]]:
    """Every record below a folder in order of the paths, each with its `path` relative to `root`.

    Other JSON files are ignored. A warning names each file that cannot be read, with the reason.

    Args:
        root: a folder, searched at any depth, or one record.
        pattern: of the files to read.

    Raises:
        DataError: `root` does not exist.
    """
    root = user_path(root)
    if not root.exists():
        raise DataError(f"no records at {root}: it does not exist; give the folder that holds the runs")
    if root.is_file():
        return [{**read_record(root), "path": root.name}]
    records, broken = [], []
    for path in sorted(root.rglob(pattern)):
        try:
            content = _read_json(path)
            if _is_record(content):
                records.append({**check_record(content, path), "path": path.relative_to(root).as_posix()})
        except DataError as error:
            broken.append(str(error))
    if broken:
        warnings.warn(f"left out {len(broken)} unreadable file(s): " + "; ".join(broken), stacklevel=2)
    return records


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"no record at {path}: give a file that an offramp command wrote") from error
    except OSError as error:
        raise DataError(f"cannot read {path} ({error.strerror or error}): check its permissions") from error
    except (ValueError, RecursionError) as error:  # not JSON, or not UTF-8
        raise DataError(f"{path} is not valid JSON ({error}): delete it and run its command again") from error


def _is_record(content: Any) -> bool:
    return isinstance(content, dict) and content.get("record") == RECORD


def check_record(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """The content of a record file; `DataError` if this version cannot read it."""
    if content.get("schema") != SCHEMA:
        raise DataError(
            f"{path} has record schema {content.get('schema')!r}, this offramp reads {SCHEMA}: "
            "read it with the version that wrote it"
        )
    missing = sorted(set(RunRecord.__dataclass_fields__) - set(content))
    if missing:
        raise DataError(f"{path} lacks {', '.join(missing)}: delete it and run its command again")
    for name in ("config", "metrics", "tables"):
        if not isinstance(content[name], dict):
            raise DataError(
                f"{path}: expected {name} by name, got {type(content[name]).__name__}: run its command again"
            )
    return content
