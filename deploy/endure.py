"""Load two services with good and bad clients at once, and check that every good one gets its answer.

    python deploy/endure.py exported texts.txt --minutes 30 --log /mnt/small/log

One service runs all the time: its memory, threads and open files must stay flat. The other one is killed in turns with
SIGKILL and SIGTERM, and started again each time, as systemd or Docker would do. Give `--log` a file on a small disk:
it fills up, is emptied half way through, and fills up again. The result is one JSON object on standard output, and the
exit code is 1 if anything failed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import signal
import statistics
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

GARBAGE = [
    b"{",
    b"[]",
    b"null",
    b"\x00",
    b'{"texts": ["a", 1]}',
    b"[" * 50_000,
    b'{"texts": 1e999}',
    b"\xff\xfe",
]
PATHS = ["/v1/classify", "/predict", "/classify", "/"]
FLAT = {"memory_mib": 40, "threads": 2, "files": 30}  # growth from the first third of the time to the last
WAIT = 60  # seconds for any answer
ENDINGS = {"-1": "nothing listened", "-2": "closed", "-3": "left", "-4": "no answer in time"}
SAMPLE = 5  # seconds between two samples of a process


class Keeper:
    """A service that starts again whenever it ends.

    Args:
        name: of the service in the results.
        command: that starts it, without the port.
        port: where it listens.
    """

    def __init__(self, name: str, command: list[str], port: int) -> None:
        self.name, self.port, self.command = name, port, [*command, "--port", str(port)]
        self.ends: Counter[int] = Counter()
        self.samples: list[dict[str, float]] = []
        self.kills: list[signal.Signals] = []
        self.up, self.back = True, 0.0  # whether it should answer, and since when
        self.process: asyncio.subprocess.Process | None = None

    async def keep(self) -> None:
        """Run the service for as long as this task lives."""
        while True:
            self.process = await asyncio.create_subprocess_exec(*self.command)
            try:
                self.ends[await self.process.wait()] += 1
            finally:
                if self.process.returncode is None:
                    self.process.terminate()
                    self.ends[await self.process.wait()] += 1

    async def kill(self, every: float) -> None:
        """Kill the service in turns with both signals, first with SIGTERM, and wait until it answers again."""
        kinds = [signal.SIGTERM, signal.SIGKILL]
        while True:
            await asyncio.sleep(every)
            self.kills.append(kinds[len(self.kills) % 2])
            self.up = False
            ended = self.ends.total()
            self.process.send_signal(self.kills[-1])
            while self.ends.total() == ended:
                await asyncio.sleep(0.05)
            await self.ready()
            self.up, self.back = True, time.monotonic()

    async def ready(self) -> None:
        """Wait until the service answers."""
        while (await exchange(self.port, [request("GET", "/health", b"")]))[0] != 200:
            await asyncio.sleep(0.05)

    async def sample(self) -> None:
        """Note the size of the process from time to time."""
        while True:
            await asyncio.sleep(SAMPLE)
            folder = Path(f"/proc/{self.process.pid}")
            lines = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
            memory, threads = (int(lines[name].split()[0]) for name in ("VmRSS", "Threads"))
            files = len(list((folder / "fd").iterdir()))
            self.samples.append({"memory_mib": memory / 1024, "threads": threads, "files": files})

    def growth(self) -> dict[str, float]:
        """Medians of the last third of the samples less those of the second sixth, when it is warm."""
        third = len(self.samples) // 3
        early, late = self.samples[third // 2 : third] or self.samples, self.samples[-third:]
        return {
            name: statistics.median(row[name] for row in late) - statistics.median(row[name] for row in early)
            for name in FLAT
        }


def request(method: str, path: str, body: bytes, length: int | None = None) -> bytes:
    """A whole HTTP request on a connection of its own."""
    head = f"{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body) if length is None else length}\r\n\r\n".encode() + body


async def exchange(
    port: int, chunks: list[bytes], pause: float = 0.0, leave: bool = False
) -> tuple[int, Any]:
    """Send a request in chunks and read the answer.

    Returns:
        The status and the content. The status is -1 where nothing listened, -2 where the connection ended without an
        answer, -3 where the client left, and -4 where no answer came in time.
    """
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return -1, None
    try:
        async with asyncio.timeout(WAIT):
            return await _converse(reader, writer, chunks, pause, leave)
    except TimeoutError:
        return -4, None
    finally:
        writer.close()


async def _converse(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, chunks: list[bytes], pause: float, leave: bool
) -> tuple[int, Any]:
    answer = asyncio.create_task(reader.read())  # at once: a refusal may come before the body has been sent
    try:
        for chunk in chunks:
            writer.write(chunk)
            await writer.drain()
            await asyncio.sleep(pause)
        if leave:
            answer.cancel()
            return -3, None
    except OSError:
        pass
    try:
        head, _, content = (await answer).partition(b"\r\n\r\n")
    except OSError:
        return -2, None
    return (int(head.split()[1]), content) if head else (-2, None)


class Load:
    """Clients of all kinds on some services.

    Attributes:
        counts: statuses by kind of client and service.
        failures: what must not happen, in words.
    """

    def __init__(self, keepers: list[Keeper], texts: list[str], seed: int) -> None:
        self.keepers, self.texts, self.draw = keepers, texts, random.Random(seed)
        self.counts: Counter[tuple[str, str, int]] = Counter()
        self.failures: list[str] = []
        self.labels: dict[str, Any] = {}
        self.kinds: dict[Callable[[Keeper], Awaitable[None]], float] = {  # and the share of each
            self.good: 0.6,
            self.malformed: 0.1,
            self.leaving: 0.1,
            self.slow: 0.08,
            self.hurried: 0.06,
            self.half_open: 0.04,
            self.oversized: 0.02,
        }

    async def run(self, rate: float, seconds: float) -> set[asyncio.Task[None]]:
        """Send requests at random times, whatever has been answered; returns those that still wait."""
        ends, kinds, tasks = time.monotonic() + seconds, [*self.kinds], set()
        while time.monotonic() < ends:
            await asyncio.sleep(self.draw.expovariate(rate))
            (kind,) = self.draw.choices(kinds, [*self.kinds.values()])
            task = asyncio.create_task(kind(self.draw.choice(self.keepers)))
            tasks.add(task)
            task.add_done_callback(lambda done: tasks.discard(done) if not done.exception() else None)
        return tasks

    async def send(self, kind: str, keeper: Keeper, chunks: list[bytes], fine: set[int], **how: Any) -> Any:
        """Send a request and note its status; anything but the statuses that are fine is a failure.

        A request that a kill cut off is sent again, and then counts.
        """
        started = time.monotonic()
        status, content = await exchange(keeper.port, chunks, **how)
        killed = not keeper.up or keeper.back > started
        if killed and status in {-1, -2, 503} - fine:
            self.counts[f"{kind}, during {keeper.kills[-1].name}", keeper.name, status] += 1
            while not keeper.up:
                await asyncio.sleep(0.05)
            return await self.send(kind, keeper, chunks, fine, **how)
        self.counts[kind, keeper.name, status] += 1
        if status not in fine:
            self.failures.append(f"{kind} at {keeper.name}: {status} {content!r:.300}")
        return json.loads(content) if status == 200 else None

    def body(self, rows: int, **options: Any) -> tuple[list[str], bytes]:
        texts = self.draw.sample(self.texts, rows)
        return texts, json.dumps({"texts": texts, **options}).encode()

    async def good(self, keeper: Keeper) -> None:
        """A usual request. A text gets the same answer each time, whatever shares its batch."""
        texts, body = self.body(self.draw.choice([1, 1, 1, 2, 4, 8]))
        reply = await self.send("good", keeper, [request("POST", "/v1/classify", body)], {200})
        answers = reply["answers"] if reply else []
        for text, answer in zip(texts, answers, strict=bool(reply)):
            chosen = [answer["label"], answer["exit_layer"]]
            if self.labels.setdefault(text, chosen) != chosen:
                self.failures.append(f"{text!r}: {self.labels[text]} before, now {chosen}")

    async def malformed(self, keeper: Keeper) -> None:
        """What is no JSON, no request, or not even HTTP."""
        body = self.draw.choice([*GARBAGE, self.draw.randbytes(200)])
        path = self.draw.choice(PATHS)
        chunks = [request("POST", path, body) if self.draw.random() < 0.8 else body + b"\r\n\r\n"]
        await self.send("malformed", keeper, chunks, {400, 422})

    async def leaving(self, keeper: Keeper) -> None:
        """A client that leaves with its request, or in the midst of it."""
        whole = request("POST", "/v1/classify", self.body(4)[1])
        sent = whole[: self.draw.choice([len(whole), len(whole) - 5, 20])]
        await self.send("leaving", keeper, [sent], {-3}, leave=True)

    async def slow(self, keeper: Keeper) -> None:
        """A client that sends its request piece by piece over a few seconds."""
        whole = request("POST", "/v1/classify", self.body(2)[1])
        size = len(whole) // 4 + 1
        pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
        await self.send("slow", keeper, pieces, {200}, pause=self.draw.uniform(0.2, 1.0))

    async def hurried(self, keeper: Keeper) -> None:
        """A deadline that may be too short."""
        body = self.body(8, deadline_ms=self.draw.choice([0.01, 5, 1000]))[1]
        await self.send("hurried", keeper, [request("POST", "/v1/classify", body)], {200, 408})

    async def half_open(self, keeper: Keeper) -> None:
        """A request that never ends: the service closes the connection, or says 408."""
        whole = request("POST", "/v1/classify", self.body(1)[1])
        sent = whole[: self.draw.choice([0, 20, len(whole) - 5])]
        await self.send("half-open", keeper, [sent], {-2, 408})

    async def oversized(self, keeper: Keeper) -> None:
        """Too many texts, or too many bytes; a connection may end before such a client has read its answer."""
        texts = json.dumps({"texts": ["a"] * 65}).encode()
        body = self.draw.choice([texts, b" " * 5_000_000])
        await self.send("oversized", keeper, [request("POST", "/v1/classify", body)], {413, -2})


async def empty(log: Path | None, seconds: float) -> None:
    """Empty the log half way through."""
    await asyncio.sleep(seconds / 2)
    if log is not None and log.is_file():
        log.write_bytes(b"")


async def endure(options: argparse.Namespace) -> dict[str, Any]:
    """The whole run; its result has `failures` (none is good), statuses by client, ends and growth of the processes."""
    command = [sys.executable, "-m", "offramp.cli.main", "serve", f"m={options.model}", "--threads", "1"]
    if options.log:
        command += ["--log", str(options.log)]
    steady, killed = Keeper("steady", command, options.port), Keeper("killed", command, options.other_port)
    texts = options.texts.read_text(encoding="utf-8").splitlines()
    load = Load([steady, killed], texts, options.seed)
    seconds = 60 * options.minutes
    tasks = [asyncio.create_task(keeper.keep()) for keeper in load.keepers]
    await asyncio.sleep(0.1)
    await asyncio.gather(steady.ready(), killed.ready())
    killing = asyncio.create_task(killed.kill(options.kill_every))
    tasks += [asyncio.create_task(work) for work in (steady.sample(), empty(options.log, seconds))]
    last = await load.run(options.rate, seconds)
    while not killed.up:
        await asyncio.sleep(0.05)
    killing.cancel()
    await asyncio.gather(*last)
    growth, log_bytes = steady.growth(), options.log.stat().st_size if options.log else 0
    broken = [task.exception() for task in tasks if task.done() and task.exception()]
    for task in reversed(tasks):
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    failures = [*load.failures, *map(repr, broken)]
    failures += [f"{name} grew by {growth[name]:.1f}" for name in FLAT if growth[name] > FLAT[name]]
    failures += [
        f"{k.name} ended with {code}" for k in load.keepers for code in k.ends if code not in (0, -9)
    ]
    return {
        "seconds": seconds,
        "statuses": {" | ".join(map(str, key)): count for key, count in sorted(load.counts.items())},
        "texts_compared": len(load.labels),
        "kills": len(killed.kills),
        "ends": {keeper.name: dict(keeper.ends) for keeper in load.keepers},
        "growth": growth,
        "at_the_end": steady.samples[-1],
        "log_bytes": log_bytes,
        "failures": failures,
    }


def as_table(result: dict[str, Any]) -> str:
    """The clients of a run, and what they got, in Markdown.

    Args:
        result: of `endure`.
    """
    got: dict[str, Counter[str]] = {}
    again: Counter[str] = Counter()
    for key, count in result["statuses"].items():
        client, _, status = key.split(" | ")
        kind, _, kill = client.partition(", during ")
        got.setdefault(kind, Counter())
        if kill:
            again[kind] += count
        else:
            got[kind][ENDINGS.get(status, status)] += count
    rows = [
        f"| {kind} | {endings.total():,} | {', '.join(f'{name}: {count:,}' for name, count in endings.items())} "
        f"| {again[kind]:,} |"
        for kind, endings in got.items()
    ]
    head = "| client | requests | answers | cut off by a kill, and sent again |\n|---|--:|---|--:|"
    return "\n".join([head, *rows])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="folder that `offramp export` wrote")
    parser.add_argument("texts", type=Path, help="file with a text on each line")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--rate", type=float, default=20, help="requests a second, on both services together")
    parser.add_argument("--kill-every", type=float, default=60, help="seconds")
    parser.add_argument("--log", type=Path, help="file of the services' logs, on a small disk")
    parser.add_argument("--port", type=int, default=8090, help="of the service that runs all the time")
    parser.add_argument("--other-port", type=int, default=8091, help="of the service that is killed")
    parser.add_argument("--seed", type=int, default=0)
    result = asyncio.run(endure(parser.parse_args()))
    print(json.dumps(result, indent=1))
    return 1 if result["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
