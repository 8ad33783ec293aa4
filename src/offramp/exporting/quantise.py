"""Static int8: one scale per weight column and per activation tensor, fixed on real texts before use.

Dynamic quantisation takes the activations' scale from the current batch, so texts of a batch change each other's
answers. Here the scales are part of the graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from offramp._core.errors import MissingExtraError
from offramp.engine.onnx import OnnxState
from offramp.exporting.fold import DOMAIN, fold_attention, fold_products
from offramp.exporting.graphs import silent
from offramp.exporting.joining import readers_by_tensor
from offramp.exporting.smooth import smooth

QUANTISED = ("MatMul", "Gemm")
MIN_ROWS = 1000  # tables of positions and token types are too small to gain
LEVELS = 127
NARROW = 16  # a head's last layer has one column per class: too few to gain, and nearest to the answer


def quantise_graph(source: Path, target: Path, feeds: Sequence[OnnxState], *, fold: bool = True) -> None:
    """Quantise one graph; attention's products of two activations, norms and poolings stay in float32.

    If a few channels are far larger than the others, they are smoothed first; see `offramp.exporting.smooth`.

    Args:
        source: the float32 graph.
        target: the int8 graph.
        feeds: its inputs on real texts.
        fold: write attention, and products with their biases, as one operator each; see `offramp.exporting.fold`.

    Raises:
        MissingExtraError: without `onnx`.
    """
    try:
        import onnx
    except ImportError as error:
        raise MissingExtraError("onnx", "export") from error
    model = onnx.load(str(source))
    narrow_embeddings(model.graph)
    if fold:
        model = fold_attention(model)
    excluded = unsuited(model.graph)
    smooth(model, [node.name for node in model.graph.node if node.name not in excluded], feeds)
    _quantise_static(model, target, feeds, excluded)
    if fold:
        model = onnx.load(str(target))
        if fold_products(model.graph) and DOMAIN not in {entry.domain for entry in model.opset_import}:
            model.opset_import.append(onnx.helper.make_opsetid(DOMAIN, 1))
        onnx.save(model, str(target))


def _quantise_static(model: Any, target: Path, feeds: Sequence[OnnxState], excluded: list[str]) -> None:
    """ONNX Runtime's static quantisation, with settings measured on transformers."""
    from onnxruntime import quantization as q

    class Reader(q.CalibrationDataReader):
        def __init__(self) -> None:
            self.feeds = iter(feeds)

        def get_next(self) -> OnnxState | None:
            return next(self.feeds, None)

    with silent():
        q.quantize_static(
            model,
            str(target),
            Reader(),
            quant_format=q.QuantFormat.QDQ,
            op_types_to_quantize=list(QUANTISED),
            nodes_to_exclude=excluded,
            per_channel=True,
            activation_type=q.QuantType.QUInt8,
            weight_type=q.QuantType.QInt8,
            calibrate_method=q.CalibrationMethod.MinMax,  # the others cannot take batches of several lengths
            reduce_range=True,  # 7-bit weights: with 8 bits, sums saturate on CPUs without VNNI
            extra_options={
                "WeightSymmetric": True,
                "OpTypesToExcludeOutputQuantization": list(QUANTISED),
                "CalibMovingAverage": True,  # a range up to the largest value leaves few levels for the rest
            },
        )


def unsuited(graph: Any) -> list[str]:
    """Names of the matrix products without a large weight: those inside attention, and the heads' last ones."""
    widths = {tensor.name: min(tensor.dims) for tensor in graph.initializer if len(tensor.dims) == 2}
    return [
        node.name
        for node in graph.node
        if node.op_type in QUANTISED and widths.get(node.input[1], 0) < NARROW
    ]


def narrow_embeddings(graph: Any) -> int:
    """Store large embedding tables as int8 with a scale per row, and widen the rows that a text reads, in place.

    The tables are most of a small encoder's bytes. A row's scale comes from its largest value, so a text's answer
    depends on no other text.

    Args:
        graph: `onnx.GraphProto` in float32.

    Returns:
        The number of narrowed tables.
    """
    from onnx import TensorProto, numpy_helper

    readers = readers_by_tensor(graph.node)
    tables = {
        tensor.name: tensor
        for tensor in graph.initializer
        if tensor.data_type == TensorProto.FLOAT
        and len(tensor.dims) == 2
        and tensor.dims[0] >= MIN_ROWS
        and all(_gathers(node, tensor.name) for node in readers.get(tensor.name, [None]))
    }
    nodes: list[Any] = []
    for node in graph.node:
        nodes += _widened(node) if node.input and node.input[0] in tables else [node]
    del graph.node[:]
    graph.node.extend(nodes)
    for name, tensor in tables.items():
        values = numpy_helper.to_array(tensor)
        scale = np.abs(values).max(axis=1, keepdims=True) / LEVELS
        scale = np.where(scale > 0, scale, 1).astype(np.float32)
        graph.initializer.remove(tensor)
        graph.initializer.append(
            numpy_helper.from_array(np.rint(values / scale).astype(np.int8), f"{name}.int8")
        )
        graph.initializer.append(numpy_helper.from_array(scale, f"{name}.scale"))
    return len(tables)


def _gathers(node: Any, table: str) -> bool:
    """Whether a node reads rows of the table."""
    if node is None or node.op_type != "Gather" or node.input[0] != table:
        return False
    return all(attribute.i == 0 for attribute in node.attribute if attribute.name == "axis")


def _widened(gather: Any) -> list[Any]:
    from onnx import TensorProto, helper

    (table, rows), (output,) = gather.input, gather.output
    return [
        helper.make_node("Gather", [f"{table}.int8", rows], [f"{output}.int8"], name=f"{output}.rows"),
        helper.make_node(
            "Cast", [f"{output}.int8"], [f"{output}.wide"], name=f"{output}.cast", to=TensorProto.FLOAT
        ),
        helper.make_node("Gather", [f"{table}.scale", rows], [f"{output}.scale"], name=f"{output}.scales"),
        helper.make_node("Mul", [f"{output}.wide", f"{output}.scale"], [output], name=f"{output}.widen"),
    ]
