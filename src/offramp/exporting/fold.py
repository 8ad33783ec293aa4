"""Quantised matrix products with their bias as one operator: ONNX Runtime does not join them by itself."""

from __future__ import annotations

from typing import Any

from offramp.exporting.joining import used

DOMAIN = "com.microsoft"
FUSED = "MatMulIntegerToFloat"


def fold_products(graph: Any) -> int:
    """Write `dequantise(A) · dequantise(B) + bias` as one operator of ONNX Runtime, in place.

    The bias is then added while the product is still in the cache; as an operator of its own it takes a tenth of the
    time of a quantised MiniLM.

    Args:
        graph: `onnx.GraphProto` in QDQ form.

    Returns:
        How many products were folded.
    """
    made = {output: node for node in graph.node for output in node.output}
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    outputs = {value.name for value in graph.output}
    vectors = {tensor.name for tensor in graph.initializer if len(tensor.dims) == 1}
    folded: dict[str, Any] = {}  # the node that goes in the place of an addition or product, by its output
    dropped: set[str] = set()
    for node in graph.node:
        if node.op_type != "MatMul":
            continue
        sides = [made.get(name) for name in node.input]
        if any(side is None or side.op_type != "DequantizeLinear" for side in sides):
            continue
        after = readers.get(node.output[0], [])
        bias = _bias(node.output[0], after, vectors) if node.output[0] not in outputs else ""
        end = after[0] if bias else node
        folded[end.output[0]] = _fused(sides, bias, end)
        dropped |= {node.output[0], end.output[0]}
    nodes = [
        folded.get(node.output[0], node)
        for node in graph.node
        if node.output[0] in folded or node.output[0] not in dropped
    ]
    del graph.node[:]
    graph.node.extend(used(nodes, outputs))
    return len(folded)


def _bias(product: str, after: list[Any], vectors: set[str]) -> str:
    """The constant vector that is added to a product and to nothing else, or ""."""
    if len(after) != 1 or after[0].op_type != "Add":
        return ""
    other = next((name for name in after[0].input if name != product), "")
    return other if other in vectors else ""


def _fused(sides: list[Any], bias: str, end: Any) -> Any:
    from onnx import helper

    (a, a_scale, a_zero), (b, b_scale, b_zero) = (tuple(side.input) for side in sides)
    inputs = [a, b, a_scale, b_scale, a_zero, b_zero, *([bias] if bias else [])]
    return helper.make_node(FUSED, inputs, [end.output[0]], name=f"{end.name}.{FUSED}", domain=DOMAIN)
