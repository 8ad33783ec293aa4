"""Embedding tables in int8, one scale a row: most of a small encoder's bytes, of which a text reads a few rows."""

from __future__ import annotations

from typing import Any

import numpy as np

MIN_ROWS = 1000  # positions and token types are too few to pay
LEVELS = 127


def narrow_embeddings(graph: Any) -> int:
    """Keep large tables that rows are gathered from as int8, and widen the rows that were gathered, in place.

    A row's scale comes from its largest value, so a text's answer depends on no other text.

    Args:
        graph: `onnx.GraphProto` in float32.

    Returns:
        How many tables were narrowed.
    """
    from onnx import TensorProto, numpy_helper

    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
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
