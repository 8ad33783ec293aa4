"""Make outlier channels smaller before quantisation, and their weights larger; the product stays the same.

A few channels of a transformer's states are tens of times as large as the others. One scale for all of them
would leave the others few of the 256 levels.

Source: Xiao et al. 2023 (SmoothQuant), equation 4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

ALPHA = 0.5  # share of the difficulty that moves to the weights
SPREAD = 24.0  # largest over median channel; below this, the weights lose more than the activations gain


def smooth(model: Any, names: Sequence[str], feeds: Sequence[Mapping[str, NDArray[Any]]]) -> list[str]:
    """Rewrite matrix products `x · W` as `(x / s) · (s W)` with a factor per channel, in place.

    Args:
        model: `onnx.ModelProto` in float32.
        names: of the products that will be quantised.
        feeds: the model's inputs on real texts.

    Returns:
        The activations that now have a division.
    """
    readers: dict[str, list[Any]] = {}
    for node in model.graph.node:
        if node.op_type == "MatMul" and node.name in set(names):
            readers.setdefault(node.input[0], []).append(node)
    peak_of = peaks(model, list(readers), feeds)
    uneven = [name for name, peak in peak_of.items() if peak.max() > SPREAD * np.median(peak) > 0]
    for name in uneven:
        _divide(model.graph, name, readers[name], peak_of[name])
    return uneven


def peaks(
    model: Any, names: Sequence[str], feeds: Sequence[Mapping[str, NDArray[Any]]]
) -> dict[str, NDArray[np.float32]]:
    """Largest absolute value of each channel `(channels,)` of some tensors inside a graph, over all feeds."""
    import onnx
    from onnxruntime import InferenceSession

    wider = onnx.ModelProto()
    wider.CopyFrom(model)
    wider.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = InferenceSession(wider.SerializeToString(), providers=["CPUExecutionProvider"])
    largest: dict[str, Any] = dict.fromkeys(names, 0.0)
    for feed in feeds:
        for name, values in zip(names, session.run(list(names), dict(feed)), strict=True):
            largest[name] = np.maximum(
                largest[name], np.abs(values).reshape(-1, values.shape[-1]).max(axis=0)
            )
    return largest


def _divide(graph: Any, name: str, products: Sequence[Any], peak: NDArray[np.float32]) -> None:
    """Divide one activation, only for these products, and multiply their weights."""
    from onnx import helper, numpy_helper

    tensors = {tensor.name: tensor for tensor in graph.initializer}
    weights = {node.input[1]: numpy_helper.to_array(tensors[node.input[1]]) for node in products}
    column = np.max([np.abs(weight).max(axis=1) for weight in weights.values()], axis=0)
    factor = (np.maximum(peak, 1e-5) ** ALPHA / np.maximum(column, 1e-5) ** (1 - ALPHA)).astype(np.float32)
    for key, weight in weights.items():
        tensors[key].CopyFrom(numpy_helper.from_array(weight * factor[:, None], key))
    divided = f"{name}.smooth"
    graph.initializer.append(numpy_helper.from_array(1 / factor, f"{divided}.factor"))
    first = min(list(graph.node).index(node) for node in products)
    graph.node.insert(first, helper.make_node("Mul", [name, f"{divided}.factor"], [divided], name=divided))
    for node in products:
        node.input[0] = divided
