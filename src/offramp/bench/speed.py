"""A fair race: every peer answers the same batch in every round, and what it answers is scored too."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from offramp._core.environment import can_compile
from offramp._core.errors import ConfigError, unknown_name
from offramp._core.seeding import generator
from offramp.bench.baselines import Answers, Baseline, BenchArtifacts, find_baselines, make_engine
from offramp.bench.energy import EnergyMeter
from offramp.engine.batching import Encoding, token_counts
from offramp.engine.timing import Timing, time_interleaved
from offramp.metrics import score

MIB = 2**20
WARMUP = 3
TEXTS, FEWEST, MOST = 256, 8, 64  # texts answered at each batch size, in so many requests
REST = 0.004  # seconds before each call: threads of torch and OpenVINO go on spinning for one to three milliseconds
LEAD = 4  # untimed calls before a text alone: a server has its own model in the caches, not its neighbour's
ENERGY_SECONDS = 2.0  # counters are read over at least so long
Tokenise = Callable[[NDArray[np.intp]], Sequence[Encoding]]  # rows of a request to their token ids


@dataclass(frozen=True)
class BenchConfig:
    """What is raced over.

    Attributes:
        batch_sizes: texts a request.
        length: tokens of every text; 0 leaves them as they are in the data.
        repeats: how often every request is timed.
        seed: of the order of the texts.
        metric: key of `METRICS`.
        peers: names of those that take part; all where empty.
        memory: measure peak memory too, in a process for each peer.
    """

    batch_sizes: tuple[int, ...] = (1, 8, 32)
    length: int = 0
    repeats: int = 3
    seed: int = 0
    metric: str = "accuracy"
    peers: tuple[str, ...] = ()
    memory: bool = True


def run_benchmark(
    contest: BenchArtifacts,
    encodings: Sequence[Encoding],
    labels: ArrayLike | None,
    course: BenchConfig = BenchConfig(),
    tokenise: Tokenise | None = None,
    progress: Callable[[str], object] = lambda told: None,
) -> list[dict[str, Any]]:
    """Time all peers against each other.

    Texts come in random order, as traffic does, and a timed call is one batch: percentiles are those of a request.

    Args:
        contest: what the peers are built from.
        encodings: the texts, at least as many as the largest batch.
        labels: for the score; None leaves it out.
        course: batch sizes, lengths and rounds.
        tokenise: makes the encodings of a request anew from its texts, in the time of every peer; without it, and
            where texts are brought to one length, token ids lie ready.
        progress: is told what is being measured.

    Returns:
        A row for each peer and batch size: its `kind`, milliseconds a request (`p50`, quartiles `low` and `high`,
        `p95`, `p99`, `mean`), `throughput` in texts a second, `speedup` over the first peer (median over the rounds,
        which pair the two), `faster` than the fastest full-depth peer (ratio of the means), `cost` in FLOPs as a share
        of the full model's on the same requests, `share` = faster · cost of what that cost promises, the `score` on
        all texts, `peak_mib` of a process that runs this peer alone, and `joules` a text where the machine tells.

    Raises:
        ConfigError: as `entered` says.
    """
    peers = entered(contest, course, len(encodings))
    if course.length:
        encodings, tokenise = [at_length(one, course.length) for one in encodings], None
    given = tokenise or (lambda rows: [encodings[row] for row in rows])
    entrants = {
        name: _enter(contest, name, peer, encodings, labels, course, progress) for name, peer in peers.items()
    }
    costs = Costs(contest, encodings)
    rows = []
    for size in course.batch_sizes:
        batches = request_batches(encodings, size, course.seed)
        progress(f"batch {size}: warming up")
        for entrant in entrants.values():  # compilers and shape caches, before anything is timed
            for batch in batches:
                entrant.run([encodings[i] for i in batch])
        lead = LEAD if size == 1 else 0
        calls = {name: requests(one.run, given, batches, lead) for name, one in entrants.items()}
        rounds = course.repeats * len(batches)
        watch = partial(_tell, progress, f"batch {size}", rounds)
        timings = time_interleaved(calls, repeats=rounds, warmup=WARMUP, rest=REST, lead=lead, watch=watch)
        timed = np.concatenate(batches)
        means = {name: typical(timing, len(batches)) for name, timing in timings.items()}
        best = min(means[name] for name, peer in peers.items() if peer.kind == "full")
        for name, timing in timings.items():
            known = {"peer": name, "kind": peers[name].kind, "batch_size": size, "length": course.length}
            ideal = compared(means[name], best, costs.of(name, peers[name].kind, timed))
            told = {"score": entrants[name].score, "peak_mib": entrants[name].peak_mib}
            first = next(iter(timings.values()))
            times = {**summary(timing, first, size, means[name]), **ideal}
            rows.append({**known, **times, **told, "joules": joules(calls[name], size)})
    return rows


@dataclass(frozen=True)
class Entrant:
    """A peer that is ready: its score on all texts, and the peak memory of a process of its own."""

    run: Answers
    score: float | None
    peak_mib: float | None


def _enter(
    contest: BenchArtifacts,
    name: str,
    peer: Baseline,
    encodings: Sequence[Encoding],
    labels: ArrayLike | None,
    course: BenchConfig,
    progress: Callable[[str], object],
) -> Entrant:
    progress(f"{name}: {'memory and score' if course.memory else 'score'}")
    most = encodings[: max(course.batch_sizes)]
    peak = peak_memory(contest, name, most) if course.memory else None
    run = peer.build(contest)
    return Entrant(run, None if labels is None else scored(run, encodings, labels, course.metric), peak)


def _tell(progress: Callable[[str], object], what: str, rounds: int, done: int) -> None:
    """Every tenth of the rounds."""
    if done and done % max(rounds // 10, 1) == 0:
        progress(f"{what}: {done} of {rounds} rounds")


def entered(contest: BenchArtifacts, course: BenchConfig, texts: int) -> dict[str, Baseline]:
    """The peers of a course, which can be asked for before anything is exported.

    Raises:
        ConfigError: fewer texts than a batch holds, batch sizes below 1, unknown peers, or none to full depth.
    """
    sizes = course.batch_sizes
    if not sizes or min(sizes) < 1 or max(sizes) > texts:
        raise ConfigError(f"batch sizes must lie in 1..{texts}, the number of texts, got {list(sizes)}")
    return chosen_baselines(find_baselines(contest), course.peers)


def chosen_baselines(peers: dict[str, Baseline], names: Sequence[str]) -> dict[str, Baseline]:
    """Those asked for; of all of them not torch.compile where there is no C++ compiler for it.

    Raises:
        ConfigError: an unknown name, or no peer to full depth among them, which the others are compared with.
    """
    for name in names:
        if name not in peers:
            raise ConfigError(unknown_name("peer", name, peers))
    if not names:
        return {name: peer for name, peer in peers.items() if can_compile() or name != "compiled-full"}
    if not any(peers[name].kind == "full" for name in names):
        raise ConfigError(
            f"expected a peer to full depth to compare with, got {', '.join(names)}: add eager-full"
        )
    return {name: peer for name, peer in peers.items() if name in names}


def at_length(encoding: Encoding, length: int) -> dict[str, list[int]]:
    """The text repeated or cut to so many tokens, its first and last token kept where they are."""
    found = {}
    for name, values in encoding.items():
        inner = list(values[1:-1]) or list(values[:1])
        found[name] = [values[0], *np.resize(inner, max(length - 2, 0)).tolist(), values[-1]][:length]
    return found


def request_batches(encodings: Sequence[Encoding], size: int, seed: int) -> list[NDArray[np.intp]]:
    """The texts of each request, as indices; full batches alone, some dozens of them."""
    order = generator(seed, "bench", size).permutation(len(encodings))
    found = [order[i : i + size] for i in range(0, len(order) - size + 1, size)]
    return found[: min(max(TEXTS // size, FEWEST), MOST)]


def requests(
    run: Answers, tokenise: Tokenise, batches: Sequence[NDArray[np.intp]], lead: int = 0
) -> Callable[[], object]:
    """A call that answers the next batch, or each `lead` times more; all peers meet the same batches in one order."""
    following = cycle([batch for batch in batches for _ in range(lead + 1)])
    return lambda: run(tokenise(next(following)))


def typical(timing: Timing, requests: int) -> float:
    """Mean seconds of a request, the median of each one's times taken first: what disturbed one round counts little."""
    which = (WARMUP + np.arange(len(timing.seconds))) % requests
    return float(np.mean([np.median(timing.seconds[which == one]) for one in np.unique(which)]))


def summary(timing: Timing, first: Timing, size: int, mean: float) -> dict[str, float]:
    """One peer's times in milliseconds a request."""
    names = {"p50": 0.5, "low": 0.25, "high": 0.75, "p95": 0.95, "p99": 0.99}
    return {
        **{name: 1e3 * float(np.quantile(timing.seconds, q)) for name, q in names.items()},
        "mean": 1e3 * mean,
        "throughput": size / mean,
        "speedup": float(np.median(first.seconds / timing.seconds)),
    }


def compared(mean: float, best: float, cost: float) -> dict[str, float]:
    """Against the fastest full-depth peer, whose mean request takes `best` seconds."""
    faster = best / mean
    return {"faster": faster, "cost": cost, "share": faster * cost}


class Costs:
    """FLOPs of every peer as a share of the full model's, on any of the texts."""

    def __init__(self, contest: BenchArtifacts, encodings: Sequence[Encoding]) -> None:
        engines = {precision: make_engine(contest, precision) for precision in ("fp32", "int8")}
        self.spent = {precision: engine.run(encodings).flops for precision, engine in engines.items()}
        segments = engines["fp32"].segments
        self.exits, self.full = segments.flops(token_counts(encodings))
        self.layers = segments.exit_layers

    def of(self, name: str, kind: str, texts: NDArray[np.intp]) -> float:
        """The share on these texts, which may repeat."""
        if kind == "full":
            return 1.0
        if kind == "cut":
            spent = self.exits[:, self.layers.index(int(name.removeprefix("cut-")))]
        else:
            spent = self.spent["int8" if "int8" in name else "fp32"]
        return float(spent[texts].sum() / self.full[texts].sum())


def joules(call: Callable[[], object], size: int) -> float | None:
    """Energy of the whole processor for a text, over a few seconds of requests; None where it cannot be read."""
    energy = EnergyMeter()
    if not energy.known:
        return None
    before, started, count = energy.read(), time.perf_counter(), 0
    while time.perf_counter() - started < ENERGY_SECONDS:
        call()
        count += size
    spent = energy.joules(before, energy.read())
    return None if spent is None else spent / count


def scored(run: Answers, encodings: Sequence[Encoding], labels: ArrayLike, metric: str) -> float:
    """The metric over all texts, answered 32 at a time."""
    found: list[NDArray[Any]] = [run(encodings[i : i + 32]) for i in range(0, len(encodings), 32)]
    return score(metric, np.asarray(labels), np.concatenate(found))


def peak_memory(contest: BenchArtifacts, name: str, encodings: Sequence[Encoding]) -> float:
    """Peak resident memory in MiB of a fresh process that builds one peer and answers one batch."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_peak, contest, name, list(encodings)).result()


def _peak(contest: BenchArtifacts, name: str, encodings: Sequence[Encoding]) -> float:
    find_baselines(contest)[name].build(contest)(encodings)
    status = Path("/proc/self/status")
    if status.exists():  # Linux lets a child inherit its parent's ru_maxrss; VmHWM is its own
        return (
            float(next(line for line in status.read_text().splitlines() if "VmHWM" in line).split()[1]) / 1024
        )
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MIB  # bytes on macOS


FIRST_ANSWER = """
import sys
from offramp import Engine
Engine(sys.argv[1], threads=int(sys.argv[2])).predict(["a gripping, funny film"])
"""


def cold_start(folder: Path, threads: int, repeats: int = 5) -> Timing:
    """From the start of a fresh Python to the first answer of an exported folder; the first run is not counted."""
    package = str(Path(__file__).resolve().parents[2])  # whichever copy of it is running
    code = f"import sys; sys.path.insert(0, {package!r}){FIRST_ANSWER}"
    command = [sys.executable, "-c", code, str(folder), str(threads)]
    seconds = []
    for _ in range(repeats + 1):
        before = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        seconds.append(time.perf_counter() - before)
    return Timing(np.array(seconds[1:]))
