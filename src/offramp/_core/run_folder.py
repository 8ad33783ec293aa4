"""The folder of a run: one writer at a time, one set of settings, resumed or refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from offramp._core.damaged_files import file_problem
from offramp._core.errors import ConfigError, DataError, OfframpError
from offramp._core.files import check_writable, write_failure
from offramp._core.records import FILE_NAME, write_record, write_text
from offramp._core.to_json import to_json


class FolderInUseError(OfframpError):
    """Another process writes to the folder."""


@contextmanager
def one_writer(target: Path, lock_file: Path) -> Iterator[None]:
    """Be the only process that writes to a folder; the system frees the lock of a process that dies.

    Args:
        target: for messages.
        lock_file: locked during the block, and deleted after it. Its folder is made, and deleted if it stays empty.

    Raises:
        FolderInUseError: another process writes there.
        OfframpError: the folder cannot be written, or its file system has no locks.
    """
    from filelock import FileLock, Timeout

    made = [folder for folder in (lock_file.parent, *lock_file.parent.parents) if not folder.exists()]
    try:
        lock_file.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(lock_file, timeout=0)
        lock.acquire()
    except Timeout as error:
        raise FolderInUseError(
            f"another process writes to {target}: wait until it ends, or give another folder"
        ) from error
    except (OSError, NotImplementedError) as error:  # the latter: a file system without locks
        raise write_failure(target, error) from error
    try:
        yield
    finally:
        lock_file.unlink(missing_ok=True)
        lock.release()
        with suppress(OSError):  # something was written
            for folder in made:
                folder.rmdir()


@dataclass(frozen=True)
class RunFolder:
    """A folder that a run claims, so that a stopped run resumes and another one is refused.

    Attributes:
        path: made when it is claimed.
        kind: kind of the run, for messages: "run", "attack", "trial".
        mark: a key that the settings of every run of this kind have.
        own: names that such a run writes, except its settings and its record.
        leftovers: names of `own` that a run killed at once may leave without settings.
        shared: whether the folder may hold files other than `own`.
        settings_file: JSON file of the settings.
        record_file: the record, written last: a folder that has it is complete.
        lock_file: locked while a process writes to the folder.
    """

    path: Path
    kind: str
    mark: str
    own: tuple[str, ...] = ()
    leftovers: tuple[str, ...] = ()
    shared: bool = False
    settings_file: str = "settings.json"
    record_file: str = FILE_NAME
    lock_file: str = ".run.lock"

    @property
    def recorded(self) -> bool:
        """Whether the run is complete."""
        return (self.path / self.record_file).exists()

    def record(self, **content: Any) -> Path:
        return write_record(self.path / self.record_file, **content)

    def lock(self) -> AbstractContextManager[None]:
        """Be the one writer; raises the errors of `one_writer`."""
        return one_writer(self.path, self.path / self.lock_file)

    def check_free(self) -> None:
        """Raise what `lock` would raise, unless the run is complete; nothing is left behind."""
        if not self.recorded:
            check_writable(self.path)
        if (self.path / self.lock_file).exists():
            with self.lock():
                pass

    @contextmanager
    def claim(self, settings: Mapping[str, Any], *, later: Collection[str] = ()) -> Iterator[None]:
        """Be the one writer of a run with these settings; raises the errors of `lock` and `check`."""
        self.check(settings, later=later)  # before anything is made
        with self.lock():
            if not self.check(settings, later=later):
                write_text(self.path / self.settings_file, json.dumps(to_json(settings), indent=2) + "\n")
            yield

    def check(self, settings: Mapping[str, Any], *, later: Collection[str] = ()) -> bool:
        """Whether the folder holds a run with these settings; False if it holds none.

        Args:
            settings: everything that decides the run.
            later: keys that earlier versions did not store; their absence makes no difference.

        Raises:
            ConfigError: the folder holds a run with other settings, or files that no such run wrote.
            DataError: the settings cannot be read.
        """
        stored = self.stored_settings()
        if stored is None:
            self._refuse_foreign(self.leftovers)
            return False
        self.refuse_other(stored, {k: v for k, v in settings.items() if k in stored or k not in later})
        return True

    def stored_settings(self) -> dict[str, Any] | None:
        """The settings of the run that the folder holds, or None; raises the errors of `check`."""
        file = self.path / self.settings_file
        if not file.exists():
            return None
        try:
            stored = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(
                f"{file} {file_problem(file, error)}: delete the folder and start again, or give another folder"
            ) from error
        if not isinstance(stored, dict) or self.mark not in stored:
            raise ConfigError(f"{file} belongs to no {self.kind}: give a folder of its own")
        return stored

    def refuse_other(self, stored: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        """Raise `ConfigError`, which names the differences, if stored settings are not these."""
        present = {name: stored.get(name) for name in settings}
        if differences := list(_differences(to_json(present), to_json(settings))):
            raise ConfigError(
                f"{self.path} holds another {self.kind} ({', '.join(differences)}): give another folder, or delete "
                "that one"
            )

    def discard(self) -> None:
        """Delete the run in the folder; `ConfigError` if the folder holds anything else."""
        written = (*self.own, self.record_file, self.settings_file)
        stored = self.stored_settings()
        self._refuse_foreign(self.leftovers if stored is None else written)
        for name in written if stored is not None else ():
            if (self.path / name).is_dir():
                shutil.rmtree(self.path / name)
            else:
                (self.path / name).unlink(missing_ok=True)

    def _refuse_foreign(self, expected: Collection[str]) -> None:
        """Raise `ConfigError` if a run would replace or mix with files that it did not write."""
        if not self.path.is_dir():
            return
        held = {path.name for path in self.path.iterdir() if not path.name.startswith(".")}
        foreign = sorted((held & {*self.own} if self.shared else held) - {*expected})
        if foreign:
            raise ConfigError(
                f"{self.path} holds files that no {self.kind} wrote ({', '.join(foreign[:5])}): give a folder of its "
                "own"
            )


def _differences(stored: Any, settings: Any, key: str = "") -> Iterator[str]:
    """The differences, including nested settings: `seed 0 there, 1 here`."""
    if isinstance(stored, Mapping) and isinstance(settings, Mapping):
        for name in {**settings, **stored}:
            yield from _differences(stored.get(name), settings.get(name), name)
    elif stored != settings:
        yield f"{key} {stored!r:.40} there, {settings!r:.40} here"
