"""An exported folder as the engine's segments and encoder: ONNX Runtime, tokenizers and numpy, no torch."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offramp._core.arguments import choice, whole
from offramp._core.environment import usable_cores
from offramp._core.errors import ConfigError, MissingExtraError, ModelError
from offramp._core.paths import UserPath, user_path
from offramp._core.trace import Evidence, Kind
from offramp.costs import CostModel
from offramp.engine.cores import Cores
from offramp.engine.file_encoder import FileEncoder
from offramp.engine.manifest import AGAIN, FILE_NAME, Manifest
from offramp.engine.policy import Policy
from offramp.engine.segments import Batch
from offramp.layer_zero import LinearStage

OnnxState = Mapping[str, NDArray[Any]]  # tensors by name; all except the shared ones start with the batch


class OnnxSegments:
    """Runs the graphs of an exported folder segment by segment.

    Every segment is a session with its own thread pool, and one pool works at a time. Waiting pools must sleep:
    spinning pools take its cores and halve its speed. Several threads may share one object. With
    `threads=1` a call runs in the thread that makes it, so every thread can use its own core.

    Args:
        folder: a folder that `offramp export` wrote.
        threads: CPU threads; by default as many as the process may use.
        verify: compare every file with its checksum first.
        device: `cpu`, or `cuda` if onnxruntime has that provider.
        fused_threads: CPU threads of the fused graph, if there is one; None does not open it.

    Attributes:
        manifest: the folder's manifest.
        linear: the stage before the first layer, or None.
        ahead: number of exits before the first graph: 1 with `linear`, else 0.
        residuals: whether the evidence has residuals; the folder was then exported with a rule that needs them.
        labels: class names; empty for regression.
        fused_graph: the fused graph; None if it was not opened.

    Raises:
        ModelError: not an exported folder, missing or changed files, or graphs that this ONNX Runtime cannot run.
        MissingExtraError: without `onnxruntime`.
        ConfigError: `threads` below 1, or a device that is not available.
    """

    def __init__(
        self,
        folder: UserPath,
        *,
        threads: int | None = None,
        verify: bool = True,
        device: str = "cpu",
        fused_threads: int | None = None,
    ) -> None:
        self.folder = user_path(folder)
        self.manifest = Manifest.load(self.folder)
        self.exit_layers = self.manifest.exit_layers
        self.kind: Kind = self.manifest.kind
        self.gates = self.manifest.gates
        self.reads_padding = self.manifest.reads_padding
        self.labels = self.manifest.labels
        try:
            self.flops = CostModel.from_dict(self.manifest.costs)
        except ModelError as error:
            raise ModelError(
                f"the costs in {self.folder / FILE_NAME} are damaged ({error}): {AGAIN}"
            ) from error
        with ThreadPoolExecutor(1) as pool:  # checksums take as long as loading: run both in parallel
            checked = pool.submit(self.manifest.verify, self.folder) if verify else None
            try:
                self._open(threads, device, fused_threads)
            finally:  # "the file is damaged" is clearer than the library's own error
                if checked is not None:
                    checked.result()
        self.linear = LinearStage.load(self.folder / self.manifest.linear) if self.manifest.linear else None
        self.ahead = len(self.exit_layers) - len(self.manifest.segments)
        self.residuals = all("residual" in segment.outputs for segment in self.manifest.segments)
        self._shared = frozenset(self.manifest.shared)
        # Inputs of segment k and all later ones: the rest of the state is dropped as soon as possible.
        self._needed = [
            frozenset(name for segment in self.manifest.segments[k:] for name in segment.inputs)
            for k in range(len(self.manifest.segments) + 1)
        ]

    def _open(self, threads: int | None, device: str, fused_threads: int | None) -> None:
        """Load the graphs in parallel, the largest first."""
        load = partial(open_session, manifest=self.manifest, lean=True)
        with ThreadPoolExecutor(usable_cores()) as pool:
            fused = None
            if fused_threads is not None and self.manifest.fused_graph:
                path = self.folder / self.manifest.fused_graph
                fused = pool.submit(SpinningGraph, path, fused_threads, self.manifest, lean=True)
            sessions = [
                pool.submit(load, self.folder / segment.file, threads, device=device)
                for segment in self.manifest.segments
            ]
            self.sessions = [session.result() for session in sessions]
            self.fused_graph = None if fused is None else fused.result()

    def start(self, batch: Batch) -> OnnxState:
        """The batch itself, since embeddings belong to the first segment."""
        missing = self._needed[0] - set(batch) - {n for p in self.manifest.segments for n in p.outputs}
        if "token_type_ids" in missing:
            batch = {**batch, "token_type_ids": np.zeros_like(batch["input_ids"])}
        elif missing:
            raise ModelError(
                f"the model reads {sorted(missing)}, got {sorted(batch)}: encode with its own tokenizer"
            )
        return {name: np.ascontiguousarray(values, dtype=np.int64) for name, values in batch.items()}

    def run(self, k: int, state: OnnxState) -> tuple[OnnxState, Evidence]:
        if self.linear is not None and k == 0:
            evidence = self.linear.evidence(state, len(self.exit_layers), self.gates)
            return state, replace(
                evidence, residual=np.zeros(len(evidence.logits))
            ) if self.residuals else evidence
        graph = k - self.ahead
        segment = self.manifest.segments[graph]
        values = self.sessions[graph].run(segment.outputs, {name: state[name] for name in segment.inputs})
        outputs = dict(zip(segment.outputs, values, strict=True))
        evidence = Evidence(
            k,
            len(self.exit_layers),
            outputs.pop("logits"),
            outputs.pop("gate", None),
            residual=outputs.pop("residual", None),
        )
        return {
            name: v for name, v in {**state, **outputs}.items() if name in self._needed[graph + 1]
        }, evidence

    def take(self, state: OnnxState, rows: NDArray[np.intp]) -> OnnxState:
        return {name: v if name in self._shared else v[rows] for name, v in state.items()}

    def join(self, states: Sequence[OnnxState]) -> OnnxState:
        return {
            name: v if name in self._shared else np.concatenate([state[name] for state in states])
            for name, v in states[0].items()
        }

    def encoder(self) -> FileEncoder:
        """The tokenizer of the folder."""
        return FileEncoder(self.folder, self.manifest)

    def policy(self) -> Policy:
        """The policy that was exported with the model; `ModelError` for none."""
        if not self.manifest.policy:
            raise ModelError(
                f"{self.folder} was exported without a policy: pass one, or export with --policy FILE"
            )
        return Policy.load(self.folder / self.manifest.policy)


# Fusions that make ONNX Runtime slower on a CPU, measured on 1,700 tokens of MiniLM-L6: its fused sum and norm takes
# 2.9 ms where the two operators take 0.9 ms, its fused bias and GELU 2.6 ms instead of 1.9 ms.
SLOW_FUSIONS = ("SkipLayerNormFusion", "BiasGeluFusion")
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def open_session(
    path: Path,
    threads: int | None,
    manifest: Manifest | None = None,
    *,
    spinning: Cores | None = None,
    device: str = "cpu",
    lean: bool = False,
) -> Any:
    """Open an ONNX Runtime session. Its threads sleep or spin while they wait for each other.

    Args:
        path: the graph.
        threads: of the CPU; by default as many as the process may use.
        manifest: its version of the export is named in errors.
        spinning: threads spin during a call and stop with it, on these cores, which is faster if they are free.
        device: `cpu` or `cuda`.
        lean: leave out fusions that make a graph slower, and memory plans for every shape.

    Raises:
        ModelError: a graph that this ONNX Runtime cannot run.
        MissingExtraError: without `onnxruntime`.
        ConfigError: `threads` below 1, or a device that is not available.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("onnxruntime", "onnx") from error
    device = choice("device", device, PROVIDERS)
    if PROVIDERS[device] not in onnxruntime.get_available_providers():
        raise ConfigError(
            f"this onnxruntime has no {device}: install onnxruntime-gpu in its place, or use device='cpu'"
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = thread_count(threads)
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning is not None)))
    if spinning is not None and (sets := spinning.for_onnxruntime()):
        options.add_session_config_entry("session.intra_op_thread_affinities", sets)
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.log_severity_level = 3  # errors, which are raised anyway
    options.enable_mem_pattern = not lean
    try:
        return onnxruntime.InferenceSession(
            str(path),
            options,
            providers=list(dict.fromkeys([PROVIDERS[device], PROVIDERS["cpu"]])),
            disabled_optimizers=list(SLOW_FUSIONS) if lean else None,
        )
    except Exception as error:  # the binding's own classes have no common public base
        made = opset = ""
        if manifest is not None:
            made = f", exported with {manifest.versions.get('onnxruntime', 'unknown')}"
            opset = f" (operator set {manifest.opset})"
        raise ModelError(
            f"onnxruntime {onnxruntime.__version__}{made}, cannot run {path.name}{opset}: "
            f"{' '.join(str(error).split())}; upgrade onnxruntime, or {AGAIN}"
        ) from error


class SpinningGraph:
    """One graph whose threads share every request, spin while they wait for each other, and have cores of their own.

    Args:
        path: the graph.
        threads: CPU threads; by default as many as the process may use.
        manifest: its version of the export is named in errors.
        lean: see `open_session`.

    Attributes:
        inputs: names of the graph's inputs.

    Raises:
        ModelError: a graph that this ONNX Runtime cannot run.
    """

    def __init__(self, path: Path, threads: int | None, manifest: Manifest, *, lean: bool = False) -> None:
        self._cores = Cores(thread_count(threads))
        self._session = open_session(path, threads, manifest, spinning=self._cores, lean=lean)
        self.inputs = tuple(value.name for value in self._session.get_inputs())

    def run(self, outputs: Sequence[str], feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """The outputs for inputs `(rows, length)`."""
        with self._cores.caller():
            answers: list[NDArray[Any]] = self._session.run(outputs, feeds)
        return answers


def thread_count(threads: int | None) -> int:
    """The requested number of threads, else that of OMP_NUM_THREADS, else the cores of the process.

    Raises:
        ConfigError: not a whole number of at least 1.
    """
    if threads is not None:
        return whole("threads", threads, 1)
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return (int(limit) if limit.isdigit() else 0) or usable_cores()
