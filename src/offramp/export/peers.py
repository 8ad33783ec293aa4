"""What a speed-up is measured against: the same model to full depth, eager and in ONNX Runtime, and our engines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from offramp._core.errors import MissingExtraError
from offramp.engine.batching import Encoding, pad
from offramp.engine.compaction import CompactingEngine
from offramp.engine.manifest import Manifest
from offramp.engine.onnx import OnnxSegments, open_session
from offramp.engine.policy import Policy
from offramp.export.run import Texts, export_model

if TYPE_CHECKING:
    from offramp.model.base import SegmentedModel

Answers = Callable[[Sequence[Encoding]], NDArray[Any]]  # one batch to its answers (batch,)


@dataclass(frozen=True)
class Contest:
    """All that the peers are built from: paths, so that each can be built in a process of its own.

    Attributes:
        model: folder of the trained model.
        work: folder of its exports, as `prepare` leaves it.
        threads: CPU threads of every peer.
    """

    model: Path
    work: Path
    threads: int


def prepare(model: Path, work: Path, policy: Policy, texts: Texts) -> None:
    """Export a model for every peer: float32 and int8 segments, and one graph of the full depth in both."""
    from offramp.export.graphs import export_full_depth, silent
    from offramp.model import load_model

    loaded = load_model(model)
    manifest = export_model(loaded, work / "fp32", policy=policy, texts=texts)
    export_model(loaded, work / "int8", precision="int8", policy=policy, texts=texts)
    full = work / "full"
    full.mkdir(parents=True, exist_ok=True)
    export_full_depth(loaded, manifest.inputs, full)
    try:
        from onnxruntime.quantization import QuantType, quantize_dynamic
    except ImportError as error:
        raise MissingExtraError("onnx", "export") from error
    with silent():
        quantize_dynamic(
            full / "segment-1.onnx", full / "int8.onnx", per_channel=True, weight_type=QuantType.QInt8
        )


def eager(contest: Contest) -> Answers:
    """The library's own forward to full depth, and the last head."""
    import torch

    model, pad_values = _torch_model(contest)
    last = model.member(len(model.exit_layers) - 1) if "members" in dict(model.named_children()) else model
    backbone, head = last.backbone, last.heads[-1]
    known = ("input_ids", "attention_mask", "token_type_ids")[: 3 if last.driver.spec.token_types else 2]

    @torch.inference_mode()
    def answer(encodings: Sequence[Encoding]) -> NDArray[Any]:
        batch = {name: torch.as_tensor(v) for name, v in pad(encodings, pad_values).items() if name in known}
        hidden = backbone(**batch).last_hidden_state
        if last.driver.final_norm is not None:  # the head norms for itself
            state = last.start(batch)
            for k in range(len(last.exit_layers)):
                state = last.segment(k, state)
            hidden = state.hidden
        return _answers(head(hidden, batch["attention_mask"])[0].numpy())

    return answer


def full_graph(contest: Contest, file: str) -> Answers:
    """One graph to full depth in ONNX Runtime, as it comes: threads that spin, one session."""
    manifest = Manifest.load(contest.work / "fp32")
    session = open_session(contest.work / "full" / file, contest.threads, spinning=True)
    inputs = [value.name for value in session.get_inputs()]

    def answer(encodings: Sequence[Encoding]) -> NDArray[Any]:
        batch = pad(encodings, manifest.pad_values)
        return _answers(session.run(["logits"], {name: batch[name] for name in inputs})[0])

    return answer


def torch_engine(contest: Contest) -> Answers:
    """Our engine on torch, under the policy."""
    from offramp.inference.segments import TorchSegments

    model, pad_values = _torch_model(contest)
    policy = OnnxSegments(contest.work / "fp32", threads=1, verify=False).policy()
    engine: CompactingEngine[Any] = CompactingEngine(
        TorchSegments(model), policy, pad_values=pad_values, batch_size=1024
    )
    return lambda encodings: engine.run(encodings).prediction


def onnx_engine(contest: Contest, precision: str) -> Answers:
    """Our engine on an exported folder, under the policy."""
    segments = OnnxSegments(contest.work / precision, threads=contest.threads, verify=False)
    pad_values = segments.manifest.pad_values
    engine = CompactingEngine(segments, segments.policy(), pad_values=pad_values, batch_size=1024)
    return lambda encodings: engine.run(encodings).prediction


PEERS: dict[str, Callable[[Contest], Answers]] = {
    "eager-full": eager,
    "ort-full": lambda contest: full_graph(contest, "segment-1.onnx"),
    "ort-int8-full": lambda contest: full_graph(contest, "int8.onnx"),
    "ours-torch": torch_engine,
    "ours-fp32": lambda contest: onnx_engine(contest, "fp32"),
    "ours-int8": lambda contest: onnx_engine(contest, "int8"),
}


def _torch_model(contest: Contest) -> tuple[Any, Mapping[str, int]]:
    """The model on the threads of the contest, and what its inputs are padded with."""
    import torch

    from offramp.model import load_model
    from offramp.model.encoding import TextEncoder

    torch.set_num_threads(contest.threads)
    model: SegmentedModel = load_model(contest.model)
    return model, TextEncoder.of(model).pad_values


def _answers(logits: NDArray[Any]) -> NDArray[Any]:
    """Class indices, or values for regression."""
    return logits[:, 0] if logits.shape[1] == 1 else np.asarray(logits.argmax(axis=1))
