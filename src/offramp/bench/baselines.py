"""The baselines of a speed-up: full depth in every runtime, smaller models, earlier designs; and our engines."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offramp._core.damaged_files import first_sentence
from offramp._core.errors import MissingExtraError, ModelError
from offramp.bench.optimum_peers import FOLDER as OPTIMUM
from offramp.bench.optimum_peers import OptimumEnvironment, RemotePeer, last_member
from offramp.bench.text_peers import FOLDER, SETFIT, Second, TextPeer, read_text_peer
from offramp.engine.agreement import run_reference
from offramp.engine.batching import Encoding, pad
from offramp.engine.compaction import CompactingEngine
from offramp.engine.file_encoder import FileEncoder
from offramp.engine.manifest import Manifest
from offramp.engine.onnx import OnnxSegments, SpinningGraph, thread_count
from offramp.engine.onnx_engine import onnx_engine
from offramp.engine.policy import Policy

Answers = Callable[[Sequence[Any]], NDArray[Any]]  # one batch, of token ids or texts, to its answers (batch,)


@dataclass(frozen=True)
class BenchArtifacts:
    """The files that baselines are built from: paths, so that each baseline can be built in its own process.

    Attributes:
        model: folder of the trained model.
        work: folder of its exports, written by `offramp.bench.artifacts.prepare`.
        threads: CPU threads of every baseline.
        layers: exit layers of the model, counted from 1; 0 for an exit before the first layer.
        text_peers: names of the baselines that learn from texts; see `offramp.bench.text_peers`.
        optimum: another environment whose baselines take part; None for none.
        drops: further drops in score for which our int8 engine is tuned and timed.
    """

    model: Path
    work: Path
    threads: int
    layers: tuple[int, ...]
    text_peers: tuple[str, ...] = ()
    optimum: OptimumEnvironment | None = None
    drops: tuple[float, ...] = ()

    def policy_file(self, drop: float) -> Path:
        """Where the policy for one of `drops` is."""
        return self.work / "policies" / f"drop-{drop:g}.json"


@dataclass(frozen=True)
class Baseline:
    """One way to answer.

    Attributes:
        build: makes it.
        kind: `full` for the whole model, `cut` for a smaller one, `earlier` for an earlier design of early exits,
            `text` for a classifier that reads words, alone or before one of these models, `ours`, and `point` for
            ours under another policy.
        precision: of the weights that decide where texts leave.
        layer: last layer of a smaller model; None for the others.
        reads_text: whether it is given texts, not token ids.
        policy: file of our engine's policy; None for the policy of the export.
    """

    build: Callable[[BenchArtifacts], Answers]
    kind: str
    precision: str = "fp32"
    layer: int | None = None
    reads_text: bool = False
    policy: Path | None = None


def eager(artifacts: BenchArtifacts, compiled: bool = False) -> Answers:
    """The library's own forward to full depth, and the last head; as it is, or through torch.compile."""
    import torch

    from offramp.exporting.graphs import silent

    model, pad_values = _torch_model(artifacts)
    last = last_member(model)
    backbone, head = last.backbone, last.heads[-1]
    names = ("input_ids", "attention_mask", "token_type_ids")[: 3 if last.driver.spec.token_types else 2]

    def forward(batch: dict[str, Any]) -> Any:
        hidden = backbone(**batch).last_hidden_state
        if last.driver.final_norm is not None:  # the head norms for itself
            state = last.start(batch)
            for k in range(len(last.exit_layers)):
                state = last.segment(k, state)
            hidden = state.hidden
        return head(hidden, batch["attention_mask"])[0]

    with silent():
        run: Any = torch.compile(forward, dynamic=True) if compiled else forward

    def answer(encodings: Sequence[Encoding]) -> NDArray[Any]:
        batch = {name: torch.as_tensor(v) for name, v in pad(encodings, pad_values).items() if name in names}
        with torch.no_grad():
            return _answers(run(batch).numpy())

    return answer


def graph(artifacts: BenchArtifacts, file: str, lean: bool = False) -> Answers:
    """One graph in ONNX Runtime, by default or without the fusions that make it slower; threads as in our engine."""
    manifest = Manifest.load(artifacts.work / "fp32")
    session = SpinningGraph(artifacts.work / "full" / file, artifacts.threads, manifest, lean=lean)

    def answer(encodings: Sequence[Encoding]) -> NDArray[Any]:
        batch = pad(encodings, manifest.pad_values)
        return _answers(session.run(["logits"], {name: batch[name] for name in session.inputs})[0])

    return answer


def openvino_graph(artifacts: BenchArtifacts, file: str) -> Answers:
    """One graph in OpenVINO by default: float32 graphs run in bfloat16 where the processor has it.

    Raises:
        ModelError: this OpenVINO cannot run the graph.
    """
    try:
        import openvino
    except ImportError as error:
        raise MissingExtraError("openvino", "bench") from error
    manifest = Manifest.load(artifacts.work / "fp32")
    path = artifacts.work / "full" / file
    options = {"INFERENCE_NUM_THREADS": thread_count(artifacts.threads), "PERFORMANCE_HINT": "LATENCY"}
    try:
        request = openvino.Core().compile_model(str(path), "CPU", options).create_infer_request()
    except Exception as error:  # the binding raises bare RuntimeError and its own classes
        reason = first_sentence(error)
        raise ModelError(f"openvino {openvino.__version__} cannot run {path.name}: {reason}") from error
    inputs = [value.get_any_name() for value in request.model_inputs]

    def answer(encodings: Sequence[Encoding]) -> NDArray[Any]:
        batch = pad(encodings, manifest.pad_values)
        return _answers(np.array(request.infer({n: batch[n] for n in inputs}, share_inputs=True)[0]))

    return answer


def eager_compaction(artifacts: BenchArtifacts) -> Answers:
    """Rows that leave are taken out of an eager batch (FastBERT): our engine on torch."""
    engine = _torch_engine(artifacts)
    return lambda encodings: engine.run(encodings).prediction


def eager_one_by_one(artifacts: BenchArtifacts) -> Answers:
    """One text after another, eager, until it may leave (DeeBERT, PABEE)."""
    engine = _torch_engine(artifacts)
    return lambda encodings: run_reference(engine.segments, engine.policy, encodings).prediction


def exported_folder(artifacts: BenchArtifacts, precision: str, policy: Path | None = None) -> Answers:
    """Our engine on an exported folder, under its policy or another."""
    engine = make_engine(artifacts, precision, policy)
    return lambda encodings: engine.run(encodings).prediction


def make_engine(
    artifacts: BenchArtifacts, precision: str, policy: Path | None = None
) -> CompactingEngine[Any]:
    """The engine of `exported_folder`; a batch is as large as the request."""
    segments = OnnxSegments(artifacts.work / precision, threads=1, verify=False)
    rule = segments.policy() if policy is None else Policy.load(policy)
    return onnx_engine(segments, rule, threads=artifacts.threads, batch_size=1024)


def text_peer(artifacts: BenchArtifacts, name: str) -> TextPeer:
    """A baseline that reads texts; its second model is a static int8 graph, whose tokenisation is part of the time."""
    if name == SETFIT:
        import torch

        torch.set_num_threads(artifacts.threads)
    encoder = FileEncoder(artifacts.work / "int8", Manifest.load(artifacts.work / "int8"))

    def open_second(layer: int) -> Second:
        run = graph(artifacts, int8_graph(layer, artifacts.layers), lean=True)
        return lambda texts: run(encoder(*zip(*texts, strict=True)))

    return read_text_peer(artifacts.work / FOLDER, name, open_second)


def optimum_peer(artifacts: BenchArtifacts, name: str) -> RemotePeer:
    """A baseline of another environment."""
    assert artifacts.optimum is not None, "its names come from there"
    return RemotePeer(artifacts.optimum.python, name, artifacts.work / OPTIMUM, artifacts.threads)


def int8_graph(layer: int, layers: Sequence[int]) -> str:
    """The file of the static int8 model of so many layers, in the folder `full`."""
    return "static.onnx" if layer == layers[-1] else f"cut-{layer}.onnx"


def find_baselines(artifacts: BenchArtifacts) -> dict[str, Baseline]:
    """All baselines that this machine has the libraries for, by name; speed-ups are relative to the first."""
    baselines = {
        "eager-full": Baseline(eager, "full"),
        "compiled-full": Baseline(partial(eager, compiled=True), "full"),
        "ort-fp32-full": Baseline(partial(graph, file="fp32.onnx"), "full"),
        "ort-dynamic-int8-full": Baseline(partial(graph, file="dynamic.onnx"), "full"),
        "ort-static-int8-full": Baseline(partial(graph, file="static.onnx", lean=True), "full"),
    }
    if importlib.util.find_spec("openvino") is not None:
        baselines["openvino-full"] = Baseline(partial(openvino_graph, file="fp32.onnx"), "full")
        if importlib.util.find_spec("nncf") is not None:
            baselines["openvino-nncf-full"] = Baseline(partial(openvino_graph, file="nncf.xml"), "full")
    for name in artifacts.optimum.peers if artifacts.optimum else ():
        baselines[name] = Baseline(partial(optimum_peer, name=name), "full", reads_text=True)
    for layer in filter(None, artifacts.layers[:-1]):  # layer 0 is no graph
        build = partial(graph, file=int8_graph(layer, artifacts.layers), lean=True)
        baselines[f"cut-{layer}"] = Baseline(build, "cut", layer=layer)
    for name in artifacts.text_peers:
        baselines[name] = Baseline(partial(text_peer, name=name), "text", reads_text=True)
    baselines["eager-exits"] = Baseline(eager_one_by_one, "earlier")
    baselines["eager-compaction"] = Baseline(eager_compaction, "earlier")
    baselines["ours-fp32"] = Baseline(partial(exported_folder, precision="fp32"), "ours")
    baselines["ours-int8"] = Baseline(partial(exported_folder, precision="int8"), "ours", "int8")
    for drop in artifacts.drops:
        file = artifacts.policy_file(drop)
        build = partial(exported_folder, precision="int8", policy=file)
        baselines[f"ours-int8-drop-{drop:g}"] = Baseline(build, "point", "int8", policy=file)
    return baselines


def in_batches(run: Answers, requests: Sequence[Any]) -> NDArray[Any]:
    """Answers to many texts, in requests of 32."""
    return np.concatenate([run(requests[i : i + 32]) for i in range(0, len(requests), 32)])


def _torch_engine(artifacts: BenchArtifacts) -> CompactingEngine[Any]:
    from offramp.inference.segments import TorchSegments

    model, pad_values = _torch_model(artifacts)
    policy = Policy.load(artifacts.work / "fp32" / Manifest.load(artifacts.work / "fp32").policy)
    segments = TorchSegments(model, residuals=policy.criterion.needs_residual)
    return CompactingEngine(segments, policy, pad_values=pad_values, batch_size=1024)


def _torch_model(artifacts: BenchArtifacts) -> tuple[Any, Mapping[str, int]]:
    """The model and the padding values of its inputs."""
    import torch

    from offramp.model import read_model
    from offramp.model.encoding import TextEncoder

    torch.set_num_threads(artifacts.threads)
    model = read_model(artifacts.model)
    return model.eval(), TextEncoder.of(model).pad_values


def _answers(logits: NDArray[Any]) -> NDArray[Any]:
    """Class indices, or values for regression."""
    return logits[:, 0] if logits.shape[1] == 1 else np.asarray(logits.argmax(axis=1))
