"""A fair comparison of speed: every baseline answers the same batch in every round, and its answers are scored."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from offramp._core import progress as display
from offramp._core.arguments import check_share, seed_number, set_fields, whole
from offramp._core.environment import can_compile
from offramp._core.errors import ConfigError, unknown_name
from offramp._core.seeding import generator
from offramp.bench.baselines import Answers, Baseline, BenchArtifacts, find_baselines, in_batches
from offramp.bench.measures import FlopShares, joules, peak_memory
from offramp.bench.optimum_peers import PACKAGES, PeerError, RemotePeer
from offramp.bench.text_peers import Text, TextPeer
from offramp.engine.batching import Encoding
from offramp.engine.timing import Timing, time_interleaved
from offramp.metrics import score

WARMUP = 3
TEXTS, FEWEST, MOST = 256, 8, 64  # texts answered at each batch size, in so many requests
# Seconds of rest before a request, in which threads of torch and OpenVINO stop spinning, then untimed calls: a server
# has its own model in the caches. OpenBLAS's threads spin longest, but a text alone needs its own awake.
ALONE, BATCH = (0.004, 4), (0.1, 1)
OnPeerError = Callable[[PeerError], object]
Tokenise = Callable[[NDArray[np.intp]], Sequence[Encoding]]  # rows of a request to their token ids


@dataclass(frozen=True)
class BenchConfig:
    """The settings of a benchmark.

    Args:
        batch_sizes: texts in a request.
        length: repeat or cut every text to this many tokens; with 0 texts keep their length.
        repeats: how often every request is timed.
        seed: chooses the texts and their order.
        peers: names of the baselines and engines to time; by default all whose libraries are installed.
        memory: measure peak memory, in a process for each baseline; `--memory=false` saves its time.
        drops: time our int8 engine also under policies that may lose so much of the score on calibration rows.
    """

    batch_sizes: tuple[int, ...] = (1, 8, 32)
    length: int = 0
    repeats: int = 3
    seed: int = 0
    peers: tuple[str, ...] = ()
    memory: bool = True
    drops: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for drop in self.drops:
            check_share("drops", drop, unit=" points")
        set_fields(self, seed=seed_number(self.seed), repeats=whole("repeats", self.repeats, 1))
        set_fields(self, length=whole("length", self.length), drops=tuple(sorted(set(self.drops))))


def run_benchmark(
    artifacts: BenchArtifacts,
    encodings: Sequence[Encoding],
    labels: ArrayLike | None,
    config: BenchConfig = BenchConfig(),
    *,
    texts: Sequence[Text] = (),
    metric: str = "accuracy",
    tokenise: Tokenise | None = None,
    progress: bool = False,
    on_peer_error: OnPeerError = lambda error: None,
) -> list[dict[str, Any]]:
    """Time all baselines against each other.

    Texts come in random order, as in traffic, and a timed call is one batch: percentiles are those of a request.

    Args:
        artifacts: the files that the baselines are built from.
        encodings: the texts, at least as many as the largest batch.
        labels: for the score; None leaves it out.
        config: batch sizes, lengths and rounds.
        texts: the same texts as words, for the baselines that read them.
        metric: of the score, a key of `METRICS`.
        tokenise: encodes the texts of a request within the time of every baseline. Without it, and if texts are
            brought to one length, token ids are ready.
        progress: show progress bars.
        on_peer_error: called with the reason when a peer of another environment fails, which is then left out.

    Returns:
        A row for each baseline (`peer`) and batch size: its `kind`, milliseconds a request (`p50`, quartiles `low` and
        `high`, `p95`, `p99`, `mean`), `throughput` in texts a second, `speedup` over the first baseline (median over
        the rounds, which pair the two), `faster` than the fastest full-depth baseline (ratio of the means), `cost` in
        FLOPs as a share of the full model's on the same requests, `share` = faster · cost, the `score` on all texts,
        `peak_mib` of a process that runs this baseline alone, and `joules` a text where the system reports them.

    Raises:
        ConfigError: as `check_baselines`.
    """
    baselines = check_baselines(artifacts, config, len(encodings))
    if config.length:
        encodings, tokenise = [at_length(encoding, config.length) for encoding in encodings], None
    entrants, first_look = {}, "measure memory and score" if config.memory else "measure the score"
    for name, baseline in display.track([*baselines.items()], first_look, show=progress):
        source: Sequence[Any] = texts if baseline.reads_text else encodings
        encode = None if baseline.reads_text else tokenise
        try:
            peak = peak_memory(artifacts, name, source[: max(config.batch_sizes)]) if config.memory else None
            run = baseline.build(artifacts)
            entrants[name] = Entrant(run, source, encode, _score(run, source, labels, metric), peak)
        except PeerError as error:
            on_peer_error(error)
    peers = {name: e.run for name, e in entrants.items() if isinstance(e.run, TextPeer)}
    passed = {name: (peer.layer, peer.passes(texts)) for name, peer in peers.items()}
    shares = FlopShares(artifacts, encodings, passed)
    rows = []
    for size in config.batch_sizes:
        batches = request_batches(encodings, size, config.seed)
        calls, timings = _time(entrants, batches, config.repeats, show=progress, on_peer_error=on_peer_error)
        means = {name: typical(timing, len(batches)) for name, timing in timings.items()}
        best = min(means[name] for name in check_full(timings, baselines))
        first, requested = next(iter(timings.values())), np.concatenate(batches)
        for name, timing in timings.items():
            cost = shares.of(name, baselines[name], requested)
            rows.append(
                {"peer": name, "kind": baselines[name].kind, "batch_size": size, "length": config.length}
                | summary(timing, first, size, means[name])
                | compared(means[name], best, cost)
                | {"score": entrants[name].score, "peak_mib": entrants[name].peak_mib}
                | {"joules": joules(calls[name], size)}
            )
    return rows


@dataclass(frozen=True)
class Entrant:
    """A baseline that is ready.

    Attributes:
        run: answers a request.
        source: what it reads: the token ids of all texts, or the texts.
        tokenise: encodes the texts of a request within its time; None if `source` is read as it is.
        score: on all texts.
        peak_mib: peak memory of its own process.
    """

    run: Answers
    source: Sequence[Any]
    tokenise: Tokenise | None
    score: float | None
    peak_mib: float | None

    def request(self, rows: NDArray[np.intp]) -> Sequence[Any]:
        """What it is given for the texts of a request."""
        return [self.source[row] for row in rows] if self.tokenise is None else self.tokenise(rows)


def _score(run: Answers, source: Sequence[Any], labels: ArrayLike | None, metric: str) -> float | None:
    return None if labels is None else score(metric, np.asarray(labels), in_batches(run, source))


def _time(
    entrants: dict[str, Entrant],
    batches: Sequence[NDArray[np.intp]],
    repeats: int,
    *,
    show: bool,
    on_peer_error: OnPeerError,
) -> tuple[dict[str, Callable[[], object]], dict[str, Timing]]:
    """The timed call of every baseline, and its times, for requests of one size; a peer that ends is taken out."""
    while True:
        try:
            return _time_all(entrants, batches, repeats, show=show)
        except PeerError as error:
            on_peer_error(error)
            del entrants[error.peer]


def _time_all(
    entrants: Mapping[str, Entrant], batches: Sequence[NDArray[np.intp]], repeats: int, *, show: bool
) -> tuple[dict[str, Callable[[], object]], dict[str, Timing]]:
    size = len(batches[0])
    rest, lead = ALONE if size == 1 else BATCH
    for entrant in display.track([*entrants.values()], f"batch {size}: warm up", show=show):
        for batch in batches:  # compilers and shape caches
            entrant.run([entrant.source[i] for i in batch])
    calls = {
        name: requests(entrant.run, entrant.request, batches, lead) for name, entrant in entrants.items()
    }
    rounds = repeats * len(batches)
    remote = [entrant.run for entrant in entrants.values() if isinstance(entrant.run, RemotePeer)]

    def clock() -> float:  # without what goes between processes, which is not part of an answer
        return perf_counter() - sum(peer.overhead for peer in remote)

    with display.progress(f"batch {size}: time rounds", rounds, show=show, timed=True) as update:
        timings = time_interleaved(
            calls,
            repeats=rounds,
            warmup=WARMUP,
            clock=clock,
            rest=rest,
            lead=lead,
            watch=lambda done: update(done, None, ""),
        )
    return calls, timings


def check_baselines(artifacts: BenchArtifacts, config: BenchConfig, texts: int) -> dict[str, Baseline]:
    """The baselines of a benchmark by name, before anything is exported.

    Without names, torch.compile is left out where there is no C++ compiler for it, and baselines that read words are
    left out where texts are brought to one length.

    Raises:
        ConfigError: fewer texts than a batch holds, batch sizes below 1, an unknown name, a baseline that reads words
            for texts of one length, or no baseline to full depth, with which the others are compared.
    """
    sizes, names = config.batch_sizes, config.peers
    if not sizes or min(sizes) < 1 or max(sizes) > texts:
        raise ConfigError(f"batch sizes must lie in 1..{texts}, the number of texts, got {list(sizes)}")
    baselines = find_baselines(artifacts)
    for name in names:
        if name in PACKAGES and name not in baselines:
            raise ConfigError(
                f"{name} runs in an environment of its own: add --optimum ENV/bin/python, with its packages"
            )
        if name not in baselines:
            raise ConfigError(unknown_name("peer", name, baselines))
    words = [name for name, baseline in baselines.items() if config.length and baseline.reads_text]
    if not names:
        left_out = {*words, *([] if can_compile() else ["compiled-full"])}
        return {name: baseline for name, baseline in baselines.items() if name not in left_out}
    if named := sorted(set(words).intersection(names)):
        raise ConfigError(
            f"{', '.join(named)} reads words, which have no length in tokens: leave out length={config.length}, "
            "or name other peers"
        )
    check_full(names, baselines)
    return {name: entry for name, entry in baselines.items() if name in names or entry.kind == "point"}


def check_full(names: Iterable[str], baselines: Mapping[str, Baseline]) -> list[str]:
    """Those of the named baselines that run the whole model; `ConfigError` for none."""
    full = [name for name in names if baselines[name].kind == "full"]
    if not full:
        raise ConfigError(
            f"expected a peer to full depth to compare with, got {', '.join(names)}: add eager-full"
        )
    return full


def at_length(encoding: Encoding, length: int) -> dict[str, list[int]]:
    """The text repeated or cut to so many tokens; its first and last token keep their positions."""
    stretched = {}
    for name, values in encoding.items():
        inner = list(values[1:-1]) or list(values[:1])
        stretched[name] = [values[0], *np.resize(inner, max(length - 2, 0)).tolist(), values[-1]][:length]
    return stretched


def request_batches(encodings: Sequence[Encoding], size: int, seed: int) -> list[NDArray[np.intp]]:
    """The texts of each request, as indices: some dozens of full batches."""
    order = generator(seed, "bench", size).permutation(len(encodings))
    batches = [order[i : i + size] for i in range(0, len(order) - size + 1, size)]
    return batches[: min(max(TEXTS // size, FEWEST), MOST)]


def requests(
    run: Answers, tokenise: Tokenise, batches: Sequence[NDArray[np.intp]], lead: int = 0
) -> Callable[[], object]:
    """A call that answers the next batch, or each batch `lead` times more; the order is the same for everyone."""
    following = cycle([batch for batch in batches for _ in range(lead + 1)])
    return lambda: run(tokenise(next(following)))


def typical(timing: Timing, requests: int) -> float:
    """Mean over the requests of each one's median seconds, on which a disturbed round has little effect."""
    which = (WARMUP + np.arange(len(timing.seconds))) % requests
    return float(np.mean([np.median(timing.seconds[which == request]) for request in np.unique(which)]))


def summary(timing: Timing, first: Timing, size: int, mean: float) -> dict[str, float]:
    """Times of one baseline, in milliseconds a request."""
    names = {"p50": 0.5, "low": 0.25, "high": 0.75, "p95": 0.95, "p99": 0.99}
    return {
        **{name: 1e3 * float(np.quantile(timing.seconds, q)) for name, q in names.items()},
        "mean": 1e3 * mean,
        "throughput": size / mean,
        "speedup": float(np.median(first.seconds / timing.seconds)),
    }


def compared(mean: float, best: float, cost: float) -> dict[str, float]:
    """Against the fastest full-depth baseline, whose mean request takes `best` seconds."""
    faster = best / mean
    return {"faster": faster, "cost": cost, "share": faster * cost}
