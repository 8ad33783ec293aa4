from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from offramp._core.errors import DataError, OfframpError
from offramp._core.records import (
    FILE_NAME,
    SCHEMA,
    RunRecord,
    read_record,
    read_records,
    write_record,
    write_text,
)


def write(target: Path, **changes: Any) -> Path:
    content: dict[str, Any] = {
        "command": "offramp train --seed 3",
        "config": {"lr": 1e-4},
        "metrics": {"accuracy": 0.9},
        "seed": 3,
    }
    return write_record(target, **{**content, **changes})


def test_a_record_tells_the_run(tmp_path: Path) -> None:
    started = datetime.now(UTC) - timedelta(seconds=90)
    tables = {"exits": [{"layer": 1, "accuracy": np.float32(0.5)}], "curve": {"cost": np.array([0.25, 1.0])}}
    path = write(tmp_path / "run", started=started, tables=tables, seed=np.int64(3))
    assert path == tmp_path / "run" / FILE_NAME
    record = read_record(path)
    assert set(record) == set(RunRecord.__dataclass_fields__)
    assert record["schema"] == SCHEMA
    assert record["command"] == "offramp train --seed 3"
    assert (record["config"], record["metrics"], record["seed"]) == ({"lr": 1e-4}, {"accuracy": 0.9}, 3)
    assert record["tables"] == {"exits": [{"layer": 1, "accuracy": 0.5}], "curve": {"cost": [0.25, 1.0]}}
    assert record["started"] == started.isoformat(timespec="seconds")
    assert record["started"].endswith("+00:00")
    assert record["seconds"] >= 90
    assert record["versions"]["numpy"] == np.__version__
    assert record["hardware"]["cores"] >= 1
    assert record["platform"]
    assert "git" in record


def test_a_start_in_another_time_zone_is_kept_as_utc(tmp_path: Path) -> None:
    zone = datetime.fromisoformat("2025-01-02T03:00:00+05:00")
    assert read_record(write(tmp_path, started=zone))["started"] == "2025-01-01T22:00:00+00:00"


def test_a_path_that_ends_in_json_is_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "results" / "sst2.sweet.json")
    assert path == tmp_path / "results" / "sst2.sweet.json"
    assert [p.name for p in path.parent.iterdir()] == ["sst2.sweet.json"]


def test_the_file_is_strict_json_whatever_came_out(tmp_path: Path) -> None:
    path = write(tmp_path, metrics={"loss": np.nan, "best": -np.inf, "n": np.int32(4), "odd": object()})

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    metrics = json.loads(path.read_text(encoding="ascii"), parse_constant=refuse)["metrics"]
    assert metrics == {"loss": None, "best": "-inf", "n": 4, "odd": "<builtins.object>"}


def test_no_folder_user_or_host_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/jane")
    path = write(
        tmp_path / "run",
        command=f"offramp train --data {tmp_path}/glue --output=/home/jane/out",
        config={"data": tmp_path / "glue", "model": "/home/jane/model", "nested": {"/home/jane/k": ["~/x"]}},
        metrics={"/home/jane/train.csv": 1.0},
        tables={"files": [{"file": Path("/home/jane/a.csv")}]},
    )
    text = path.read_text()
    assert "jane" not in text
    assert str(tmp_path) not in text
    record = read_record(path)
    assert record["command"] == "offramp train --data glue --output=out"
    assert record["config"] == {"data": "glue", "model": "model", "nested": {"k": ["x"]}}


def test_a_later_record_replaces_the_earlier_one(tmp_path: Path) -> None:
    first = write(tmp_path / "run", seed=1)
    os.link(first, tmp_path / "opened.json")  # as if somebody still had the earlier one open
    write(tmp_path / "run", seed=2)
    assert read_record(first)["seed"] == 2
    assert read_record(tmp_path / "opened.json")["seed"] == 1, "the earlier file itself was written over"
    assert [p.name for p in first.parent.iterdir()] == [FILE_NAME]


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
def test_a_full_disk_leaves_the_earlier_record_and_no_draft(tmp_path: Path) -> None:
    import resource

    write(tmp_path, seed=1)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(OfframpError, match=r"cannot write .*record.json .*: free some space, or choose"):
            write(tmp_path, seed=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert read_record(tmp_path / FILE_NAME)["seed"] == 1
    assert [p.name for p in tmp_path.iterdir()] == [FILE_NAME]


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for target in (tmp_path / "file", tmp_path / "file" / "deeper"):
        with pytest.raises(OfframpError, match=r"cannot write .*a file stands where a folder is needed"):
            write(target)
    (tmp_path / FILE_NAME).mkdir()
    with pytest.raises(OfframpError, match="cannot write"):
        write(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", FILE_NAME]


def test_text_is_written_whole_in_utf8(tmp_path: Path) -> None:
    write_text(tmp_path / "new" / "x.txt", "µ\n")
    assert (tmp_path / "new" / "x.txt").read_bytes() == "µ\n".encode()


def test_every_cut_of_a_record_is_a_clear_error(tmp_path: Path) -> None:
    path = write(tmp_path)
    content = path.read_bytes().rstrip()
    for cut in range(0, len(content), 13):
        path.write_bytes(content[:cut])
        with pytest.raises(DataError, match=r"is not valid JSON .*delete it and run its command again"):
            read_record(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe", "is not valid JSON"),
        (b"[" * 100_000, "is not valid JSON"),
        (b"[1]", "not a run record of offramp"),
        (b'{"schema": 1}', "not a run record of offramp"),
        (b'{"record": "offramp-run", "schema": 99}', r"record schema 99, this offramp reads 1: read it with"),
        (b'{"record": "offramp-run"}', "record schema None"),
        (b'{"record": "offramp-run", "schema": 1, "seed": 1}', "lacks command, config, git, hardware"),
    ],
)
def test_what_is_no_record(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_record(tmp_path / "x.json")


def test_parts_of_another_type_are_no_record(tmp_path: Path) -> None:
    path = write(tmp_path)
    content = json.loads(path.read_text("utf-8"))
    for name in ("config", "metrics", "tables"):
        path.write_text(json.dumps({**content, name: []}), "utf-8")
        with pytest.raises(DataError, match=f"expected {name} by name, got list"):
            read_record(path)


def test_missing_record(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no record at .*x.json"):
        read_record(tmp_path / "x.json")
    with pytest.raises(DataError, match="cannot read"):
        read_record(tmp_path)
    with pytest.raises(DataError, match=r"no records at .*none: it does not exist"):
        read_records(tmp_path / "none")


def test_records_below_a_folder_in_order_of_their_paths(tmp_path: Path) -> None:
    for seed, name in enumerate(["b", "a/deep", "c.json"]):
        write(tmp_path / name, seed=seed)
    (tmp_path / "b" / "config.json").write_text('{"hidden_size": 8}')
    (tmp_path / "b" / "notes.txt").write_text("{")
    found = [(record["path"], record["seed"]) for record in read_records(tmp_path)]
    assert found == [("a/deep/record.json", 1), ("b/record.json", 0), ("c.json", 2)]
    assert [record["seed"] for record in read_records(tmp_path / "c.json")] == [2]
    assert read_records(tmp_path / "a" / "deep")[0]["path"] == "record.json"


def test_an_empty_folder_has_no_records(tmp_path: Path) -> None:
    assert read_records(tmp_path) == []


def test_corrupt_records_are_left_out_and_named(tmp_path: Path) -> None:
    write(tmp_path / "good")
    broken = write(tmp_path / "broken")
    broken.write_text(broken.read_text()[:200])
    write(tmp_path / "newer").write_text('{"record": "offramp-run", "schema": 99}')
    with pytest.warns(UserWarning, match=r"left out 2 unreadable file\(s\)") as caught:
        found = read_records(tmp_path)
    assert [record["path"] for record in found] == ["good/record.json"]
    assert "broken" in str(caught[0].message)
    assert "schema 99" in str(caught[0].message)
