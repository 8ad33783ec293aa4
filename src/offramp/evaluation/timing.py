"""Measured speed: adaptive time against full-depth time, with the same batch size and backend, interleaved."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from offramp._core import progress as display
from offramp._core.errors import ConfigError
from offramp.criteria import make_criterion, scores, threshold_grid, with_threshold
from offramp.engine.batching import Encoding
from offramp.engine.compaction import CompactingEngine
from offramp.engine.policy import Policy
from offramp.engine.segments import Segments
from offramp.engine.timing import time_interleaved
from offramp.evaluation.arrow_tables import from_rows

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

    from offramp.model.base import SegmentedModel

TIMED_THRESHOLDS = 5
TIMED_ROUNDS = 3
TIMING = ("threshold", "seconds", "full_seconds", "time_speedup", "speedup_low", "speedup_high")


def time_policy(
    model: SegmentedModel,
    policy: Policy,
    rows: Dataset,
    examples: int,
    *,
    batch_size: int = 32,
    progress: bool = False,
) -> pa.Table:
    """Measured speed-ups against full depth at the policy's threshold and a few others, on the first rows."""
    from offramp.inference.segments import TorchSegments
    from offramp.inference.tracing import trace
    from offramp.model import MultiModelForSequenceClassification
    from offramp.model.encoding import TextEncoder

    first = rows.select(range(min(examples, len(rows))))
    table = scores(policy.criterion, trace(model, first).scaled(policy.temperatures))
    grid = threshold_grid(policy.criterion, table)
    spread = set(np.quantile(grid, np.linspace(0, 1, TIMED_THRESHOLDS), method="nearest").tolist())
    own = policy.criterion.threshold
    full = None
    if isinstance(model, MultiModelForSequenceClassification):
        # At full depth a cascade is its last member: running the others first would gain nothing.
        full = TorchSegments(model.member(len(model.members) - 1))
    thresholds = [*sorted(spread - {own}), own] if isinstance(own, tuple) else sorted(spread | {float(own)})
    with display.progress("time the policy", TIMED_ROUNDS, show=progress, timed=True) as update:
        return time_speedups(
            TorchSegments(model, residuals=policy.criterion.needs_residual),
            policy,
            TextEncoder.of(model).dataset(first)[0],
            thresholds=thresholds,
            full=full,
            batch_size=batch_size,
            repeats=TIMED_ROUNDS,
            watch=lambda done: update(done, None, ""),
        )


def time_speedups(
    segments: Segments[Any],
    policy: Policy,
    encodings: Sequence[Encoding],
    *,
    thresholds: Sequence[float | tuple[float, ...]] | None = None,
    full: Segments[Any] | None = None,
    batch_size: int = 32,
    repeats: int = 5,
    clock: Callable[[], float] = time.perf_counter,
    watch: Callable[[int], object] = lambda done: None,
) -> pa.Table:
    """Time a model under a policy at several thresholds, against the same model run to full depth.

    All of them run in turn in every round, so that a machine that slows down affects all alike.

    Args:
        segments: the model, cut at its exits.
        encodings: the texts, token ids without padding.
        thresholds: to measure at; None takes the policy's own.
        full: the model at full depth. None runs `segments` to the last exit; the heads in between are still
            computed, a few per mille of the work. For a cascade pass its last member alone: as a whole it would
            run all the others first.
        batch_size: for both.
        repeats: timed rounds, after one warm-up round.
        clock: returns seconds.
        watch: called after each round with the number of rounds done.

    Returns:
        One row per threshold: `threshold` (NaN where each exit has its own), `seconds` and `full_seconds` (medians over
        the rounds, for all texts), `time_speedup` (median of full / adaptive time), `speedup_low`, `speedup_high` (its
        extremes).

    Raises:
        ConfigError: there are no texts or no thresholds.
    """
    tried = [policy.criterion.threshold] if thresholds is None else list(thresholds)
    if not tried or not encodings:
        raise ConfigError(f"expected texts and thresholds to time, got {len(encodings)} and {len(tried)}")
    whole = segments if full is None else full
    last = Policy(make_criterion("fixed", len(whole.exit_layers)), whole.exit_layers)
    engines = {"full": CompactingEngine(whole, last, batch_size=batch_size)}
    for threshold in tried:
        rule = with_threshold(policy.criterion, threshold)
        at = replace(policy, criterion=rule)
        engines[repr(threshold)] = CompactingEngine(segments, at, batch_size=batch_size)
    calls = {name: partial(engine.run, encodings) for name, engine in engines.items()}
    timings = time_interleaved(calls, repeats=repeats, warmup=1, clock=clock, watch=watch)
    rows = []
    for threshold in tried:
        timing = timings[repr(threshold)]
        ratios = timings["full"].seconds / timing.seconds  # within rounds, under the same load
        spread = (float(np.median(ratios)), float(ratios.min()), float(ratios.max()))
        shown = np.nan if isinstance(threshold, tuple) else threshold
        rows.append((shown, timing.p50, timings["full"].p50, *spread))
    return from_rows(TIMING, rows)
