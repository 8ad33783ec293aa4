"""The load of `offramp bench service`: by wrk over HTTP, and by a loop in process."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from offramp._core.arguments import whole
from offramp._core.errors import ConfigError, OfframpError
from offramp._core.records import write_text
from offramp._core.seeding import generator
from offramp.bench.service_peers import Running, find_wrk
from offramp.inference.engine import Engine

LUA = Path(__file__).with_name("load.lua")
MOST_ROWS = 32


@dataclass(frozen=True)
class Load:
    """What wrk sends.

    Args:
        seconds: of each measurement.
        rounds: times that every measurement is made.
        connections: at saturation, for requests of one text; requests of more texts have fewer, but at least 2.
        rows: texts of a request at saturation.
        half: mean requests a second below saturation; by default half of what `offramp serve` reaches.
        shares: of the traffic that is attacked texts.
    """

    seconds: int = 5
    rounds: int = 3
    connections: int = 32
    rows: tuple[int, ...] = (1, 16)
    half: float | None = None
    shares: tuple[float, ...] = (0.2, 0.5)

    def __post_init__(self) -> None:
        whole("seconds", self.seconds, 1)
        whole("rounds", self.rounds, 1)
        whole("connections", self.connections, 2)
        if not self.rows or min(self.rows) < 1:
            raise ConfigError(f"rows must be whole numbers of at least 1, got {self.rows}: give 1 16")
        if not all(0 < share < 1 for share in self.shares):
            raise ConfigError(f"shares must be above 0 and below 1, got {self.shares}: give 0.2 0.5")


@dataclass(frozen=True)
class Texts:
    """The texts of a benchmark, their labels, and what an attack made of some."""

    texts: Sequence[str]
    labels: Sequence[str]
    attacked: Sequence[str] = ()


def wrk(
    server: Running,
    bodies: Path,
    seconds: int,
    connections: int,
    *,
    seed: int,
    rate: float = 0.0,
    keys: Sequence[str] | None = None,
) -> subprocess.Popen[str]:
    """Start wrk on a service; `finish` waits for it.

    Args:
        server: the service.
        bodies: file with the body of a request on each line.
        seconds: of load.
        connections: open at once.
        seed: of the order of the bodies, and of the times.
        rate: mean requests a second; 0 for as many as it takes.
        keys: API keys that take turns; by default the service's first one.
    """
    wait = 1000 * connections / rate if rate else 0
    command = [
        find_wrk(),
        "-t1",
        f"-c{connections}",
        f"-d{seconds}s",
        "--timeout",
        "30s",
        "-s",
        str(LUA),
        server.url,
    ]
    command += ["--", str(bodies), str(seed), str(wait), *(server.peer.keys[:1] if keys is None else keys)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process: subprocess.Popen[str]) -> dict[str, float]:
    """What wrk measured: `requests`, `seconds`, `failed`, and `p50`, `p95`, `p99` in milliseconds.

    Raises:
        OfframpError: wrk failed, or requests did.
    """
    output = process.communicate()[0]
    try:
        measured: dict[str, float] = json.loads(output.strip().splitlines()[-1])
    except (ValueError, IndexError) as error:
        raise OfframpError(f"wrk ended with {process.returncode}: {output.strip()[-300:]}") from error
    if measured["failed"] or not measured["requests"]:
        raise OfframpError(
            f"{measured['failed']} requests of {measured['requests']} failed: measure with less load"
        )
    return measured


def write_bodies(
    folder: Path, server: Running, texts: Sequence[str], rows: int, name: str = "bodies"
) -> Path:
    """A file with bodies of so many texts each, for `wrk`."""
    chunks = [texts[i : i + rows] for i in range(0, len(texts) - rows + 1, rows)]
    if not chunks:
        raise ConfigError(
            f"expected at least {rows} texts for a request, got {len(texts)}: give more examples"
        )
    path = folder / f"{name}-{rows}-{server.peer.path.strip('/').replace('/', '-')}.jsonl"
    write_text(path, "".join(f"{server.peer.body(chunk)}\n" for chunk in chunks))
    return path


def answer_arrivals(
    engine: Engine, texts: Sequence[str], rate: float, seconds: float, seed: int
) -> dict[str, float]:
    """Feed an engine texts that arrive at random times; what has arrived when it is free runs together.

    Returns:
        As of `finish`.
    """
    draw = generator(seed, "arrivals")
    due = np.cumsum(draw.exponential(1 / rate, max(round(rate * seconds), 1)))
    chosen = [texts[i] for i in draw.integers(len(texts), size=len(due))]
    ends = np.empty(len(due))
    started, done = time.perf_counter(), 0
    while done < len(due):
        now = time.perf_counter() - started
        if due[done] > now:
            time.sleep(due[done] - now)
            continue
        ready = min(int(np.searchsorted(due, now, side="right")), done + MOST_ROWS)
        engine.predict(chosen[done:ready])
        ends[done:ready] = time.perf_counter() - started
        done = ready
    p50, p95, p99 = np.percentile(1000 * (ends - due), (50, 95, 99))
    return {"requests": len(due), "seconds": float(ends[-1]), "failed": 0, "p50": p50, "p95": p95, "p99": p99}
