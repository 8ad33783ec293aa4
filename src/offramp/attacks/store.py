"""An attack's folder: finished groups as small files, so that a stopped attack resumes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from offramp._core.damaged_files import file_problem
from offramp._core.errors import ConfigError, DataError
from offramp._core.paths import UserPath, user_path
from offramp._core.run_folder import RunFolder
from offramp._core.to_json import to_json
from offramp.attacks.options import Options, from_record
from offramp.attacks.result import AttackResult, schema, write_parquet, write_result

MANIFEST, GROUPS, RESULT = "manifest.json", "parts", "attack.parquet"
CHUNK = 1024  # rows sorted at once
LATER = ("labels", "limits", "max_length", "surrogate_length")  # absent in manifests of earlier versions
LATER_OPTIONS = ("masked_lm",)  # likewise, among the options of the recipe


@dataclass(frozen=True)
class AttackFolder(RunFolder):
    """The folder of an attack."""

    kind: str = "attack"
    mark: str = "recipe"
    own: tuple[str, ...] = (GROUPS, RESULT, "robustness.parquet")  # the command line writes the last one
    leftovers: tuple[str, ...] = (GROUPS,)
    settings_file: str = MANIFEST
    lock_file: str = ".attack.lock"  # a trial that attacks holds the folder's other lock

    def stored_settings(self) -> dict[str, Any] | None:
        """The manifest, with the options that earlier versions did not have."""
        stored = super().stored_settings()
        if stored is None or "options" not in stored:
            return stored
        later = {name: getattr(Options(), name) for name in LATER_OPTIONS}
        return {**stored, "options": {**later, **stored["options"]}}

    def refuse_other(self, stored: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        """See `RunFolder`; the message has the options' own names, not those of records."""
        named = ({**s, "options": from_record(s.get("options") or {})} for s in (stored, settings))
        super().refuse_other(*named)


def free_folder(output_dir: UserPath | None) -> Path | None:
    """The folder of an attack, which is tried before any work; raises the errors of `RunFolder.check_free`."""
    if output_dir is None:
        return None
    folder = user_path(output_dir, "output_dir")
    AttackFolder(folder).check_free()
    return folder


class Store:
    """The rows of finished groups; see `open_store`.

    Attributes:
        done: ids of the finished examples, and the file that holds each.
    """

    def __init__(self, folder: Path | None, manifest: dict[str, Any]) -> None:
        self.folder, self.manifest = folder, manifest
        self.done: dict[int, Path | None] = {}
        self._rows: dict[int, dict[str, Any]] = {}  # where there is no folder

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Keep the rows of a finished group in a file (complete or absent), or in memory."""
        path = None
        if self.folder is None:
            self._rows |= {row["id"]: dict(row) for row in rows}
        else:
            path = self.folder / GROUPS / f"{rows[0]['id']}.parquet"
            write_parquet(pa.Table.from_pylist(list(rows), schema(self.manifest["kind"])), path)
        self.done |= {row["id"]: path for row in rows}

    def finish(self, order: Sequence[int], metadata: Mapping[str, Any]) -> AttackResult:
        """The result in the order of the ids; in a folder it replaces the files of the groups."""
        described = {**self.manifest, **cast(dict[str, Any], to_json(metadata))}
        if self.folder is None:
            return AttackResult.of([self._rows[id] for id in order], described)
        if not (self.folder / RESULT).exists():  # otherwise it was finished before
            write_result(
                self._in_order(order), schema(self.manifest["kind"]), described, self.folder / RESULT
            )
        shutil.rmtree(self.folder / GROUPS)
        return AttackResult.load(self.folder / RESULT)

    def _in_order(self, order: Sequence[int]) -> Iterator[pa.Table]:
        for start in range(0, len(order), CHUNK):
            ids = order[start : start + CHUNK]
            paths = dict.fromkeys(self.done[id] for id in ids)
            rows = {row["id"]: row for path in paths for row in pq.read_table(path).to_pylist()}
            yield pa.Table.from_pylist([rows[id] for id in ids], schema(self.manifest["kind"]))


@contextmanager
def open_store(folder: Path | None, manifest: Mapping[str, Any], *, resume: bool) -> Iterator[Store]:
    """Open the folder of an attack. Until the end of the block, no other process writes to it.

    Args:
        folder: made if it is missing; None keeps everything in memory.
        manifest: all settings of the result: recipe, seed, options, policy, and fingerprints of weights and data.
        resume: continue what the folder holds.

    Raises:
        ConfigError: the folder holds another attack, or finished rows while `resume` is False.
        DataError: a file in the folder cannot be read.
        FolderInUseError: another process writes to the folder.
    """
    store = Store(folder, cast(dict[str, Any], to_json(manifest)))
    if folder is None:
        yield store
        return
    with AttackFolder(folder).claim(store.manifest, later=LATER):
        (folder / GROUPS).mkdir(exist_ok=True)
        for path in (*(folder / GROUPS).glob("*.parquet"), *folder.glob(RESULT)):
            store.done |= dict.fromkeys(_ids(path), path)
        if store.done and not resume:
            raise ConfigError(
                f"{folder} holds {len(store.done)} finished examples of this attack: resume it with "
                "resume=True (--resume), or give another folder"
            )
        yield store


def _ids(path: Path) -> list[int]:
    try:
        return pq.read_table(path, columns=["id"])["id"].to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            f"{path} {file_problem(path, error)}: delete that file to attack its examples again"
        ) from error
