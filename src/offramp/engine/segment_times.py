"""Milliseconds of every segment by rows and length, measured on this machine, and the best cuts into batches."""

from __future__ import annotations

from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offramp._core.environment import cpu_model
from offramp._core.errors import ConfigError
from offramp.criteria import make_criterion
from offramp.engine.active_rows import ActiveRows, DecisionBuffer, run_segment
from offramp.engine.batching import MASK, Encoding, PaddedBatch
from offramp.engine.policy import Policy
from offramp.engine.segments import Segments

ROWS = (1, 4, 16, 32)
LENGTHS = (8, 24, 64)
REPEATS = 5
START_TOKENS = 12.0
PIECES = 2  # least batches per thread if cutting is cheap, since some batches finish early


@dataclass(frozen=True)
class SegmentTimes:
    """The milliseconds of running and joining.

    Running segment k on r rows of n tokens takes `fixed[k] + per_token[k]·r·n + per_pair[k]·r·n²`, decisions included.

    Attributes:
        fixed: `(segments,)` per batch.
        per_token: `(segments,)` per token, padding included.
        per_pair: `(segments,)` per pair of tokens of one row.
        copy: per token copied from one batch to another.
        cpu: processor of the measurement.
        threads: CPU threads of the measurement.
    """

    fixed: tuple[float, ...]
    per_token: tuple[float, ...]
    per_pair: tuple[float, ...]
    copy: float
    cpu: str = ""
    threads: int = 0

    def ms(self, k: int, rows: int, length: int) -> float:
        """Milliseconds of segment `k` (0-based) on a number of rows of one padded length."""
        return self.fixed[k] + rows * length * (self.per_token[k] + length * self.per_pair[k])

    def leaving(self, lengths: NDArray[np.int64]) -> NDArray[np.float64]:
        """Milliseconds `(examples, exits)` until a single text leaves at each exit, by its length."""
        powers = np.asarray(lengths, dtype=np.float64)[:, None] ** np.arange(3)
        table = powers @ np.array([self.fixed, self.per_token, self.per_pair])
        return np.cumsum(table, axis=1)

    def since(self, first: int) -> SegmentTimes:
        """The times of segment `first` (0-based) and all later ones."""
        return replace(
            self,
            fixed=self.fixed[first:],
            per_token=self.per_token[first:],
            per_pair=self.per_pair[first:],
        )

    def waiting_pays(self, k: int, rows: int, length: int, batch_size: int) -> bool:
        """Whether a full batch saves more time for these rows than copying them costs."""
        share = self.ms(k, batch_size, length) * rows / batch_size
        return self.ms(k, rows, length) - share > self.copy * rows * length

    def fits(self, segments: int, threads: int) -> bool:
        """Whether the times are of as many segments and threads, on a processor like this one."""
        return (len(self.fixed), self.threads, self.cpu) == (segments, threads, cpu_model())

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> SegmentTimes:
        """The inverse of `asdict`; `ConfigError` for other contents."""
        try:
            fixed, per_token, per_pair = (
                tuple(float(v) for v in stored[name]) for name in ("fixed", "per_token", "per_pair")
            )
            rest = (float(stored["copy"]), str(stored["cpu"]), int(stored["threads"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"expected the fields of SegmentTimes, got {stored!r:.200}") from error
        return cls(fixed, per_token, per_pair, *rest)


def guess_times(segments: Segments[Any]) -> SegmentTimes:
    """Times in proportion to the FLOPs, for machines without measurements. Their unit is unknown.

    The start of a segment is assumed to cost as much as twelve tokens, as on the processors measured so far.
    """
    probes = np.array([16, 64])
    flops_per_token = segments.flops(probes)[0] / probes[:, None]
    rates = np.diff(flops_per_token, axis=1, prepend=0)  # by segment
    per_pair = np.maximum(rates[1] - rates[0], 0) / (probes[1] - probes[0])
    per_token = np.maximum(rates[0] - per_pair * probes[0], 0)
    columns = np.stack([START_TOKENS * per_token, per_token, per_pair])
    fixed, tokens, pairs = map(tuple, columns.tolist())
    return SegmentTimes(fixed, tokens, pairs, copy=0.0)


def measure_segments(
    segments: Segments[Any], example: Encoding, *, threads: int, longest: int = LENGTHS[-1]
) -> SegmentTimes:
    """Measure every segment on a few batch sizes and lengths, in a second or two for a small model.

    Args:
        segments: the model, cut at its exits.
        example: one text, repeated until it is as long as needed.
        threads: CPU threads of the segments, stored with the times.
        longest: the model's maximum length.

    Returns:
        The fitted times, none negative.
    """
    lengths = sorted({min(length, longest) for length in LENGTHS})
    sizes = [(rows, length) for rows in ROWS for length in lengths]
    measured = np.array([time_batch(segments, example, size) for size in sizes])
    powers = np.array([(1, rows * length, rows * length**2) for rows, length in sizes], dtype=np.float64)
    fits = [positive_fit(powers, measured[:, k]) for k in range(len(segments.exit_layers))]
    fixed, per_token, per_pair = map(tuple, np.stack(fits, axis=1).tolist())
    copied = positive_fit(powers[:, 1:2], measured[:, -1]) if len(fits) > 1 else [0.0]
    return SegmentTimes(fixed, per_token, per_pair, float(copied[0]), cpu_model(), threads)


def positive_fit(powers: NDArray[np.float64], ms: NDArray[np.float64]) -> NDArray[np.float64]:
    """Coefficients of at least 0 that fit times with small relative errors."""
    from scipy.optimize import nnls

    coefficients: NDArray[np.float64] = nnls(powers / ms[:, None], np.ones(len(ms)))[0]
    return coefficients


def time_batch(segments: Segments[Any], example: Encoding, size: tuple[int, int]) -> list[float]:
    """Median milliseconds of every segment on a batch (rows, length), and half of those of joining it with itself."""
    exits = len(segments.exit_layers)
    policy = Policy(make_criterion("fixed", exits), segments.exit_layers)
    batch, rows = stretched(example, *size), np.arange(size[0])
    rounds = []
    for _ in range(REPEATS + 1):
        times, joined = [], 0.0
        buffer = DecisionBuffer(size[0])
        before = perf_counter()
        active: ActiveRows[Any] | None = ActiveRows(rows, segments.start(batch), {}, None)
        for k in range(exits):
            assert active is not None, "no text leaves before the last exit"
            state, active = active.state, run_segment(segments, policy, k, active, buffer)
            times.append(1e3 * (perf_counter() - before))
            if k == 1:
                started = perf_counter()
                segments.join([state, state])
                joined = 1e3 * (perf_counter() - started) / 2
            before = perf_counter()
        rounds.append([*times, max(joined, 1e-6)])
    return [float(value) for value in np.median(rounds[1:], axis=0)]


def stretched(example: Encoding, rows: int, length: int) -> PaddedBatch:
    """A batch of copies of one text, repeated or cut to a length, without padding."""
    batch = {name: np.tile(np.resize(values, length), (rows, 1)) for name, values in example.items()}
    return {**batch, MASK: np.ones((rows, length), dtype=np.int64)}


def plan_batches(
    lengths: NDArray[np.int64], batch_size: int, times: SegmentTimes, workers: int = 1
) -> list[int]:
    """Cut rows sorted by length into consecutive batches that take the least time.

    Each batch is padded to its longest row. Small batches of similar lengths waste less on padding, but start
    segments more often. With several threads, no batch may hold more than its share of all rows.

    Args:
        lengths: tokens of each row `(rows,)`, at least one, the longest first.
        batch_size: most rows of a batch.
        times: of the segments on this machine, in one thread.
        workers: threads that run batches in parallel.

    Returns:
        The first row of each batch.
    """
    starts, total = _cheapest(lengths, batch_size, times, np.inf)
    if workers == 1:
        return starts
    return _cheapest(lengths, batch_size, times, total / (PIECES * workers))[0]


def _cheapest(
    lengths: NDArray[np.int64], batch_size: int, times: SegmentTimes, limit: float
) -> tuple[list[int], float]:
    """The cuts with the least sum of milliseconds, and that sum; a batch of several rows keeps within `limit`."""
    fixed, per_token, per_pair = (sum(values) for values in (times.fixed, times.per_token, times.per_pair))
    row = lengths * (per_token + lengths * per_pair)  # cost of a row in a batch of its own length
    best, came_from = np.zeros(len(lengths) + 1), np.zeros(len(lengths) + 1, dtype=np.intp)
    for end in range(1, len(lengths) + 1):
        first = np.arange(max(0, end - batch_size), end)
        ms = fixed + (end - first) * row[first]
        ms[:-1][ms[:-1] > limit] = np.inf
        totals = best[first] + ms
        choice = int(totals.argmin())
        best[end], came_from[end] = totals[choice], first[choice]
    starts, end = [], len(lengths)
    while end:
        end = int(came_from[end])
        starts.append(end)
    return starts[::-1], float(best[-1])
