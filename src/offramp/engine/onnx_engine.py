"""The engine of an exported folder on the CPU: one core a thread, batches cut by the times of its segments."""

from __future__ import annotations

from collections.abc import Mapping

from offramp.engine.compaction import CompactingEngine
from offramp.engine.fused_graph import SingleGraph, fits
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
    """Batches run side by side, each in a thread of its own; a text that comes alone has all threads to itself.

    Several threads that share a batch wait for each other at every operator; batches of their own let them work on.

    Args:
        segments: opened with one thread.
        policy: when to leave.
        threads: CPU threads; by default as many as the process may use.
        batch_size: rows of a batch at most.
        pad_values: what to pad each input with, by name; 0 where not given.
        pools: let rows of several batches wait for each other; see `PoolingEngine`.

    Raises:
        CriterionError: the policy was made for another model.
        ModelError: a single graph that this ONNX Runtime cannot run.
    """
    workers = thread_count(threads)
    times = known_times(segments)
    if pools:
        if times is None:
            example = segments.encoder()(["word " * 9])[0]
            times = measure_segments(segments, example, threads=1, longest=segments.manifest.max_length)
        return PoolingEngine(
            segments, policy, times, batch_size=batch_size, pad_values=pad_values, workers=workers
        )
    policy.check(segments.exit_layers, segments.kind, segments.gates)
    single = None
    if fits(segments.manifest, policy):
        single = SingleGraph(segments.folder, segments.manifest, policy, threads, segments.single)
    return CompactingEngine(
        segments,
        policy,
        batch_size=batch_size,
        pad_values=pad_values,
        single=single,
        times=times or guess_times(segments),
        workers=workers,
    )


def known_times(segments: OnnxSegments) -> SegmentTimes | None:
    """What the export says of its segments' times in one thread, where it was made on a processor like this one."""
    if not segments.manifest.times:
        return None
    found = SegmentTimes.from_dict(segments.manifest.times)
    return found if found.fits(len(segments.exit_layers), threads=1) else None
