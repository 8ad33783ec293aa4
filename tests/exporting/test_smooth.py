"""Outlier channels are evened out: the same product in float32, a nearer one in int8."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from offramp.exporting.quantise import quantise_graph
from offramp.exporting.smooth import peaks, smooth

WIDTH, OUT = 32, 24


def two_products() -> Any:
    """Two products of one activation, as queries and keys are, and one of another."""
    rng = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(rng.normal(size=(WIDTH, OUT)).astype(np.float32), name) for name in "abc"
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["xa"], name="one"),
        helper.make_node("MatMul", ["x", "b"], ["xb"], name="two"),
        helper.make_node("MatMul", ["z", "c"], ["zc"], name="three"),
    ]
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["rows", WIDTH]) for n in "xz"]
    outputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["rows", OUT]) for n in ("xa", "xb", "zc")]
    graph = helper.make_graph(nodes, "two", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def feed(seed: int) -> dict[str, NDArray[np.float32]]:
    """Standard normal, but for one channel of x that is fifty times as large."""
    rng = np.random.default_rng(seed)
    x, z = (rng.normal(size=(40, WIDTH)).astype(np.float32) for _ in "xz")
    x[:, 3] *= 50
    return {"x": x, "z": z}


def run(model: Any, given: dict[str, Any]) -> list[Any]:
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, given)


def test_products_stay_and_only_uneven_activations_change() -> None:
    model, feeds = two_products(), [feed(1), feed(2)]
    expected = run(model, feed(9))
    assert peaks(model, ["x"], feeds)["x"].argmax() == 3
    assert smooth(model, ["one", "two", "three"], feeds) == ["x"]
    for one, two in zip(run(model, feed(9)), expected, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-3)
    assert [node.op_type for node in model.graph.node].count("Mul") == 1, (
        "products of one activation share it"
    )
    assert smooth(two_products(), ["three"], feeds) == []


def test_int8_is_nearer_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, feeds = two_products(), [feed(1), feed(2)]
    onnx.save(model, str(tmp_path / "source.onnx"))
    expected = run(model, feed(9))[0]
    errors = []
    for spread in (8.0, np.inf):
        monkeypatch.setattr("offramp.exporting.smooth.SPREAD", spread)
        quantise_graph(tmp_path / "source.onnx", tmp_path / "int8.onnx", feeds)
        found = run(onnx.load(str(tmp_path / "int8.onnx")), feed(9))[0]
        errors.append(float(np.abs(found - expected).mean()))
    assert errors[0] < errors[1] / 1.5


def test_ranges_are_means_over_batches(tmp_path: Path) -> None:
    onnx.save(two_products(), tmp_path / "fp32.onnx")
    feeds = [
        {"x": np.full((4, WIDTH), v, np.float32), "z": np.full((4, WIDTH), v, np.float32)} for v in (1, 9)
    ]
    quantise_graph(tmp_path / "fp32.onnx", tmp_path / "int8.onnx", feeds, fold=False)
    tensors = {t.name: t for t in onnx.load(str(tmp_path / "int8.onnx")).graph.initializer}
    assert numpy_helper.to_array(tensors["z_scale"]) == pytest.approx((1 + 9) / 2 / 255)
