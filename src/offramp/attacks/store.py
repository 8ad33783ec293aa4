"""An attack's folder: finished groups as small files, so that a run that was stopped goes on where it was."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from offramp._core.errors import ConfigError, DataError
from offramp._core.records import write_text
from offramp._core.to_json import to_json
from offramp.attacks.options import Options
from offramp.attacks.result import AttackResult, schema, write_parquet, write_result

MANIFEST, PARTS, RESULT = "manifest.json", "parts", "attack.parquet"
CHUNK = 1024  # rows put in order at once
RECORDED = ("record.json", "robustness.parquet")  # what the command line writes beside the result
LATER = (
    "labels",
    "limits",
    "max_length",
    "surrogate_length",
)  # what manifests of earlier versions do not tell
LATER_OPTIONS = ("masked_lm",)  # likewise, of the recipe


class Store:
    """Where finished rows go: into a folder, group by group, or into memory where none is given.

    Args:
        folder: the attack's folder, made where missing; None keeps everything in memory.
        manifest: all that decides the result: recipe, seed, options, policy, and fingerprints of weights
            and data.
        resume: go on with what the folder holds.

    Raises:
        ConfigError: the folder holds another attack, or finished rows while `resume` is False.
        DataError: the folder's manifest cannot be read.

    Attributes:
        done: ids of the finished examples, and the file that holds each.
    """

    def __init__(self, folder: Path | None, manifest: Mapping[str, Any], *, resume: bool) -> None:
        self.folder, self.manifest = folder, _as_json(manifest)
        self.done: dict[int, Path | None] = {}
        self._rows: dict[int, dict[str, Any]] = {}  # where there is no folder
        if folder is None:
            return
        if (folder / MANIFEST).exists():
            self._compare(_read_manifest(folder / MANIFEST))
            (folder / PARTS).mkdir(exist_ok=True)
            self._load()
            if self.done and not resume:
                raise ConfigError(
                    f"{folder} holds {len(self.done)} finished examples of this attack: go on with "
                    "resume=True (--resume), or give another folder"
                )
        else:
            _refuse_foreign(folder, (PARTS,))  # an empty folder of parts is left by a run killed at once
            (folder / PARTS).mkdir(parents=True, exist_ok=True)
            write_text(folder / MANIFEST, json.dumps(self.manifest, indent=2) + "\n")

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Keep the rows of a finished group; on disk they are there whole or not at all, and no longer in memory."""
        path = None
        if self.folder is None:
            self._rows |= {row["id"]: dict(row) for row in rows}
        else:
            path = self.folder / PARTS / f"{rows[0]['id']}.parquet"
            write_parquet(pa.Table.from_pylist(list(rows), schema(self.manifest["kind"])), path)
        self.done |= {row["id"]: path for row in rows}

    def finish(self, order: Sequence[int], metadata: Mapping[str, Any]) -> AttackResult:
        """The result in the order of the ids; in a folder it replaces the parts."""
        described = {**self.manifest, **_as_json(metadata)}
        if self.folder is None:
            return AttackResult.of([self._rows[id] for id in order], described)
        if not (self.folder / RESULT).exists():  # else it was finished before
            write_result(
                self._in_order(order), schema(self.manifest["kind"]), described, self.folder / RESULT
            )
        shutil.rmtree(self.folder / PARTS)
        return AttackResult.load(self.folder / RESULT)

    def _in_order(self, order: Sequence[int]) -> Iterator[pa.Table]:
        """The rows in order, some at a time."""
        for start in range(0, len(order), CHUNK):
            ids = order[start : start + CHUNK]
            paths = dict.fromkeys(self.done[id] for id in ids)
            rows = {row["id"]: row for path in paths for row in pq.read_table(path).to_pylist()}
            yield pa.Table.from_pylist([rows[id] for id in ids], schema(self.manifest["kind"]))

    def _load(self) -> None:
        assert self.folder is not None
        for path in (*(self.folder / PARTS).glob("*.parquet"), *self.folder.glob(RESULT)):
            try:
                ids = pq.read_table(path, columns=["id"])["id"].to_pylist()
            except (OSError, pa.ArrowException) as error:
                raise DataError(
                    f"{path} cannot be read ({' '.join(str(error).split())[:120]}): delete that file, and its "
                    "examples are attacked again"
                ) from error
            self.done |= dict.fromkeys(ids, path)

    def _compare(self, stored: Mapping[str, Any]) -> None:
        now = self.manifest
        if "options" in stored:
            earlier = {name: getattr(Options(), name) for name in LATER_OPTIONS}
            stored = {**stored, "options": {**earlier, **stored["options"]}}
        other = [key for key in now if now[key] != stored.get(key, now[key] if key in LATER else None)]
        if other:
            raise ConfigError(
                f"{self.folder} holds another attack ({', '.join(_changed(stored, now, other))}): give another "
                "folder, or delete that one"
            )


def _refuse_foreign(folder: Path, ours: Sequence[str]) -> None:
    """Raise `ConfigError` where a folder holds anything but `ours`: nothing there is to be lost."""
    held = [p.name for p in folder.iterdir() if not p.name.startswith(".")] if folder.is_dir() else []
    if foreign := sorted(set(held) - set(ours)):
        raise ConfigError(
            f"{folder} holds something else than an attack ({', '.join(foreign[:5])}): give a folder of its own"
        )


def discard(folder: Path) -> None:
    """Throw away the attack in a folder; `ConfigError` where that holds anything else."""
    known = (folder / MANIFEST).exists()
    _refuse_foreign(folder, (*RECORDED, RESULT, MANIFEST, PARTS) if known else (PARTS,))
    if known:
        shutil.rmtree(folder / PARTS, ignore_errors=True)
        for name in (*RECORDED, RESULT, MANIFEST):
            (folder / name).unlink(missing_ok=True)


def _as_json(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content as a JSON file would give it back."""
    described = to_json(content)
    assert isinstance(described, dict)
    return dict(described)


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}): delete the folder and attack again") from error
    if not isinstance(content, dict) or "recipe" not in content:
        raise ConfigError(f"{path} is of no attack: give a folder of its own")
    return content


def _changed(stored: Mapping[str, Any], now: Mapping[str, Any], keys: Sequence[str]) -> list[str]:
    """What differs, inside nested options too: `rounds 5 there, 2 here`."""
    found = []
    for key in keys:
        before, after = stored.get(key), now[key]
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            found += _changed(before, after, [k for k in after if before.get(k) != after[k]])
        else:
            found.append(f"{key} {before!r:.40} there, {after!r:.40} here")
    return found
