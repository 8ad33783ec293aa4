"""Read the weights in an ONNX file without the onnx package."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offramp._core.errors import ModelError

# Field numbers of onnx.proto (ModelProto, GraphProto, NodeProto, TensorProto).
_GRAPH, _NODE, _INITIALIZER = 7, 1, 5
_INPUT, _NODE_NAME, _OPERATOR = 1, 3, 4
_DIMS, _DATA_TYPE, _NAME, _RAW = 1, 2, 8, 9
_FLOAT = 1


def read_weights(path: Path, prefix: str) -> dict[str, NDArray[np.float32]]:
    """Parameters of a torch module that was exported to ONNX, under their names and in their layout in torch.

    The exporter keeps the names of parameters, but it transposes the weights of linear layers, which become nameless
    operands of matrix products. Their nodes carry the layers' names, and the weights are transposed back.

    Args:
        path: the ONNX file, with float32 weights inside.
        prefix: of the module's names in the file, such as "model.0.auto_model.".

    Raises:
        ModelError: not an ONNX file of this kind.
    """
    try:
        graph = next(value for field, value in _fields(memoryview(path.read_bytes())) if field == _GRAPH)
        nodes = [_node(value) for field, value in _fields(graph) if field == _NODE]
        tensors = dict(_tensor(value) for field, value in _fields(graph) if field == _INITIALIZER)
    except (StopIteration, ValueError, IndexError, KeyError, UnicodeDecodeError) as error:
        raise ModelError(f"{path} is not an ONNX file with float32 weights inside: fetch it again") from error
    weights = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
    for node in nodes:
        operand = node[_INPUT][-1] if node[_OPERATOR] == ["MatMul"] else ""
        if operand in tensors:
            layer = node[_NODE_NAME][0].removesuffix("/MatMul").replace("/", ".").partition(prefix)[2]
            weights[f"{layer}.weight"] = np.ascontiguousarray(tensors[operand].T)
    return weights


def _tensor(message: memoryview) -> tuple[str, NDArray[np.float32]]:
    fields = list(_fields(message))
    values = dict(fields)
    if values[_DATA_TYPE] != _FLOAT:
        raise ValueError(f"data type {values[_DATA_TYPE]}")
    shape = [int(value) for field, value in fields if field == _DIMS]
    return bytes(values[_NAME]).decode(), np.frombuffer(values[_RAW], dtype="<f4").reshape(shape)


def _node(message: memoryview) -> dict[int, list[str]]:
    """Names in a node, by field: inputs, name, operator."""
    names: dict[int, list[str]] = {_INPUT: [], _NODE_NAME: [], _OPERATOR: []}
    for field, value in _fields(message):
        if field in names:
            names[field].append(bytes(value).decode())
    return names


def _fields(message: memoryview) -> Iterator[tuple[int, Any]]:
    """Field numbers and values of a protobuf message: integers, or the bytes of anything longer."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        field, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(message, at)
            yield field, value
            continue
        size = {1: 8, 5: 4}.get(wire)
        if wire == 2:
            size, at = _varint(message, at)
        if size is None or at + size > len(message):
            raise ValueError(f"no protobuf message: wire type {wire} at byte {at}")
        yield field, message[at : at + size]
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """An integer in groups of seven bits, lowest first, and the position after it."""
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
