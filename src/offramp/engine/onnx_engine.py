"""The engine of an exported folder on the CPU: one core per thread, and a fused graph for a single text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from offramp._core.numbers import softmax
from offramp._core.trace import Evidence
from offramp.engine.batching import MASK, Encoding
from offramp.engine.compaction import CompactingEngine, FusedAnswer
from offramp.engine.manifest import Manifest
from offramp.engine.onnx import OnnxSegments, OnnxState, SpinningGraph, thread_count
from offramp.engine.policy import Policy
from offramp.engine.segment_times import SegmentTimes, guess_times
from offramp.layer_zero import LinearStage

OUTPUTS = ("logits", "exit", "probability", "score")


class FusedGraph:
    """Runs one text through one graph, which chooses the exit itself, without returning to Python between exits.

    Args:
        folder, manifest: of an export with a fused graph.
        policy: its rule must be the rule in the graph; see `fits`.
        threads: CPU threads; by default as many as the process may use.
        graph: if it is already open.
        linear: the stage before the first layer, if the model has one; it is asked first.

    Raises:
        ModelError: a graph that this ONNX Runtime cannot run.
    """

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        policy: Policy,
        threads: int | None = None,
        graph: SpinningGraph | None = None,
        linear: LinearStage | None = None,
    ) -> None:
        assert fits(manifest, policy), "ask `fits` first"
        self.graph = graph or SpinningGraph(folder / manifest.fused_graph, threads, manifest, lean=True)
        self.inputs = manifest.inputs
        temperatures = policy.temperatures or (1.0,) * len(manifest.exit_layers)
        self.policy, self.linear = policy, linear
        self.ahead = int(linear is not None)
        self.constants = {
            "threshold": self._threshold(manifest),
            "temperatures": np.array(temperatures[self.ahead :], dtype=np.float64),
        }

    def _threshold(self, manifest: Manifest) -> NDArray[np.float64]:
        """The graph's input: a threshold for each exit in the graph, or in older graphs one for all."""
        exits = np.arange(self.ahead, len(manifest.exit_layers)) if manifest.fused_thresholds else self.ahead
        shape = np.shape(exits)
        return np.broadcast_to(self.policy.criterion.threshold_at(exits), shape).astype(np.float64)

    def __call__(self, encoding: Encoding) -> FusedAnswer:
        ids = np.array([encoding["input_ids"]], dtype=np.int64)
        if self.linear is not None and (answer := self._answer_first(ids)) is not None:
            return answer
        feeds = dict(self.constants)
        for name in self.inputs:
            if name in encoding:
                feeds[name] = np.array([encoding[name]], dtype=np.int64)
            else:
                feeds[name] = np.full(ids.shape, name == MASK, dtype=np.int64)
        logits, exit, probability, score = self.graph.run(OUTPUTS, feeds)
        return FusedAnswer(int(exit) + self.ahead, logits, float(probability), float(score))

    def _answer_first(self, ids: NDArray[np.int64]) -> FusedAnswer | None:
        """The answer of layer 0, or None for a text that goes on. A fused rule has no memory of earlier exits."""
        assert self.linear is not None
        logits = self.linear.logits(ids, np.ones_like(ids))
        evidence = Evidence(0, len(self.policy.exit_layers), logits, layer_zero=True).scaled(
            self.policy.temperatures
        )
        scores, _ = self.policy.criterion.score(evidence, {})
        if not self.policy.criterion.leaves(scores, 0)[0]:
            return None
        return FusedAnswer(0, logits, float(softmax(evidence.logits).max()), float(scores[0]))


def fits(manifest: Manifest, policy: Policy) -> bool:
    """Whether a folder has a fused graph that decides by the policy."""
    if not manifest.fused_graph or manifest.fused_rule != policy.criterion.name:
        return False
    own = isinstance(policy.criterion.threshold, tuple)
    return not policy.recall and (manifest.fused_thresholds or not own)  # the graph keeps no earlier answers


def onnx_engine(
    segments: OnnxSegments, policy: Policy, *, threads: int | None = None, batch_size: int = 32
) -> CompactingEngine[OnnxState]:
    """An engine that runs batches in parallel, each in its own thread; a single text uses all threads.

    Threads that share a batch wait for each other at every operator. Threads with their own batches do not.

    Args:
        segments: opened with one thread.
        policy: when to leave.
        threads: CPU threads; by default as many as the process may use.
        batch_size: most rows of a batch.

    Raises:
        CriterionError: the policy was made for another model.
        ModelError: a fused graph that this ONNX Runtime cannot run.
    """
    policy.check(segments.exit_layers, segments.kind, segments.gates)
    manifest, fused = segments.manifest, None
    if fits(manifest, policy):
        fused = FusedGraph(segments.folder, manifest, policy, threads, segments.fused_graph, segments.linear)
    return CompactingEngine(
        segments,
        policy,
        batch_size=batch_size,
        pad_values=manifest.pad_values,
        fused=fused,
        times=stored_times(segments) or guess_times(segments),
        workers=thread_count(threads),
    )


def stored_times(segments: OnnxSegments) -> SegmentTimes | None:
    """The single-thread times that the export measured, if it ran on a processor like this one."""
    if not segments.manifest.times:
        return None
    times = SegmentTimes.from_dict(segments.manifest.times)
    return times if times.fits(len(segments.exit_layers), threads=1) else None
