"""Graphs made of the segments' graphs, and what int8 writes in fewer steps or bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from offramp.engine.onnx import OnnxSegments
from offramp.exporting.fold import fold_attention
from offramp.exporting.joining import load_segments, write_cut
from offramp.exporting.quantise import MIN_ROWS, narrow_embeddings

HEADS, WIDTH = 3, 12


def run(model: Any, feed: dict[str, Any]) -> list[Any]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found: list[Any] = session.run(None, {value.name: feed[value.name] for value in session.get_inputs()})
    return found


def kinds(model: Any) -> list[str]:
    return [node.op_type for node in model.graph.node]


@pytest.mark.parametrize("name", ["multi_exit", "cascade"])
def test_a_cut_answers_as_its_exit_does(
    name: str, exports: dict[str, Path], tiny_data: Any, tmp_path: Path
) -> None:
    segments = OnnxSegments(exports[name], threads=1)
    text = next(text for text in tiny_data["validation"]["text"] if text.strip())
    encoding = segments.encoder()([text])[0]
    batch = {name: np.array([values], dtype=np.int64) for name, values in encoding.items()}
    batch |= {"attention_mask": np.ones_like(batch["input_ids"])}
    for exit in range(2):
        state = segments.start(batch)
        for k in range(exit + 1):
            state, evidence = segments.run(k, state)
        write_cut(exports[name], segments.manifest, exit, tmp_path / "cut.onnx")
        cut = onnx.load(tmp_path / "cut.onnx")
        onnx.checker.check_model(cut)
        assert [value.name for value in cut.graph.output] == ["logits"]
        np.testing.assert_allclose(run(cut, batch)[0], evidence.logits, atol=1e-6)
    if name == "cascade":
        alone = onnx.load(exports[name] / segments.manifest.segments[1].file)
        assert len(cut.graph.node) <= len(alone.graph.node) + 1, "the first member is left out"


def test_attention_of_a_model_becomes_one_operator(exports: dict[str, Path]) -> None:
    segments = OnnxSegments(exports["multi_exit"], threads=1)
    before = load_segments(exports["multi_exit"], segments.manifest)[0]
    after = fold_attention(before)
    assert kinds(after).count("Attention") == kinds(before).count("Softmax") == 1
    assert "Softmax" not in kinds(after)
    rng = np.random.default_rng(0)
    for rows, length in ((1, 1), (3, 9)):
        ids = rng.integers(5, 40, (rows, length))
        mask = (np.arange(length) < length - np.arange(rows)[:, None]).astype(np.int64)
        feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        for one, two in zip(run(before, feed), run(after, feed), strict=True):
            np.testing.assert_allclose(one, two, atol=1e-6)


def steps(*, scaling: str, biased: bool, mask_rows: int | str, axis: int = -1) -> Any:
    """Attention as exporters write it, on queries, keys and values that come from outside."""
    make = helper.make_node
    nodes = [
        make("Shape", ["q"], ["batch"], start=0, end=1),
        make("Shape", ["q"], ["length"], start=1, end=2),
        make("Concat", ["batch", "length", "rest", "each"], ["split"], axis=0),
        make("Concat", ["batch", "length", "rest"], ["join"], axis=0),
        *(make("Reshape", [name, "split"], [f"{name}4"]) for name in "qkv"),
        make("Transpose", ["q4"], ["qt"], perm=[0, 2, 1, 3]),
        make("Transpose", ["k4"], ["kt"], perm=[0, 2, 3, 1]),
        make("Transpose", ["v4"], ["vt"], perm=[0, 2, 1, 3]),
        make("MatMul", ["qt", "kt"], ["product"]),
        make(scaling, ["product", "scale"], ["scaled"]),
        *([make("Add", ["scaled", "bias"], ["biased"])] if biased else []),
        make("Add", ["biased" if biased else "scaled", "mask"], ["masked"]),
        make("Softmax", ["masked"], ["weights"], axis=axis),
        make("MatMul", ["weights", "vt"], ["weighted"]),
        make("Transpose", ["weighted"], ["turned"], perm=[0, 2, 1, 3]),
        make("Reshape", ["turned", "join"], ["out"]),
    ]
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["B", "S", WIDTH]) for name in "qkv"]
    inputs.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["B", 1, mask_rows, "S"]))
    if biased:
        inputs.append(helper.make_tensor_value_info("bias", TensorProto.FLOAT, [1, HEADS, "S", "S"]))
    weights = [
        numpy_helper.from_array(np.array([-1]), "rest"),
        numpy_helper.from_array(np.array([WIDTH // HEADS]), "each"),
        numpy_helper.from_array(np.array(0.3 if scaling == "Mul" else 3, dtype=np.float32), "scale"),
    ]
    output = helper.make_tensor_value_info("out", TensorProto.FLOAT, ["B", "S", "W"])
    graph = helper.make_graph(nodes, "steps", inputs, [output], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.mark.parametrize("scaling", ["Mul", "Div"])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("mask_rows", [1, "S"])
def test_every_form_of_attention_gives_the_same_in_one_step(
    scaling: str, biased: bool, mask_rows: int | str
) -> None:
    model = steps(scaling=scaling, biased=biased, mask_rows=mask_rows)
    folded = fold_attention(model)
    assert "Attention" in kinds(folded)
    assert "Softmax" not in kinds(folded)
    rng = np.random.default_rng(1)
    for rows, length in ((1, 1), (4, 7)):
        feed = {name: rng.normal(size=(rows, length, WIDTH)).astype(np.float32) for name in "qkv"}
        feed["bias"] = rng.normal(size=(1, HEADS, length, length)).astype(np.float32)
        hidden = np.arange(length) >= length - np.arange(rows)[:, None]
        mask = np.where(hidden, np.finfo(np.float32).min, 0).astype(np.float32)[:, None, None]
        feed["mask"] = mask if mask_rows == 1 else np.repeat(mask, length, axis=2)
        np.testing.assert_allclose(run(model, feed)[0], run(folded, feed)[0], atol=1e-6)


def test_other_attention_stays_as_it_is() -> None:
    model = steps(scaling="Mul", biased=False, mask_rows=1, axis=1)
    assert kinds(fold_attention(model)) == kinds(model)
    assert fold_attention(model).opset_import[0].version == 20


def table(readers: list[Any]) -> tuple[Any, Any]:
    """A graph that gathers from a table of which one row is zero, and does what else is asked of it; and the table."""
    rng = np.random.default_rng(2)
    values = (rng.normal(size=(MIN_ROWS, 8)) * np.arange(MIN_ROWS)[:, None]).astype(np.float32)
    inputs = [
        helper.make_tensor_value_info("ids", TensorProto.INT64, ["B", "S"]),
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", MIN_ROWS]),
    ]
    nodes = [helper.make_node("Gather", ["table", "ids"], ["rows"]), *readers]
    outputs = [helper.make_tensor_value_info(n.output[0], TensorProto.FLOAT, None) for n in nodes]
    known = [helper.make_tensor_value_info("table", TensorProto.FLOAT, values.shape)]  # as exporters write it
    graph = helper.make_graph(
        nodes, "table", inputs, outputs, [numpy_helper.from_array(values, "table")], value_info=known
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), values


def test_rows_of_a_narrow_table_are_as_near_as_their_own_scale_allows() -> None:
    model, values = table([])
    feed = {"ids": np.array([[0, 1, 500], [MIN_ROWS - 1, -1, 7]]), "x": np.ones((1, MIN_ROWS), np.float32)}
    assert narrow_embeddings(model.graph) == 1
    onnx.checker.check_model(onnx.shape_inference.infer_shapes(model, strict_mode=True))
    rows, expected = run(model, feed)[0], values[feed["ids"]]
    assert (np.abs(rows - expected) <= np.abs(expected).max(axis=-1, keepdims=True) / 254 + 1e-6).all()
    assert (rows[0, 0] == 0).all()
    assert {tensor.data_type for tensor in model.graph.initializer if len(tensor.dims) == 2} == {
        TensorProto.INT8,
        TensorProto.FLOAT,  # of one column: the scales
    }


@pytest.mark.parametrize(
    "reader",
    [
        helper.make_node("MatMul", ["x", "table"], ["y"]),
        helper.make_node("Gather", ["table", "ids"], ["y"], axis=1),
    ],
)
def test_a_table_that_is_read_otherwise_too_stays(reader: Any) -> None:
    model, _ = table([reader])
    assert narrow_embeddings(model.graph) == 0
