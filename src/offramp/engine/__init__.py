"""The adaptive engine: policies, batching and compaction over segments of any framework. No torch."""

from offramp.engine.agreement import Agreement, check_agreement, run_reference
from offramp.engine.batching import Encoding, batches, pad
from offramp.engine.compaction import CompactingEngine, Stats
from offramp.engine.policy import Decisions, Policy
from offramp.engine.pools import PoolingEngine
from offramp.engine.segment_times import SegmentTimes, measure_segments
from offramp.engine.segments import Batch, Encoder, Segments, trace_segments
from offramp.engine.timing import Timing, time_interleaved

__all__ = [
    "Agreement",
    "Batch",
    "CompactingEngine",
    "Decisions",
    "Encoder",
    "Encoding",
    "Policy",
    "PoolingEngine",
    "SegmentTimes",
    "Segments",
    "Stats",
    "Timing",
    "batches",
    "check_agreement",
    "measure_segments",
    "pad",
    "run_reference",
    "time_interleaved",
    "trace_segments",
]
