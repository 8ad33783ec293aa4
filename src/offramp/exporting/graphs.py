"""Segments as ONNX graphs: embeddings, layers and head between two exits, with dynamic batch and length."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from offramp._core.damaged_files import first_sentence
from offramp._core.errors import MissingExtraError, ModelError
from offramp.backbones import BackboneState
from offramp.engine.manifest import SegmentFile
from offramp.model import MultiExitForSequenceClassification, MultiModelForSequenceClassification
from offramp.model.base import SegmentedModel

OPSET = 20
PROBES = ((3, 11), (4, 17))  # (batch, length): differences between them are dynamic dimensions
INLINE_BYTES = 1_800_000_000  # a protobuf file ends at 2 GiB; larger weights get their own file
ROW, SHARED = "row.", "shared."


@dataclass(frozen=True)
class Exported:
    """The graphs of a model, and the tensors between them that have no batch dimension."""

    segments: tuple[SegmentFile, ...]
    shared: tuple[str, ...]


class SegmentModule(nn.Module):
    """One segment with its head. It takes tensors, either token ids or the state at the previous exit.

    Args:
        model: the model.
        k: the segment, 0-based.
        names: of the input tensors, in order.
        residuals: whether the residual is an output, too.
    """

    def __init__(
        self, model: MultiExitForSequenceClassification, k: int, names: Sequence[str], residuals: bool
    ) -> None:
        super().__init__()
        self.model, self.k, self.names = model, k, tuple(names)
        self.space = model.class_spaces()[k] if residuals else None

    def forward(self, *tensors: Tensor) -> dict[str, Tensor]:
        """Logits, a gate's probability and the residual if any, and the new state if another segment needs it."""
        given, k = dict(zip(self.names, tensors, strict=True)), self.k
        before = self.model.start(given) if k == 0 else read_state(given, k - 1)
        state = cast(BackboneState, self.model.segment(k, before))
        carried = {}
        if k < len(self.model.exit_layers) - 1:
            carried[hidden_name(k)] = state.hidden
            if k == 0:  # masks and biases do not change
                carried |= {ROW + name: value for name, value in state.rows.items() if value is not None}
                carried |= {SHARED + name: value for name, value in state.shared.items() if value is not None}
        logits, gate, residual = self.model.head_and_residual(k, state, self.space)
        answer = {"logits": logits} if gate is None else {"logits": logits, "gate": gate.sigmoid()}
        return carried | answer | ({} if self.space is None else {"residual": residual})


def hidden_name(k: int) -> str:
    """Name of the hidden states at exit `k`: an input and an output of a graph may not share a name."""
    return f"hidden.{k + 1}"


def read_state(tensors: Mapping[str, Tensor], k: int) -> BackboneState:
    """The state at exit `k` from its tensors by name; the attention mask is the batch's own."""

    def under(prefix: str) -> dict[str, Tensor | None]:
        return {n.removeprefix(prefix): value for n, value in tensors.items() if n.startswith(prefix)}

    return BackboneState(tensors[hidden_name(k)], tensors["attention_mask"], under(ROW), under(SHARED))


def export_graphs(
    model: SegmentedModel, inputs: Sequence[str], folder: Path, *, residuals: bool = False
) -> Exported:
    """Write one graph per segment.

    Args:
        model: a multi-exit model or a cascade, whose members become segments that start from the token ids.
        inputs: names of the model's inputs.
        folder: where `segment-K.onnx` go, K counted from 1.
        residuals: whether every graph gives the residual of its exit, too.

    Returns:
        The graphs, with the names of their inputs and outputs as they are in the files.

    Raises:
        ModelError: the exporter cannot express the architecture.
        MissingExtraError: without `onnxscript`.
    """
    try:
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("onnxscript", "export") from error
    plain = cast(Any, copy.deepcopy(model)).to("cpu", torch.float32).eval()
    plain.set_attn_implementation("eager")  # matrix products, which every runtime can fuse
    with plain.without_layer_zero():  # which is no graph
        return _export_segments(plain, inputs, folder, residuals)


def _export_segments(plain: Any, inputs: Sequence[str], folder: Path, residuals: bool) -> Exported:
    exits = range(len(plain.exit_layers))
    tensors = [probe(plain, inputs, batch, length) for batch, length in PROBES]
    if isinstance(plain, MultiModelForSequenceClassification):
        members = [SegmentModule(plain.member(k), 0, inputs, residuals) for k in exits]
        return Exported(tuple(write(member, tensors, folder, k)[0] for k, member in enumerate(members)), ())
    names, context, segments = list(inputs), [], []
    for k in exits:
        given = [select(values, names) for values in tensors]
        segment, states = write(SegmentModule(plain, k, names, residuals), given, folder, k)
        segments.append(segment)
        tensors = [values | new for values, new in zip(tensors, states, strict=True)]
        if k == 0:
            context = [name for name in states[0] if name.startswith((ROW, SHARED))]
        names = [hidden_name(k), "attention_mask", *context]
    return Exported(tuple(segments), tuple(name for name in context if name.startswith(SHARED)))


def select(tensors: Mapping[str, Tensor], names: Sequence[str]) -> dict[str, Tensor]:
    """Some of the tensors, in this order."""
    return {name: tensors[name] for name in names}


def probe(model: SegmentedModel, inputs: Sequence[str], batch: int, length: int) -> dict[str, Tensor]:
    """Token ids with padding in every row except the first, so tracing keeps all masks."""
    generator = torch.Generator().manual_seed(batch)
    pad = model.config.backbone.pad_token_id or 0
    mask = (torch.arange(length) < length - torch.arange(batch)[:, None]).long()
    size = int(model.config.backbone.vocab_size)
    ids = torch.randint(size, (batch, length), generator=generator)
    ids = torch.where(mask.bool(), torch.where(ids == pad, (pad + 1) % size, ids), pad)
    tensors = {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}
    return select(tensors, inputs)


def write(
    module: nn.Module, batches: Sequence[Mapping[str, Tensor]], folder: Path, k: int
) -> tuple[SegmentFile, list[dict[str, Tensor]]]:
    """Write one graph. Return its description, and its outputs for each probe."""
    module.eval()
    with torch.no_grad():
        given = [module(*batch.values()) for batch in batches]
    names = list(batches[0])
    sizes = [[value.shape for value in batch.values()] for batch in batches]
    dynamic = tuple(
        {d: torch.export.Dim.DYNAMIC for d, (a, b) in enumerate(zip(first, two, strict=True)) if a != b}
        for first, two in zip(*sizes, strict=True)
    )
    path = folder / f"segment-{k + 1}.onnx"
    weights = sum(p.numel() * p.element_size() for p in module.parameters())
    try:
        with silent(), torch.no_grad():
            program: Any = torch.onnx.export(
                module,
                tuple(batches[0].values()),
                input_names=names,
                output_names=list(given[0]),
                dynamic_shapes={"tensors": dynamic},
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
            program.save(str(path), external_data=weights > INLINE_BYTES)
    except Exception as error:  # the exporter has many error types
        raise ModelError(
            f"torch {torch.__version__} cannot express segment {k + 1} of this architecture as ONNX "
            f"({first_sentence(_root(error))}): run it with backend='torch'"
        ) from error
    graph = program.model.graph
    inputs, outputs = (tuple(str(v.name) for v in values) for values in (graph.inputs, graph.outputs))
    return SegmentFile(path.name, inputs, outputs), given


def _root(error: BaseException) -> BaseException:
    """The error that an error was raised from, first of all: the exporter's own only lists its steps."""
    return error if error.__cause__ is None else _root(error.__cause__)


@contextmanager
def silent() -> Iterator[None]:
    """Hide the exporter's logs and warnings; failures still raise."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
