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

from offramp._core.errors import MissingExtraError, ModelError
from offramp.backbones import BackboneState
from offramp.engine.manifest import SegmentFile
from offramp.model import MultiExitForSequenceClassification, MultiModelForSequenceClassification
from offramp.model.base import SegmentedModel

OPSET = 20
PROBES = ((3, 11), (4, 17))  # (batch, length): what differs between them is dynamic
INLINE_BYTES = 1_800_000_000  # a protobuf file ends at 2 GiB; weights beyond that go into a file of their own
ROW, SHARED = "row.", "shared."


@dataclass(frozen=True)
class Exported:
    """The graphs of a model, and the tensors between them that have no batch dimension."""

    segments: tuple[SegmentFile, ...]
    shared: tuple[str, ...]


class FirstSegment(nn.Module):
    """Token ids to the state at a model's first exit, and that exit's answer."""

    def __init__(self, model: MultiExitForSequenceClassification, names: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.names = tuple(names)

    def forward(self, *tensors: Tensor) -> dict[str, Tensor]:
        """Tensors by name; the state only where another segment needs it."""
        state = self.model.segment(0, self.model.start(dict(zip(self.names, tensors, strict=True))))
        carried = {} if len(self.model.exit_layers) == 1 else flatten(state, 0)
        return carried | answer(self.model, 0, state)


class LaterSegment(nn.Module):
    """The state at one exit to the state at the next, and that exit's answer."""

    def __init__(self, model: MultiExitForSequenceClassification, k: int, names: Sequence[str]) -> None:
        super().__init__()
        self.model, self.k = model, k
        self.names = tuple(names)

    def forward(self, *tensors: Tensor) -> dict[str, Tensor]:
        """Tensors by name; masks and biases stay as they were."""
        state = self.model.segment(self.k, unflatten(dict(zip(self.names, tensors, strict=True)), self.k - 1))
        last = self.k == len(self.model.exit_layers) - 1
        return ({} if last else {hidden_name(self.k): state.hidden}) | answer(self.model, self.k, state)


def hidden_name(k: int) -> str:
    """Name of the hidden states at exit `k`: a graph may not call an input and an output the same."""
    return f"hidden.{k + 1}"


def flatten(state: BackboneState, k: int) -> dict[str, Tensor]:
    """The tensors of the state at exit `k` by name; the attention mask is the batch's own, and not among them."""
    rows = {ROW + name: value for name, value in state.rows.items() if value is not None}
    shared = {SHARED + name: value for name, value in state.shared.items() if value is not None}
    return {hidden_name(k): state.hidden, **rows, **shared}


def unflatten(tensors: Mapping[str, Tensor], k: int) -> BackboneState:
    """The inverse of `flatten`."""
    rows: dict[str, Tensor | None] = {n.removeprefix(ROW): v for n, v in tensors.items() if n.startswith(ROW)}
    shared: dict[str, Tensor | None] = {
        n.removeprefix(SHARED): v for n, v in tensors.items() if n.startswith(SHARED)
    }
    return BackboneState(tensors[hidden_name(k)], tensors["attention_mask"], rows, shared)


def answer(model: SegmentedModel, k: int, state: BackboneState) -> dict[str, Tensor]:
    """Logits, and the gate as a probability where there is one."""
    logits, gate = model.head(k, state)
    return {"logits": logits} if gate is None else {"logits": logits, "gate": gate.sigmoid()}


def export_graphs(model: SegmentedModel, inputs: Sequence[str], folder: Path) -> Exported:
    """Write one graph a segment.

    Args:
        model: a multi-exit model or a cascade, whose members become segments that start from the token ids.
        inputs: names of the model's inputs.
        folder: where `segment-K.onnx` go, K counted from 1.

    Returns:
        The graphs, with the names of their inputs and outputs as they are in the files.

    Raises:
        ModelError: the exporter cannot express the architecture.
        MissingExtraError: without `onnxscript`.
    """
    plain = exportable(model)
    batches = [probe(plain, inputs, batch, length) for batch, length in PROBES]
    if isinstance(plain, MultiModelForSequenceClassification):
        members = [plain.member(k) for k in range(len(plain.exit_layers))]
        segments = [
            write(FirstSegment(member, inputs), batches, folder, k)[0] for k, member in enumerate(members)
        ]
        return Exported(tuple(segments), ())
    assert isinstance(plain, MultiExitForSequenceClassification), type(plain)
    segment, states = write(FirstSegment(plain, inputs), batches, folder, 0)
    segments = [segment]
    tensors = [{**b, **s} for b, s in zip(batches, states, strict=True)]
    context = ["attention_mask", *(name for name in states[0] if name.startswith((ROW, SHARED)))]
    for k in range(1, len(plain.exit_layers)):
        names = [hidden_name(k - 1), *context]
        segment, states = write(LaterSegment(plain, k, names), [select(s, names) for s in tensors], folder, k)
        tensors = [{**s, **new} for s, new in zip(tensors, states, strict=True)]
        segments.append(segment)
    return Exported(tuple(segments), tuple(name for name in context if name.startswith(SHARED)))


def exportable(model: SegmentedModel) -> Any:
    """A copy of the model in the form that exports best; the model itself is left as it is."""
    try:
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("onnxscript", "export") from error
    plain = cast(Any, copy.deepcopy(model)).to("cpu", torch.float32).eval()
    plain.set_attn_implementation("eager")  # plain matrix products, which every runtime knows how to fuse
    return plain


def select(tensors: Mapping[str, Tensor], names: Sequence[str]) -> dict[str, Tensor]:
    """Some of the tensors, in this order."""
    return {name: tensors[name] for name in names}


def probe(model: SegmentedModel, inputs: Sequence[str], batch: int, length: int) -> dict[str, Tensor]:
    """Token ids with padding in every row but the first, so that no mask can be traced away."""
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
    """Write one graph; returns its description, and what it gives for each probe."""
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
    except Exception as error:  # the exporter raises whatever its many parts raise
        raise ModelError(
            f"torch {torch.__version__} cannot express segment {k + 1} of this architecture as ONNX "
            f"({type(error).__name__}: {str(error).splitlines()[0][:200]}): run it with backend='torch'"
        ) from error
    graph = program.model.graph
    inputs, outputs = (tuple(str(v.name) for v in values) for values in (graph.inputs, graph.outputs))
    return SegmentFile(path.name, inputs, outputs), given


@contextmanager
def silent() -> Iterator[None]:
    """No log and no warning of the exporter about itself; what fails raises."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
