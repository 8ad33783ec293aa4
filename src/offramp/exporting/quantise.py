"""Static int8: one scale a weight column, one a tensor of activations, fixed on real texts before use.

Dynamic quantisation takes the activations' scale from the batch at hand, so that batch mates change each other's
answers; here the scales are part of the graph.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from offramp._core.errors import MissingExtraError
from offramp.engine.batching import Encoding, batches
from offramp.engine.manifest import Manifest
from offramp.engine.onnx import OnnxSegments, OnnxState
from offramp.exporting.attention import fold_attention
from offramp.exporting.embeddings import narrow_embeddings
from offramp.exporting.fold import DOMAIN, fold_products
from offramp.exporting.graphs import silent
from offramp.exporting.smooth import smooth

QUANTISED = ("MatMul", "Gemm")
NARROW = 16  # a head's last layer has a column a class: too few to pay, and nearest to the answer


def calibration_feeds(
    segments: OnnxSegments, encodings: Sequence[Encoding], pad_values: Mapping[str, int], batch_size: int = 16
) -> Iterator[tuple[int, OnnxState]]:
    """Every segment's inputs on every batch, as (segment, tensors by name)."""
    for _, batch in batches(encodings, batch_size, pad_values, alike=segments.reads_padding):
        state = segments.start(batch)
        for k, segment in enumerate(segments.manifest.segments):
            yield k, {name: state[name] for name in segment.inputs}
            state, _ = segments.run(k, state)


def quantise(source: Path, target: Path, manifest: Manifest, encodings: Sequence[Encoding]) -> None:
    """Write the int8 twin of every float32 graph of a folder.

    Args:
        source: folder of the float32 graphs, with its manifest.
        target: where the int8 graphs go, under the same names.
        manifest: of the float32 graphs.
        encodings: real texts on which the activations' ranges are taken, some hundred.

    Raises:
        MissingExtraError: without `onnx`.
    """
    segments = OnnxSegments(source, verify=False)
    feeds: list[list[OnnxState]] = [[] for _ in manifest.segments]
    for k, tensors in calibration_feeds(segments, encodings, manifest.pad_values):
        feeds[k].append(tensors)
    for segment, inputs in zip(manifest.segments, feeds, strict=True):
        quantise_graph(source / segment.file, target / segment.file, inputs)


def quantise_graph(source: Path, target: Path, feeds: Sequence[OnnxState], *, fold: bool = True) -> None:
    """One graph; attention's products of two activations, norms and poolings stay in float32.

    Where a few channels are far larger than the others they are evened out first; see `offramp.exporting.smooth`.

    Args:
        source: the float32 graph.
        target: the int8 graph.
        feeds: its inputs on real texts.
        fold: write attention as one operator, and products with their biases as one of ONNX Runtime's own; see
            `offramp.exporting.attention` and `offramp.exporting.fold`.

    Raises:
        MissingExtraError: without `onnx`.
    """
    try:
        import onnx
        from onnxruntime import quantization as q
    except ImportError as error:
        raise MissingExtraError("onnx", "export") from error

    class Reader(q.CalibrationDataReader):
        def __init__(self) -> None:
            self.feeds = iter(feeds)

        def get_next(self) -> OnnxState | None:
            return next(self.feeds, None)

    model = onnx.load(str(source))
    narrow_embeddings(model.graph)
    if fold:
        model = fold_attention(model)
    excluded = unsuited(model.graph)
    smooth(model, [node.name for node in model.graph.node if node.name not in excluded], feeds)
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
            calibrate_method=q.CalibrationMethod.MinMax,  # its others cannot take batches of several lengths
            reduce_range=True,  # 7-bit weights: with 8, sums saturate on CPUs without VNNI, which then answer otherwise
            extra_options={
                "WeightSymmetric": True,
                "OpTypesToExcludeOutputQuantization": list(QUANTISED),
                "CalibMovingAverage": True,  # a range for the largest value ever seen leaves all others few levels
            },
        )
    if fold:
        model = onnx.load(str(target))
        if fold_products(model.graph) and DOMAIN not in {entry.domain for entry in model.opset_import}:
            model.opset_import.append(onnx.helper.make_opsetid(DOMAIN, 1))
        onnx.save(model, str(target))


def unsuited(graph: Any) -> list[str]:
    """Names of the matrix products whose second factor is no large weight: attention's own, and the heads' last."""
    widths = {tensor.name: min(tensor.dims) for tensor in graph.initializer if len(tensor.dims) == 2}
    return [
        node.name
        for node in graph.node
        if node.op_type in QUANTISED and widths.get(node.input[1], 0) < NARROW
    ]
