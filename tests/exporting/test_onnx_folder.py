"""Folders that are damaged, foreign or made for something else: one clear error each."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from offramp._core.errors import ConfigError, CriterionError, DataError, ModelError
from offramp.criteria import make_criterion
from offramp.engine.manifest import Manifest, sha256
from offramp.engine.onnx import OnnxSegments
from offramp.engine.policy import Policy
from offramp.inference.engine import Engine


@pytest.fixture
def folder(exports: dict[str, Path], tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(exports["multi_exit"], tmp_path / "copy"))


def change(folder: Path, **values: Any) -> None:
    """Edit the manifest; a value of None removes its key."""
    path = folder / "manifest.json"
    content = json.loads(path.read_text()) | values
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))


def resealed(folder: Path, name: str) -> None:
    """Give a spoilt file the right checksum: only reading it can tell."""
    files = json.loads((folder / "manifest.json").read_text())["files"]
    change(folder, files=files | {name: sha256(folder / name)})


def test_no_exported_folder(tmp_path: Path) -> None:
    for source in (tmp_path, tmp_path / "none"):
        with pytest.raises(ModelError, match=r"not an exported folder.*offramp export MODEL"):
            Engine(source, backend="onnx")


def test_a_manifest_that_is_broken_or_of_another_kind(folder: Path) -> None:
    change(folder, schema=99)
    with pytest.raises(ModelError, match="schema 99; this offramp reads"):
        OnnxSegments(folder)
    change(folder, schema=2, costs=None)
    with pytest.raises(ModelError, match="lacks costs: export it again"):
        OnnxSegments(folder)
    change(folder, costs={}, segments=[{"file": "x"}])
    with pytest.raises(ModelError, match="has a damaged list of segments"):
        OnnxSegments(folder)
    change(folder, segments=[])
    with pytest.raises(ModelError, match="0 segments for 2 exits"):
        OnnxSegments(folder)
    for name, value in {"labels": 3, "exit_layers": {"1": 2}, "files": ["a"], "pad_values": 0}.items():
        kept = json.loads((folder / "manifest.json").read_text())[name]
        change(folder, **{name: value})
        with pytest.raises(ModelError, match=f"as {name}, expected the type (list|dict): export it again"):
            OnnxSegments(folder)
        change(folder, **{name: kept})
    for text in ("{", "[]", '"x"'):
        (folder / "manifest.json").write_text(text)
        with pytest.raises(ModelError, match="export it again"):
            OnnxSegments(folder)


def test_costs_that_are_none(folder: Path) -> None:
    for costs in ({}, {"exits": [[1, 2, 3]], "full": 1}, {"exits": "many", "full": [1, 2, 3]}):
        change(folder, costs=costs)
        with pytest.raises(ModelError, match=r"costs in .* are damaged .* export it again"):
            OnnxSegments(folder)


def test_files_that_are_missing_cut_or_exchanged(folder: Path) -> None:
    graph = folder / "segment-2.onnx"
    whole = graph.read_bytes()
    graph.write_bytes(whole[:-100])
    with pytest.raises(ModelError, match=r"segment-2\.onnx is not the file that was exported"):
        OnnxSegments(folder)
    resealed(folder, graph.name)
    with pytest.raises(ModelError, match=r"cannot run segment-2\.onnx \(operator set"):
        OnnxSegments(folder)
    graph.unlink()
    with pytest.raises(ModelError, match=r"lacks segment-2\.onnx"):
        OnnxSegments(folder)
    graph.write_bytes(whole)
    resealed(folder, graph.name)
    (folder / "tokenizer.json").write_text("{}")
    resealed(folder, "tokenizer.json")
    with pytest.raises(ModelError, match="cannot be read as a tokenizer"):
        Engine(folder)


def test_a_file_without_a_checksum_is_not_trusted(folder: Path) -> None:
    files = Manifest.load(folder).files
    change(folder, files={name: value for name, value in files.items() if name != "segment-1.onnx"})
    with pytest.raises(ModelError, match=r"no checksum of segment-1\.onnx"):
        OnnxSegments(folder)


def test_a_manifest_cannot_point_out_of_its_folder(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    change(folder, files={"../secret": sha256(tmp_path / "secret")})
    with pytest.raises(ModelError, match="lacks"):
        OnnxSegments(folder)


def test_an_operator_that_this_runtime_does_not_know(folder: Path) -> None:
    import onnx

    graph = onnx.load(folder / "segment-1.onnx")
    graph.graph.node[0].op_type = "FrobnicateTensor"
    onnx.save(graph, folder / "segment-1.onnx")
    resealed(folder, "segment-1.onnx")
    with pytest.raises(
        ModelError, match=r"onnxruntime .* cannot run segment-1.*FrobnicateTensor.*upgrade onnxruntime"
    ):
        OnnxSegments(folder)


def test_policies(folder: Path, exports: dict[str, Path]) -> None:
    with pytest.raises(CriterionError, match="tune it again"):
        Engine(folder, Policy(make_criterion("confidence"), (1, 2)))
    change(folder, policy="")
    with pytest.raises(ModelError, match="exported without a policy"):
        Engine(folder)
    assert Engine(folder, Policy(make_criterion("patience", 1), (1, 3))).predict(["a"])


def test_options(folder: Path, tiny_models: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="threads must be a whole number of at least 1"):
        OnnxSegments(folder, threads=0)
    with pytest.raises(ConfigError, match="make one with 'offramp export'"):
        Engine(tiny_models["multi_exit"], backend="onnx")
    with pytest.raises(ConfigError, match="needs a policy"):
        Engine(tiny_models["multi_exit"])


def test_inputs(folder: Path) -> None:
    engine = Engine(folder, threads=1)
    encoder = engine.encoder
    assert encoder([]) == []
    assert len(encoder(["word " * 500])[0]["input_ids"]) == 24
    with pytest.raises(DataError, match="put it in a list"):
        engine.predict(["a film"], "a plot")
    with pytest.raises(DataError, match="expected texts as strings, got int"):
        engine.predict([3])
    with pytest.raises(DataError, match="2 texts and 1 pairs"):
        engine.predict(["a", "b"], ["c"])
    for nothing in (None, 5):
        with pytest.raises(DataError, match="expected a list of texts, got"):
            engine.predict(nothing)
    with pytest.raises(DataError, match="expected a list of values under 'a', got str"):
        engine.predict({"a": "b"})
    segments = OnnxSegments(folder, threads=1)
    with pytest.raises(ModelError, match=r"reads \['attention_mask'\]"):
        segments.start(
            {"input_ids": np.ones((1, 3), dtype=np.int64), "token_type_ids": np.ones((1, 3), dtype=np.int64)}
        )
    state = segments.start(
        {name: np.ones((1, 3), dtype=np.int64) for name in ("input_ids", "attention_mask")}
    )
    assert segments.run(0, state)[1].logits.shape == (1, 3)


def test_texts_that_can_be_read_once_are_all_answered(folder: Path, tiny_models: dict[str, Any]) -> None:
    texts = ["a film", "", "bad and slow"]
    exported = Engine(folder, threads=1)
    for engine in (exported, Engine(tiny_models["multi_exit"], exported.compacting.policy)):
        expected = engine.predict(texts)
        assert len(expected) == 3
        assert [a.exit_layer for a in engine.predict(iter(texts))] == [a.exit_layer for a in expected]
        assert len(engine.predict((t for t in texts), (t for t in texts))) == 3


def test_a_stream_of_something_else(folder: Path) -> None:
    engine = Engine(folder, threads=1)
    assert len(list(engine.stream([("a", "film"), ["bad", "plot"]]))) == 2
    for source, message in [
        ("one text", "put it in a list"),
        (None, "expected a list of texts, got NoneType"),
        ([None], "got NoneType"),
        (["a", ("a", "b")], "pairs of texts alone"),
        ([("a", "b", "c")], "pairs of texts alone"),
        ([("a", 1)], "got int"),
    ]:
        with pytest.raises(DataError, match=message):
            list(engine.stream(source))


def test_a_folder_that_is_no_export_where_there_is_no_torch(tmp_path: Path, monkeypatch: Any) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else found(name))
    with pytest.raises(ModelError, match="is not an exported folder, and a trained model needs torch"):
        Engine(tmp_path)
