"""Packed runs are read as loose ones are, to the bit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from offramp._core.errors import DataError
from offramp._core.records import write_record
from offramp._core.run_files import GRADIENT_FILE, GRADIENTS, RECORDS, ROWS, TRACES, RunFiles, pack
from offramp._core.trace import Trace


def make_trace(
    examples: int, classes: int, *, labels: Any, kind: Any = "classification", gates: bool = False
) -> Trace:
    rng = np.random.default_rng(examples)
    return Trace(
        logits=rng.normal(size=(examples, 2, classes)).astype(np.float16),
        exit_layers=(1, 3),
        flops=rng.normal(size=(examples, 2)),
        full_flops=rng.normal(size=examples),
        labels=labels,
        gates=rng.random((examples, 2)).astype(np.float16) if gates else None,
        kind=kind,
        fingerprint="abc",
        metadata={"name": "a \x7f run"},
    )


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Three models with traces of different shapes, and two attacks whose rows have different columns and types."""
    root = tmp_path / "runs"
    traces = {
        "a": make_trace(5, 2, labels=np.arange(5) % 2),
        "b": make_trace(4, 3, labels=None, gates=True),
        "c": make_trace(3, 1, labels=np.array([0.5, np.nan, 2.0], np.float32), kind="regression"),
    }
    for name, trace in traces.items():
        (root / name).mkdir(parents=True)
        trace.save(root / name / "trace.npz")
        write(root / name, metrics={"trace": "trace.npz"})
    steps = {"0": np.random.default_rng(0).normal(size=(2, 3, 2, 2)), "10": np.ones((2, 3, 2, 2))}
    np.savez_compressed(root / "a" / GRADIENT_FILE, **steps)
    whole = pa.table({"id": [1, 2], "label": [0, None], "seconds": [0.5, float("nan")]})
    real = pa.table({"label": [0.25], "id": pa.array([7], pa.int32()), "text": ["=1+1\n\x00"]})
    described = real.replace_schema_metadata({"offramp.attack": "{}"})
    for name, table in {"a/attack": whole, "c/attack": described}.items():
        (root / name).mkdir()
        pq.write_table(table, root / name / "rows.parquet")
        write(root / name, tables={"attack": "rows.parquet", "inline": [{"x": 1}]})
    return root


def write(folder: Path, **content: Any) -> None:
    write_record(folder, **{"command": "sweep", "config": {"cell": {}}, "metrics": {}, "seed": 0, **content})


def same(first: Trace, second: Trace) -> bool:
    for name, value in vars(first).items():
        other = getattr(second, name)
        if isinstance(value, np.ndarray):
            if (value.dtype, value.shape, value.tobytes()) != (other.dtype, other.shape, other.tobytes()):
                return False
        elif value != other:
            return False
    return True


def test_packed_runs_are_read_as_the_runs_are(runs: Path, tmp_path: Path) -> None:
    counts = pack(runs, tmp_path / "packed")
    assert counts == {RECORDS: 5, ROWS: 2, TRACES: 3, GRADIENTS: 1}
    assert sorted(p.name for p in (tmp_path / "packed").iterdir()) == sorted(counts)
    loose, packed = RunFiles(runs), RunFiles(tmp_path / "packed")
    assert packed.records() == loose.records()
    assert packed.records("train.json") == []
    for name in "abc":
        assert same(packed.trace(f"{name}/trace.npz"), loose.trace(f"{name}/trace.npz"))
    for name in ("a/attack/rows.parquet", "c/attack/rows.parquet"):
        before, after = loose.table(name), packed.table(name)
        assert after.schema.equals(before.schema, check_metadata=True)
        assert repr(after.to_pydict()) == repr(before.to_pydict())
    products = packed.gradients(f"a/{GRADIENT_FILE}")
    assert {step: values.tobytes() for step, values in products.items()} == {
        step: values.tobytes() for step, values in loose.gradients(f"a/{GRADIENT_FILE}").items()
    }
    assert packed.gradients(f"b/{GRADIENT_FILE}") == loose.gradients(f"b/{GRADIENT_FILE}") == {}


def test_packing_what_is_packed_changes_nothing(runs: Path, tmp_path: Path) -> None:
    pack(runs, tmp_path / "packed")
    pack(tmp_path / "packed", tmp_path / "again")
    for path in (tmp_path / "packed").iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


def test_several_packed_studies_below_one_folder(runs: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        pack(runs, tmp_path / "results" / name)
    files = RunFiles(tmp_path / "results")
    paths = [record["path"] for record in files.records()]
    assert len(paths) == 10
    assert paths[0] == "one/a/attack/record.json"
    assert same(files.trace("two/a/trace.npz"), RunFiles(runs).trace("a/trace.npz"))
    with pytest.raises(DataError, match=r"three.* is missing"):
        files.trace("three/a/trace.npz")


def test_a_loose_file_counts_before_a_packed_one(runs: Path, tmp_path: Path) -> None:
    pack(runs, tmp_path / "packed")
    write(tmp_path / "packed" / "b", metrics={"trace": "trace.npz", "new": True})
    make_trace(9, 2, labels=None).save(tmp_path / "packed" / "b" / "trace.npz")
    files = RunFiles(tmp_path / "packed")
    assert len(files.records()) == 5
    (record,) = [record for record in files.records() if record["path"] == "b/record.json"]
    assert record["metrics"]["new"]
    assert len(files.trace("b/trace.npz")) == 9


@pytest.mark.parametrize("name", [RECORDS, TRACES])
def test_a_damaged_pack_is_named(name: str, runs: Path, tmp_path: Path) -> None:
    pack(runs, tmp_path)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-30])
    with pytest.raises(DataError, match=rf"{name} cannot be read .*pack its runs again"):
        RunFiles(tmp_path).trace("a/trace.npz") if name == TRACES else RunFiles(tmp_path).records()


def test_what_cannot_be_packed(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no run records"):
        pack(tmp_path / "empty", tmp_path / "out")
    (runs / "a" / "trace.npz").unlink()
    with pytest.raises(DataError, match=r"trace\.npz is missing"):
        pack(runs, tmp_path / "out")


def test_the_command(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from offramp.cli.main import run

    assert run(["pack", str(runs), str(tmp_path / "packed"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[TRACES] == 3
    shutil.rmtree(runs)
    assert len(RunFiles(tmp_path / "packed").records()) == 5
