from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from offramp._core.errors import ConfigError, DataError
from offramp._core.trace import Trace


def make(kind: str = "classification", labels: bool = True, gates: bool = True) -> Trace:
    random = np.random.default_rng(0)
    classes = 1 if kind == "regression" else 3
    return Trace(
        logits=random.normal(size=(5, 2, classes)).astype(np.float32),
        exit_layers=(2, 6),
        flops=np.arange(10.0).reshape(5, 2),
        full_flops=np.arange(5.0),
        labels=(random.normal(size=5).astype(np.float32) if classes == 1 else np.arange(5) % 3)
        if labels
        else None,
        gates=random.random((5, 2)).astype(np.float32) if gates else None,
        kind=kind,  # type: ignore[arg-type]
        fingerprint="9f2c",
        truncated=2,
    )


def assert_same(found: Trace, expected: Trace) -> None:
    assert set(vars(found)) == set(vars(expected))
    for name, value in vars(expected).items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(getattr(found, name), value, err_msg=name)
            assert getattr(found, name).dtype == value.dtype, name
        else:
            assert getattr(found, name) == value, name
            assert type(getattr(found, name)) is type(value), name


@pytest.mark.parametrize("kind", ["classification", "regression"])
@pytest.mark.parametrize("optional", [True, False])
def test_a_trace_survives_the_file(kind: str, optional: bool, tmp_path: Path) -> None:
    trace = make(kind, labels=optional, gates=optional)
    trace.save(tmp_path / "trace.npz")
    assert_same(Trace.load(tmp_path / "trace.npz"), trace)


def test_metadata_survives_the_file(tmp_path: Path) -> None:
    trace = make()
    trace.metadata["model"] = "minilm-l6"
    trace.save(tmp_path / "trace.npz")
    assert Trace.load(tmp_path / "trace.npz").metadata == {"model": "minilm-l6"}


def test_files_keep_the_names_of_earlier_versions(tmp_path: Path) -> None:
    make().save(tmp_path / "trace.npz")
    with np.load(tmp_path / "trace.npz") as stored:
        assert {"costs", "full_cost"} <= set(stored.files)
        np.testing.assert_array_equal(stored["costs"], make().flops)


def test_temperatures_divide_the_logits_in_float64() -> None:
    trace = make()
    scaled = trace.scaled([0.5, 3.0])
    assert scaled.logits.dtype == np.float64
    np.testing.assert_array_equal(scaled.logits[:, 0], trace.logits[:, 0] * np.float64(2))
    np.testing.assert_array_equal(scaled.logits[:, 1], trace.logits[:, 1].astype(np.float64) / 3)
    assert trace.scaled(None) is trace
    for exit in range(2):
        evidence = trace.evidence(exit).scaled([0.5, 3.0])
        np.testing.assert_array_equal(evidence.logits, scaled.logits[:, exit])
    assert np.isfinite(make().scaled([1e-30, 1]).logits).all()
    with pytest.raises(ConfigError, match="one temperature for each of 2 exits, got 1"):
        trace.scaled([1.0])


def test_the_path_given_is_the_path_written(tmp_path: Path) -> None:
    make().save(tmp_path / "clean.trace")
    assert [p.name for p in tmp_path.iterdir()] == ["clean.trace"]
    assert_same(Trace.load(tmp_path / "clean.trace"), make())


def test_a_missing_file_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.npz"):
        Trace.load(tmp_path / "none.npz")


def test_every_cut_of_a_file_is_a_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "trace.npz"
    make().save(path)
    content = path.read_bytes()
    for cut in [*range(0, len(content), 37), len(content) - 1]:
        path.write_bytes(content[:cut])
        with pytest.raises(DataError, match="is not a trace written by offramp"):
            Trace.load(path)


def test_flipped_bytes_are_an_error_or_change_nothing(tmp_path: Path) -> None:
    path = tmp_path / "trace.npz"
    make().save(path)
    content = path.read_bytes()
    for place in range(0, len(content), 29):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
        try:
            found = Trace.load(path)
        except DataError:
            continue
        assert_same(found, make())


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 broken", b'{"json": 1}'])
def test_files_of_another_kind(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(DataError, match="is not a trace written by offramp"):
        Trace.load(tmp_path / "x.npz")


def test_arrays_of_another_kind(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", logits=np.zeros((1, 1, 2)))
    with pytest.raises(DataError, match="is not a trace written by offramp"):
        Trace.load(tmp_path / "x.npz")
    np.save(tmp_path / "x.npy", np.zeros(3))
    with pytest.raises(DataError, match="is not a trace written by offramp"):
        Trace.load(tmp_path / "x.npy")


def test_pickles_are_not_opened(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", logits=np.array([{"any": "object"}], dtype=object))
    with pytest.raises(DataError, match="is not a trace written by offramp"):
        Trace.load(tmp_path / "x.npz")


def test_take_keeps_rows_together() -> None:
    trace = make()
    part = trace.take(np.array([4, 1]))
    assert len(part) == 2
    assert part.flops.tolist() == [[8.0, 9.0], [2.0, 3.0]]
    assert part.full_flops.tolist() == [4.0, 1.0]
    assert part.labels is not None
    assert part.labels.tolist() == [1, 1]
    np.testing.assert_array_equal(part.gates, trace.gates[[4, 1]])  # type: ignore[index]
    assert (part.exit_layers, part.fingerprint) == (trace.exit_layers, trace.fingerprint)
    assert len(trace.take(slice(1, 4))) == 3


def test_what_a_trace_tells() -> None:
    trace = make()
    assert (len(trace), trace.exits, trace.depth) == (5, 2, 6)
    assert trace.predictions().tolist() == trace.logits.argmax(-1).tolist()
    np.testing.assert_array_equal(make("regression").predictions(), make("regression").logits[:, :, 0])
    evidence = trace.evidence(1)
    assert (evidence.exit, evidence.exits) == (1, 2)
    np.testing.assert_array_equal(evidence.logits, trace.logits[:, 1])
    assert make(gates=False).evidence(0).gate is None


def test_labels_where_there_are_none() -> None:
    with pytest.raises(DataError, match="needs labelled data, but the trace"):
        make(labels=False).require_labels()
    assert make().require_labels().tolist() == [0, 1, 2, 0, 1]
