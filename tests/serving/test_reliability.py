"""What clients do wrong, what happens under load, and the end of the service."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from offramp._core.errors import ConfigError, OfframpError
from offramp.inference.engine import Engine
from offramp.serving import server as server_module
from offramp.serving.errors import TooLarge
from offramp.serving.guard import Guard
from offramp.serving.hooks import NoHooks, Refusal, Submission
from offramp.serving.logs import open_log
from offramp.serving.server import check_exposure, open_engines, read_keys
from offramp.serving.service import Limits, Service

from .running import Running, running

TEXTS = ["a good film", "bad", "the plot is slow and dull and very boring of the mess", "an acting gem"]


class Recorder(NoHooks):
    """Notes every call; admits with caps, if told to."""

    def __init__(self) -> None:
        self.admitted, self.answers, self.drops = 0, 0, 0
        self.clients: list[str] = []  # in the order of their answers
        self.batches: list[int] = []
        self.statuses: list[int] = []
        self.caps: float | Refusal = np.inf

    def admit(self, client: str, flops_full: Any) -> Any:
        if isinstance(self.caps, Refusal):
            return self.caps
        self.admitted += 1
        return np.minimum(self.caps, np.full(len(flops_full), np.inf))

    def answered(
        self, client: str, model: str, decisions: Any, seconds: float, submission: Submission
    ) -> None:
        assert len(decisions) == len(submission)
        assert set(submission.seconds) == {"tokenisation", "queue", "inference"}
        self.answers += 1
        self.clients.append(client)

    def dropped(self, submission: Submission) -> None:
        self.drops += 1

    def refused(self, client: str, model: str, status: int) -> None:
        self.statuses.append(status)

    def ran_batch(self, model: str, rows: int, waiting: int, seconds: float) -> None:
        self.batches.append(rows)


class Slow:
    """An engine's compacting engine that waits for a signal, or fails on some texts."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.open = inner, threading.Event()
        self.open.set()
        self.running = threading.Event()
        self.poison: list[int] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def run(self, encodings: Any, **options: Any) -> Any:
        self.running.set()
        assert self.open.wait(20)
        if self.poison is not None and any(e["input_ids"] == self.poison for e in encodings):
            raise RuntimeError("poisoned")
        return self.inner.run(encodings, **options)


@pytest.fixture
def slow(tiny_model: Any) -> Engine:
    engine = Engine(tiny_model, batch_size=8)
    engine.compacting = Slow(engine.compacting)  # type: ignore[assignment]
    return engine


@pytest.fixture(scope="module")
def shared(engine: Engine) -> Iterator[Running]:
    with running(Service({"m": engine}, Limits(body_seconds=1))) as server:
        yield server


def test_requests_that_wait_share_a_batch_and_get_the_same_answers(slow: Engine) -> None:
    hooks, texts = Recorder(), [f"{TEXTS[i % 4]} {i}" for i in range(20)]
    alone = [slow.predict(text) for text in texts]
    with running(Service({"m": slow}, hooks=hooks)) as server, ThreadPoolExecutor(20) as pool:
        slow.compacting.open.clear()
        slow.compacting.running.clear()
        first = pool.submit(server.post, "/v1/classify", {"texts": texts[:1]})
        assert slow.compacting.running.wait(10)
        rest = [pool.submit(server.post, "/v1/classify", {"texts": [text]}) for text in texts[1:]]
        wait_for(lambda: server.service.batchers["m"].queue.rows == 19)
        slow.compacting.open.set()
        answers = [future.result()[1]["answers"][0] for future in (first, *rest)]
    assert hooks.batches == [1, 8, 8, 3]  # the text that came alone did not wait
    for answer, expected in zip(answers, alone, strict=True):
        assert (answer["label"], answer["exit_layer"]) == (expected.label, expected.exit_layer)
        assert answer["probability"] == pytest.approx(expected.probability, rel=1e-5)
    assert (hooks.admitted, hooks.answers, hooks.drops) == (20, 20, 0)


def test_a_text_that_leaves_is_answered_while_its_batch_runs_on(slow: Engine) -> None:
    texts = [f"{TEXTS[i % 4]} {i}" for i in range(20)]
    exits = [slow.predict(text).exit_layer for text in texts]
    early, deep = texts[exits.index(1)], texts[exits.index(3)]
    goes_on, hooks, run = threading.Event(), Recorder(), slow.compacting.run

    def run_and_wait(encodings: Any, **options: Any) -> Any:
        def left_and_wait(rows: Any, decide: Any) -> None:
            options["left"](rows, decide)
            assert goes_on.wait(20)

        return run(encodings, **options | ({"left": left_and_wait} if len(encodings) > 1 else {}))

    slow.compacting.run = run_and_wait  # type: ignore[method-assign]
    with running(Service({"m": slow}, hooks=hooks)) as server, ThreadPoolExecutor(4) as pool:
        slow.compacting.open.clear()
        slow.compacting.running.clear()
        first = pool.submit(server.post, "/v1/classify", {"texts": [deep]})
        assert slow.compacting.running.wait(10)
        asked = ([early], [deep], [early, deep])
        alone, below, both = (pool.submit(server.post, "/v1/classify", {"texts": each}) for each in asked)
        wait_for(lambda: server.service.batchers["m"].queue.rows == 4)
        slow.compacting.open.set()
        assert first.result()[0] == 200
        assert alone.result()[1]["answers"][0]["exit_layer"] == 1
        assert not below.done()
        assert not both.done()
        goes_on.set()
        assert [answer["exit_layer"] for answer in below.result()[1]["answers"]] == [3]
        assert [answer["exit_layer"] for answer in both.result()[1]["answers"]] == [1, 3]
    assert (hooks.batches, hooks.answers) == ([1, 4], 4)


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_a_full_queue_a_deadline_and_the_earliest_deadline_first(slow: Engine) -> None:
    hooks = Recorder()
    service = Service({"m": slow}, Limits(queue_rows=3), hooks)
    with running(service) as server, ThreadPoolExecutor(9) as pool:
        slow.compacting.open.clear()
        slow.compacting.running.clear()
        futures = [pool.submit(server.post, "/v1/classify", {"texts": ["a"]})]
        assert slow.compacting.running.wait(10)
        late = pool.submit(server.post, "/v1/classify", {"texts": ["b"], "deadline_ms": 1})
        wait_for(lambda: service.batchers["m"].queue.rows == 1)
        futures += [pool.submit(server.post, "/v1/classify", {"texts": ["b", "c"]})]
        wait_for(lambda: service.batchers["m"].queue.rows == 3)
        status, content, fields = server.send("POST", "/predict", {"inputs": "a"})
        assert (status, content["error_type"], fields["retry-after"]) == (429, "Overloaded", "1")
        assert "3 texts wait for model 'm' already" in content["error"]
        assert server.post("/classify", {"input": "a"})[1]["error"]["type"] == "RateLimitError"
        time.sleep(0.01)
        slow.compacting.open.set()
        assert [future.result()[0] for future in futures] == [200, 200]
        status, content = late.result()
        assert status == 408
        assert "deadline passed" in content["error"]
    assert (hooks.admitted, hooks.answers, hooks.drops) == (3, 2, 1)
    assert sorted(hooks.statuses) == [408, 429, 429]


def test_a_client_that_floods_the_queue_does_not_delay_another_one(slow: Engine) -> None:
    hooks, keys = Recorder(), {"flood": "k1", "calm": "k2"}
    service = Service({"m": slow}, Limits(queue_rows=20), hooks)
    with running(service, keys) as server, ThreadPoolExecutor(22) as pool:

        def ask(client: str) -> int:
            return server.post("/predict", {"inputs": "a"}, authorization=f"Bearer {keys[client]}")[0]

        slow.compacting.open.clear()
        slow.compacting.running.clear()
        futures = [pool.submit(ask, "flood")]
        assert slow.compacting.running.wait(10)
        futures += [pool.submit(ask, "flood") for _ in range(20)]
        wait_for(lambda: service.batchers["m"].queue.rows == 20)
        assert ask("flood") == 429
        futures.append(pool.submit(ask, "calm"))  # a full queue has room for who has nothing in it
        wait_for(lambda: service.batchers["m"].queue.rows == 21)
        slow.compacting.open.set()
        assert [future.result() for future in futures] == [200] * 22
    assert hooks.clients[:3] == ["flood", "flood", "calm"]


def test_a_budget_caps_or_refuses(engine: Engine) -> None:
    hooks = Recorder()
    with running(Service({"m": engine}, hooks=hooks)) as server:
        _, free = server.post("/v1/classify", {"texts": TEXTS})
        hooks.caps = 0.0
        _, capped = server.post("/v1/classify", {"texts": TEXTS})
        assert {answer["exit_layer"] for answer in capped["answers"]} == {1}
        for before, after in zip(free["answers"], capped["answers"], strict=True):
            assert after["budgeted"] == (before["exit_layer"] > 1)
        _, own = server.post("/v1/classify", {"texts": TEXTS, "max_layer": 1})
        assert not any(answer["budgeted"] for answer in own["answers"])
        hooks.caps = Refusal("no budget left", 7.2)
        status, content, fields = server.send("POST", "/predict", {"inputs": "a"})
        assert (status, content["error"], fields["retry-after"]) == (429, "no budget left", "7")


def test_a_request_that_fails_does_not_fail_its_batch(slow: Engine) -> None:
    hooks = Recorder()
    slow.compacting.poison = slow.encode(["bad"])[0]["input_ids"]
    with running(Service({"m": slow}, hooks=hooks)) as server, ThreadPoolExecutor(3) as pool:
        slow.compacting.open.clear()
        slow.compacting.running.clear()
        first = pool.submit(server.post, "/predict", {"inputs": "a"})
        assert slow.compacting.running.wait(10)
        others = [pool.submit(server.post, "/predict", {"inputs": text}) for text in ("bad", "good")]
        wait_for(lambda: server.service.batchers["m"].queue.rows == 2)
        slow.compacting.open.set()
        assert [future.result()[0] for future in (first, *others)] == [200, 500, 200]
        assert server.post("/predict", {"inputs": "a"})[0] == 200
    assert (hooks.answers, hooks.drops) == (3, 1)


BODIES = [
    b"{",
    b"[]",
    b"null",
    b"\x00",
    b'{"texts": ["\\u0000 \\ud800"]}',
    b"[" * 100_000,
    b'{"texts": 1e999}',
]


@pytest.mark.parametrize("path", ["/predict", "/", "/classify", "/v1/classify"])
@pytest.mark.parametrize("body", BODIES)
def test_no_input_is_the_services_fault(path: str, body: bytes, shared: Running) -> None:
    assert shared.post(path, body)[0] in (200, 400, 422)


def test_every_text_gets_an_answer(shared: Running) -> None:
    @settings(deadline=None, max_examples=25)
    @given(st.lists(st.text(), min_size=1, max_size=4))
    def property(texts: list[str]) -> None:
        status, reply = shared.post("/v1/classify", {"texts": texts})
        assert (status, len(reply["answers"])) == (200, len(texts))

    property()
    assert shared.post("/v1/classify", {"texts": ["\0", "x" * 100_000, ""]})[0] == 200


def test_fifty_clients_at_once(shared: Running) -> None:
    with ThreadPoolExecutor(50) as pool:
        sent = [pool.submit(shared.post, "/v1/classify", {"texts": [TEXTS[i % 4]]}) for i in range(200)]
        answers = [future.result() for future in sent]
    assert {status for status, _ in answers} == {200}
    labels = [reply["answers"][0]["label"] for _, reply in answers]
    assert labels == [shared.service.engines["m"].predict(TEXTS[i % 4]).label for i in range(200)]


HEAD = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n"


def test_slow_half_open_and_leaving_clients(shared: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "HEADER_SECONDS", 0.3)
    half = [socket.create_connection(("127.0.0.1", shared.port)) for _ in range(3)]
    half[1].sendall(HEAD[:30])  # a head that never ends
    half[2].sendall(HEAD + b"{")  # a body that never ends
    leaver = socket.create_connection(("127.0.0.1", shared.port))
    leaver.sendall(HEAD + b"{")
    leaver.close()
    assert shared.post("/predict", {"inputs": "a"})[0] == 200
    for connection in half[:2]:
        connection.settimeout(10)
        assert connection.recv(100) == b""  # closed
    half[2].settimeout(10)
    assert half[2].recv(1000).startswith(b"HTTP/1.1 408")
    wait_for(lambda: not shared.server.server_state.connections)
    for connection in half:
        connection.close()


def test_a_client_that_sends_too_much_reads_why(shared: Running) -> None:
    with socket.create_connection(("127.0.0.1", shared.port), timeout=20) as client:
        head = HEAD.replace(b"content-length: 100", b"content-length: 6000000")
        client.sendall(head + b"x" * 6_000_000)  # all of it, before it reads
        assert client.recv(1000).startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize(("sent", "read"), [(4, 4), (17, 17), (1000, 17)])
def test_what_a_body_has_beyond_its_limit_is_dropped(sent: int, read: int, engine: Engine) -> None:
    service = Service({"m": engine}, Limits(body_bytes=10))
    guard = Guard(None, service, {}, None)  # type: ignore[arg-type]
    chunks = [{"type": "http.request", "body": b"x" * 6, "more_body": i < sent - 1} for i in range(sent)]

    async def receive() -> Any:
        return chunks.pop(0)

    with pytest.raises(TooLarge, match="expected a body of at most 10 bytes: send fewer texts"):
        asyncio.run(guard.read(receive))
    assert sent - len(chunks) == read


def test_too_much_that_stops_halfway_is_too_much(engine: Engine) -> None:
    guard = Guard(None, Service({"m": engine}, Limits(body_bytes=10, body_seconds=1)), {}, None)  # type: ignore[arg-type]
    chunks = [{"type": "http.request", "body": b"x" * 11, "more_body": True}]

    async def receive() -> Any:
        return chunks.pop() if chunks else await asyncio.sleep(60)

    with pytest.raises(TooLarge):
        asyncio.run(guard.read(receive))


def test_the_end_answers_what_was_accepted(slow: Engine) -> None:
    hooks = Recorder()
    with running(Service({"m": slow}, hooks=hooks)) as server, ThreadPoolExecutor(6) as pool:
        slow.compacting.open.clear()
        slow.compacting.running.clear()
        futures = [pool.submit(server.post, "/predict", {"inputs": TEXTS[0]})]
        assert slow.compacting.running.wait(10)  # alone: the batch would take what has arrived by then
        futures += [pool.submit(server.post, "/predict", {"inputs": text}) for text in TEXTS[1:]]
        wait_for(lambda: server.service.batchers["m"].queue.rows == 3)
        server.server.should_exit = True
        time.sleep(0.2)
        with pytest.raises(ConnectionRefusedError):
            server.post("/predict", {"inputs": "late"})
        slow.compacting.open.set()
        assert [future.result()[0] for future in futures] == [200] * 4
    assert (hooks.answers, hooks.drops) == (4, 0)


def test_logs_have_no_texts_and_a_full_disk_ends_nothing(engine: Engine, tmp_path: Path) -> None:
    loggers = [logging.getLogger(name) for name in ("offramp", "uvicorn")]
    before = [(logger.handlers, logger.propagate, logger.level) for logger in loggers]
    try:
        for path in (tmp_path / "log", Path("/dev/full")):
            if not path.exists() and path.parent != tmp_path:
                continue
            handler = open_log(path)
            with running(Service({"m": engine})) as server:
                assert server.post("/v1/classify", {"texts": ["a secret film"]})[0] == 200
                assert server.post("/v1/classify", {"texts": ["a secret film"], "secret": 1})[0] == 422
                assert server.send("GET", "/secret")[0] == 404
            handler.close()
            assert (handler.dropped > 0) == (path.parent != tmp_path)
    finally:
        for logger, (handlers, propagate, level) in zip(loggers, before, strict=True):
            logger.handlers, logger.propagate = handlers, propagate
            logger.setLevel(level)
    content = (tmp_path / "log").read_text()
    assert "secret" not in content
    lines = [json.loads(line) for line in content.splitlines()]
    requests = [line for line in lines if line["event"] == "request"]
    assert [line["status"] for line in requests] == [200, 422, 404]
    assert (
        requests[0].items()
        >= {"path": "/v1/classify", "model": "m", "rows": 1, "client": "127.0.0.1"}.items()
    )


def test_who_may_reach_the_service() -> None:
    for host in ("127.0.0.1", "::1", "localhost"):
        check_exposure(host, {}, False)
    check_exposure("0.0.0.0", {"a": "k"}, False)
    check_exposure("0.0.0.0", {}, True)
    for host in ("0.0.0.0", "::", "example.org"):
        with pytest.raises(ConfigError, match="set OFFRAMP_API_KEY or --keys, or give --expose"):
            check_exposure(host, {}, False)


def test_keys_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "keys"
    file.write_text("# clients\nanna k1\n\nben k2\n")
    assert read_keys(file) == {"anna": "k1", "ben": "k2"}
    monkeypatch.setenv("OFFRAMP_API_KEY", "k3")
    assert read_keys(None) == {"default": "k3"}
    monkeypatch.delenv("OFFRAMP_API_KEY")
    for content, message in {
        "anna": "line 1: expected `name key`",
        "anna topsecret\nben topsecret": "line 2: expected `name key`",
        "": "has no keys",
    }.items():
        file.write_text(content)
        with pytest.raises(ConfigError, match=message) as error:
            read_keys(file)
        assert "topsecret" not in str(error.value)


def test_names_of_models(saved: Path) -> None:
    assert [*open_engines([str(saved), f"b={saved}"])] == ["saved", "b"]
    with pytest.raises(ConfigError, match="two models are called 'saved'"):
        open_engines([str(saved), str(saved)])
    with pytest.raises(OfframpError, match="no model at"):
        open_engines(["a=nowhere"])
    with pytest.raises(ConfigError, match="at least one model"):
        Service({})


def test_sigterm_ends_the_command_after_all_answers(exported: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "offramp.cli.main",
        "serve",
        f"m={exported}",
        "--log",
        str(tmp_path / "log"),
    ]
    environment = {**os.environ, "OFFRAMP_SERVE_PORT": str(port)}
    process = subprocess.Popen(command, env=environment)
    server = Running(port, None, None)  # type: ignore[arg-type]
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                assert server.post("/predict", {"inputs": "a"})[0] == 200
                break
            except OSError:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()


def test_a_cancelled_request_is_dropped(slow: Engine) -> None:
    from offramp.serving.service import Demand

    hooks = Recorder()
    service = Service({"m": slow}, hooks=hooks)
    service.start()

    async def leave() -> None:
        slow.compacting.open.clear()
        slow.compacting.running.clear()
        first = asyncio.create_task(service.answer(Demand(["a"]), "c"))
        while not slow.compacting.running.is_set():
            await asyncio.sleep(0.001)
        second = asyncio.create_task(service.answer(Demand(["b"]), "c"))
        while not service.batchers["m"].queue.rows:
            await asyncio.sleep(0.001)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        slow.compacting.open.set()
        assert len((await first).predictions) == 1

    asyncio.run(leave())
    service.close()
    assert (hooks.admitted, hooks.answers, hooks.drops) == (2, 1, 1)
    assert hooks.batches == [1]
