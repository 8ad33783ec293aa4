"""The engine of an exported folder on the CPU: one core a thread, batches cut by the times of its segments."""

from __future__ import annotations

from collections.abc import Mapping

from offramp.engine.compaction import CompactingEngine
from offramp.engine.fused_graph import FusedGraph, fits
from offramp.engine.onnx import OnnxSegments, OnnxState, thread_count
from offramp.engine.policy import Policy
from offramp.engine.pools import PoolingEngine
from offramp.engine.segment_times import SegmentTimes, guess_times, measure_segments


def onnx_engine(
    segments: OnnxSegments,
    policy: Policy,
    *,
    threads: int | None = None,
    batch_size: int = 32,
    pad_values: Mapping[str, int] | None = None,
    pools: bool = False,
) -> CompactingEngine[OnnxState]:
    """Batches run side by side, each in its own thread; a text that comes alone has all threads to itself.

    Threads that share a batch wait for each other at every operator. Threads with batches of their own do not.

    Args:
        segments: opened with one thread.
        policy: when to leave.
        threads: CPU threads; by default as many as the process may use.
        batch_size: rows of a batch at most.
        pad_values: the padding value of each input, by name; 0 by default.
        pools: let rows of several batches wait for each other; see `PoolingEngine`.

    Raises:
        CriterionError: the policy was made for another model.
        ModelError: a fused graph that this ONNX Runtime cannot run.
    """
    workers = thread_count(threads)
    times = stored_times(segments)
    if pools:
        if times is None:
            example = segments.encoder()(["word " * 9])[0]
            times = measure_segments(segments, example, threads=1, longest=segments.manifest.max_length)
        return PoolingEngine(
            segments, policy, times, batch_size=batch_size, pad_values=pad_values, workers=workers
        )
    policy.check(segments.exit_layers, segments.kind, segments.gates)
    fused = None
    if fits(segments.manifest, policy):
        fused = FusedGraph(segments.folder, segments.manifest, policy, threads, segments.fused_session)
    return CompactingEngine(
        segments,
        policy,
        batch_size=batch_size,
        pad_values=pad_values,
        fused=fused,
        times=times or guess_times(segments),
        workers=workers,
    )


def stored_times(segments: OnnxSegments) -> SegmentTimes | None:
    """The single-thread times that the export measured, if it ran on a processor like this one."""
    if not segments.manifest.times:
        return None
    times = SegmentTimes.from_dict(segments.manifest.times)
    return times if times.fits(len(segments.exit_layers), threads=1) else None
