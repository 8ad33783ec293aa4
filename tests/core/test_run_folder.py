"""The folder of a run: claimed by one writer, resumed with the same settings, refused otherwise."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest

from offramp._core.errors import ConfigError, DataError, OfframpError
from offramp._core.run_folder import FolderInUseError, RunFolder

SETTINGS = {"recipe": "same", "seed": 0, "options": {"rounds": 5}}


def folder_at(path: Path, *, shared: bool = False) -> RunFolder:
    return RunFolder(
        path, "attack", mark="recipe", own=("parts", "rows.parquet"), leftovers=("parts",), shared=shared
    )


def test_a_run_resumes_with_its_settings_and_leaves_no_lock(tmp_path: Path) -> None:
    folder = folder_at(tmp_path / "new")
    assert not folder.check(SETTINGS)
    with folder.claim(SETTINGS):
        assert json.loads((folder.path / "settings.json").read_text()) == SETTINGS
    with folder.claim(SETTINGS):
        folder.record(command="attack", config=SETTINGS, metrics={}, seed=0)
    assert folder.recorded
    assert sorted(path.name for path in folder.path.iterdir()) == ["record.json", "settings.json"]


@pytest.mark.parametrize(
    ("stored", "asked", "message"),
    [
        ({"seed": 0}, {"seed": 1}, r"holds another attack \(seed 0 there, 1 here\): give another folder"),
        ({"options": {"rounds": 5}}, {"options": {"rounds": 2}}, r"\(rounds 5 there, 2 here\)"),
        ({"options": {"rounds": 5}}, {"options": {}}, r"\(rounds 5 there, None here\)"),
        ({"options": {}}, {"options": {"rounds": 5}}, r"\(rounds None there, 5 here\)"),
        ({}, {"limits": [1]}, r"\(limits None there, \[1\] here\)"),
    ],
)
def test_another_run_is_refused(stored: object, asked: object, message: str, tmp_path: Path) -> None:
    with folder_at(tmp_path).claim({"recipe": "same", **stored}):  # type: ignore[dict-item]
        pass
    with pytest.raises(ConfigError, match=message), folder_at(tmp_path).claim({"recipe": "same", **asked}):  # type: ignore[dict-item]
        pass


def test_keys_that_earlier_versions_did_not_store(tmp_path: Path) -> None:
    with folder_at(tmp_path).claim({"recipe": "same"}):
        pass
    assert folder_at(tmp_path).check({"recipe": "same", "limits": [1]}, later=("limits",))
    with folder_at(tmp_path / "b").claim({"recipe": "same", "limits": [2]}):
        pass
    with pytest.raises(ConfigError, match="limits"):
        folder_at(tmp_path / "b").check({"recipe": "same", "limits": [1]}, later=("limits",))


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    with (
        folder_at(tmp_path).claim(SETTINGS),
        pytest.raises(FolderInUseError, match=r"another process writes to .*: wait until it ends"),
        folder_at(tmp_path).claim(SETTINGS),
    ):
        pass
    with pytest.raises(RuntimeError, match="inside"), folder_at(tmp_path).claim(SETTINGS):
        raise RuntimeError("inside")
    with folder_at(tmp_path).claim(SETTINGS):  # freed by the error
        pass


def test_the_lock_of_a_process_that_died_is_free(tmp_path: Path) -> None:
    code = (
        "import os; from pathlib import Path; from offramp._core.run_folder import RunFolder\n"
        f"with RunFolder(Path({str(tmp_path)!r}), 'attack', mark='recipe').lock(): os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    assert (tmp_path / ".run.lock").exists()
    with folder_at(tmp_path).claim(SETTINGS):
        pass


def test_foreign_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()  # of a run killed at once
    assert not folder_at(tmp_path).check(SETTINGS)
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(
        ConfigError, match=r"files that no attack wrote \(thesis.txt\): give a folder of its own"
    ):
        folder_at(tmp_path).check(SETTINGS)
    with pytest.raises(ConfigError, match="no attack wrote"):
        folder_at(tmp_path).discard()
    assert not folder_at(tmp_path, shared=True).check(SETTINGS)
    (tmp_path / "rows.parquet").write_text("")
    with pytest.raises(ConfigError, match=r"\(rows.parquet\)"):
        folder_at(tmp_path, shared=True).check(SETTINGS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["parts", "rows.parquet", "thesis.txt"]


def test_discard_deletes_a_run_and_nothing_else(tmp_path: Path) -> None:
    folder = folder_at(tmp_path)
    with folder.claim(SETTINGS):
        (tmp_path / "parts").mkdir()
        (tmp_path / "rows.parquet").write_text("")
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="thesis"):
        folder.discard()
    (tmp_path / "thesis.txt").unlink()
    folder.discard()
    assert list(tmp_path.iterdir()) == []
    folder.discard()  # nothing left: nothing to do


def test_damaged_and_foreign_settings(tmp_path: Path) -> None:
    for content in (b"{", b"\xff"):
        (tmp_path / "settings.json").write_bytes(content)
        with pytest.raises(
            DataError, match=r"settings\.json (is cut off|cannot be read).*delete the folder and start again"
        ):
            folder_at(tmp_path).check(SETTINGS)
    for content in (b"[]", b'{"format": "offramp-onnx"}'):
        (tmp_path / "settings.json").write_bytes(content)
        with pytest.raises(
            ConfigError, match=r"settings\.json belongs to no attack: give a folder of its own"
        ):
            folder_at(tmp_path).discard()


def test_a_path_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(OfframpError, match="a file stands where a folder is needed"),
        folder_at(tmp_path / "file").lock(),
    ):
        pass


def test_a_folder_in_use_is_refused_before_any_work(tmp_path: Path) -> None:
    run = folder_at(tmp_path / "run")
    run.check_free()
    assert not run.path.exists()
    with run.lock(), pytest.raises(FolderInUseError, match="another process writes to"):
        folder_at(run.path).check_free()
    assert not run.path.exists()  # nothing was written to it
    run.path.mkdir()
    (run.path / run.lock_file).touch()  # of a process that died
    run.check_free()


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (OSError(errno.ENOLCK, "No locks available"), NotImplementedError("no flock here")):

        def acquire(self: object, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr("filelock.FileLock.acquire", acquire)
        with pytest.raises(OfframpError, match="cannot write .*choose "), folder_at(tmp_path).lock():
            pass
