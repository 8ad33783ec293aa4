"""What serving adds to an engine, and what early exits add to a service: latency, throughput, and honest clients' time
under attack, in one run.

wrk drives the load. At saturation each of its connections sends a request as soon as it has an answer; below it they
send at random times, at a given mean rate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from offramp._core import progress as display
from offramp._core.seeding import generator
from offramp.bench.service_load import MOST_ROWS, Load, Texts, answer_arrivals, finish, write_bodies, wrk
from offramp.bench.service_peers import OURS, Running
from offramp.engine.batching import token_counts
from offramp.inference.engine import Engine

IN_PROCESS = "engine, in process"
OPEN_CONNECTIONS = 128  # enough that hardly any waits for an answer when its next request is due
CLIENTS = 4  # honest ones in the attack
ATTACKER = "attacker"  # name of the client whose key is the last one
ROUNDING = 1e-6  # sums of float32 in another order change a probability by less
ALLOWANCE = 1.5  # FLOPs that a client may use, as a multiple of what an honest one needs


def saturate(
    servers: Sequence[Running], texts: Texts, load: Load, folder: Path, seed: int, *, progress: bool = False
) -> list[dict[str, Any]]:
    """Texts a second of every service at saturation, all in turns.

    Returns:
        A row per service and number of texts of a request: `texts_per_second` and `p99`, medians over the rounds,
        `ratio` of ours to it, its `accuracy`, and the `start_seconds` to its first answer.
    """
    measured: dict[tuple[str, int], list[dict[str, float]]] = {}
    turns = list(product(range(load.rounds), load.rows, servers))
    for turn, rows, server in display.track(turns, "load to saturation", show=progress, timed=True):
        bodies = write_bodies(folder, server, texts.texts, rows)
        connections = max(load.connections // rows, 2)
        result = finish(wrk(server, bodies, load.seconds, connections, seed=seed + turn))
        result["texts_per_second"] = rows * result["requests"] / result["seconds"]
        measured.setdefault((server.peer.name, rows), []).append(result)
    scores = {server.peer.name: accuracy(server, texts) for server in servers}
    starts = {server.peer.name: server.seconds for server in servers}
    table = []
    for (name, rows), results in measured.items():
        own = measured[OURS, rows]
        ratios = [a["texts_per_second"] / b["texts_per_second"] for a, b in zip(own, results, strict=True)]
        table.append(
            {
                "peer": name,
                "rows": rows,
                "texts_per_second": _median(results, "texts_per_second"),
                "p99": _median(results, "p99"),
                "ratio": float(np.median(ratios)),
                "accuracy": scores[name],
                "start_seconds": starts[name],
            }
        )
    return sorted(table, key=lambda row: row["rows"])


def _median(results: Sequence[Mapping[str, float]], name: str) -> float:
    return float(np.median([result[name] for result in results]))


def accuracy(server: Running, texts: Texts) -> float:
    """Share of the texts that a service labels as the data do."""
    answers: list[str] = []
    for i in range(0, len(texts.texts), MOST_ROWS):
        answers += server.peer.labels(server.ask(texts.texts[i : i + MOST_ROWS]))
    return float(np.mean([answer == label for answer, label in zip(answers, texts.labels, strict=True)]))


def changed_answers(server: Running, texts: Sequence[str], seed: int, *, progress: bool = False) -> int:
    """Texts whose label, exit or probability (beyond `ROUNDING`) depends on the texts that share its batch.

    Each text is asked about alone, and then again while several clients ask about many at once.
    """
    each = display.track(texts, "ask about each text", show=progress)
    alone = [server.ask([text])["answers"][0] for text in each]
    order = generator(seed, "batch mates").permutation(len(texts))
    chunks = np.array_split(order, max(len(order) // 5, 1))
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda chunk: server.ask([texts[i] for i in chunk])["answers"], chunks))
    return sum(
        not same_answer(alone[i], answer)
        for chunk, answers in zip(chunks, together, strict=True)
        for i, answer in zip(chunk, answers, strict=True)
    )


def same_answer(alone: Mapping[str, Any], together: Mapping[str, Any]) -> bool:
    """Whether two answers of `offramp serve` agree in all but the last bits of the probability."""
    change = alone.get("probability", 0.0) - together.get("probability", 0.0)  # a regression has none
    return {**alone, "probability": 0} == {**together, "probability": 0} and abs(change) <= ROUNDING


def time_half_load(
    server: Running,
    engine: Engine,
    texts: Texts,
    rate: float,
    load: Load,
    folder: Path,
    seed: int,
    *,
    progress: bool = False,
) -> list[dict[str, Any]]:
    """Times of single texts that arrive at random, over HTTP and in process, in turns.

    Returns:
        Two rows: `way`, `rate` asked for and `reached` in texts a second, `p50`, `p95` and `p99` in milliseconds,
        medians over the rounds, and `ratio`, the median of the ratios of p95 to the engine's.
    """
    bodies = write_bodies(folder, server, texts.texts, 1)
    inside, outside = [], []
    for turn in display.track(range(load.rounds), "send single texts", show=progress, timed=True):
        inside.append(answer_arrivals(engine, texts.texts, rate, load.seconds, seed + turn))
        outside.append(
            finish(wrk(server, bodies, load.seconds, OPEN_CONNECTIONS, seed=seed + turn, rate=rate))
        )
    table = []
    for way, results in ((IN_PROCESS, inside), (OURS, outside)):
        ratios = [mine["p95"] / other["p95"] for mine, other in zip(results, inside, strict=True)]
        reached = float(np.median([result["requests"] / result["seconds"] for result in results]))
        times = {name: _median(results, name) for name in ("p50", "p95", "p99")}
        table.append(
            {"way": way, "rate": rate, "reached": reached, **times, "ratio": float(np.median(ratios))}
        )
    return table


def time_under_attack(
    servers: Sequence[Running],
    texts: Texts,
    rate: float,
    load: Load,
    folder: Path,
    seed: int,
    *,
    progress: bool = False,
) -> list[dict[str, Any]]:
    """Times of honest clients while a share of the traffic is attacked texts, with and without a work budget.

    Two processes send the load, one of them that share. It sends attacked texts with a key of their own, or, for
    comparison, as many honest texts with the honest clients' keys. So nothing but the attack differs: not the rate of
    all traffic, and not what it costs to send it.

    Args:
        servers: services, whose last key is the attacker's.
        texts: honest and attacked ones.
        rate: requests a second of all clients together, of a text each.
        load: seconds, rounds and shares.
        folder: for the bodies.
        seed: of times and order.
        progress: show a progress bar.

    Returns:
        A row per service and `attacked_share`: `p50` and `p99` of the honest clients in milliseconds, `p50_before` and
        `p99_before` without the attack, medians over the rounds; `rise` of p99, the median of the rounds' ratios
        less 1, and its `rise_low` and `rise_high`, the smallest and the largest; and the `cost` of the attacked texts.
    """
    measured: dict[tuple[str, float], list[tuple[dict[str, float], dict[str, float]]]] = {}
    turns = list(product(range(load.rounds), load.shares, servers))
    for turn, share, server in display.track(turns, "send attacked texts", show=progress, timed=True):
        before, under = (
            _one_attack(server, texts, rate, share, load.seconds, folder, seed + turn, attack=attack)
            for attack in (False, True)
        )
        measured.setdefault((server.peer.name, share), []).append((before, under))
    return [
        {"service": name, "attacked_share": share, **_compare(*zip(*rounds, strict=True))}
        for (name, share), rounds in measured.items()
    ]


def _compare(before: Sequence[Mapping[str, float]], under: Sequence[Mapping[str, float]]) -> dict[str, float]:
    rises = [new["p99"] / old["p99"] - 1 for new, old in zip(under, before, strict=True)]
    return {
        "p50": _median(under, "p50"),
        "p99": _median(under, "p99"),
        "p50_before": _median(before, "p50"),
        "p99_before": _median(before, "p99"),
        "rise": float(np.median(rises)),
        "rise_low": min(rises),
        "rise_high": max(rises),
        "cost": _median(under, "cost"),
    }


def _one_attack(
    server: Running,
    texts: Texts,
    rate: float,
    share: float,
    seconds: int,
    folder: Path,
    seed: int,
    *,
    attack: bool,
) -> dict[str, float]:
    honest = write_bodies(folder, server, texts.texts, 1)
    attacked = write_bodies(folder, server, texts.attacked, 1, "attacked")
    *clients, attacker = server.peer.keys
    spent_before = spent(server, ATTACKER)
    measured = wrk(
        server, honest, seconds, OPEN_CONNECTIONS, seed=seed, rate=rate * (1 - share), keys=clients
    )
    other = wrk(
        server,
        attacked if attack else honest,
        seconds,
        OPEN_CONNECTIONS,
        seed=seed + 1,
        rate=rate * share,
        keys=[attacker] if attack else clients,
    )
    result = finish(measured)
    other.communicate()  # the attacker's requests may be refused
    flops, full = (after - first for after, first in zip(spent(server, ATTACKER), spent_before, strict=True))
    return {**result, "cost": flops / full if full else float("nan")}


def spent(server: Running, client: str) -> tuple[float, float]:
    """FLOPs of a client so far, and those of the full model for the same texts, by the service's metrics."""
    from prometheus_client.parser import text_string_to_metric_families

    sums = {"offramp_flops_total": 0.0, "offramp_full_flops_total": 0.0}
    for family in text_string_to_metric_families(server.get("/metrics")):
        for sample in family.samples:
            if sample.name in sums and sample.labels.get("client") == client:
                sums[sample.name] += sample.value
    flops, full = sums.values()
    return flops, full


def allowance(engine: Engine, texts: Sequence[str], rate: float) -> tuple[float, float]:
    """FLOPs a second for each client, and at once: enough for an honest client at its share of the rate.

    Returns:
        `ALLOWANCE` times what one of `CLIENTS` honest clients uses on average; and as much as it may use in a second,
        but at least that of ten texts at full depth.
    """
    encodings = engine.encode(list(texts))
    _, full = engine.segments.flops(token_counts(encodings))
    each = ALLOWANCE * rate / CLIENTS * float(engine.compacting.run(encodings).flops.mean())
    return each, max(each, 10 * float(full.max()))
