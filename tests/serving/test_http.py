"""Raw requests: what is read, what is refused, and what a connection may hold."""

from __future__ import annotations

import asyncio
import re
import socket
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from offramp.serving import server as server_module
from offramp.serving.server import HEAD_BYTES

from .running import running_app

HOST = b"Host: x\r\n"
CHUNKED = b"POST /a HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
BIG = b"x" * (HEAD_BYTES // 2)  # three of them are more than a head may have


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the method, the path, and the size of query and body; `/slow` takes a moment."""
    if scope["type"] != "http":
        for event in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{event}.complete"})
        return
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size, more = size + len(message["body"]), message["more_body"]
    await asyncio.sleep(0.05 if scope["path"] == "/slow" else 0)
    size += len(scope["query_string"])
    content = f"{scope['method']} {scope['path']} {size}\n".encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": content})


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with running_app(echo) as server:
        yield server.servers[0].sockets[0].getsockname()[1]


def talk(port: int, raw: bytes) -> tuple[list[int], list[str]]:
    """Send bytes, and read all statuses and contents until the server closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        answer = b""
        try:
            client.sendall(raw)
            while data := client.recv(65536):
                answer += data
        except OSError:  # the server closed first
            pass
    statuses = [int(status) for status in re.findall(rb"HTTP/1.1 (\d+)", answer)]
    return statuses, [line.decode() for line in re.findall(rb"[A-Z]+ /\S* \d+(?=\n)", answer)]


def get(*lines: bytes, version: bytes = b"1.1", host: bytes = HOST) -> bytes:
    return b"GET /a HTTP/" + version + b"\r\n" + host + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def post(*lines: bytes, body: bytes = b"") -> bytes:
    return get(*lines).replace(b"GET", b"POST") + body


READ = {
    "plain": (get(), "GET /a 0"),
    "old, without a host": (get(version=b"1.0", host=b""), "GET /a 0"),
    "empty lines before it": (b"\r\n\r\n" + get(), "GET /a 0"),
    "absolute address": (get().replace(b"/a", b"http://h/a?b"), "GET /a 1"),
    "long address": (get().replace(b"/a", b"/a?" + b"x" * 100_000), "GET /a 100000"),
    "body": (post(b"Content-Length: 3", body=b"abc"), "POST /a 3"),
    "body of a GET": (get(b"Content-Length: 3") + b"abc", "GET /a 3"),
    "chunks": (CHUNKED + b"1;a=b\r\nx\r\n2\r\nyz\r\n0\r\na: b\r\n\r\n", "POST /a 3"),
    "many chunks": (CHUNKED + b"1\r\nx\r\n" * HEAD_BYTES + b"0\r\n\r\n", f"POST /a {HEAD_BYTES}"),
    "large body": (post(b"Content-Length: 100000", body=b"x" * 100_000), "POST /a 100000"),
    "100-continue": (post(b"Expect: 100-continue", b"Content-Length: 1", body=b"x"), "POST /a 1"),
    "websocket": (get(b"Connection: Upgrade", b"Upgrade: websocket"), "GET /a 0"),
    "HTTP/2": (  # as Java's client asks at first
        post(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"Content-Length: 3", body=b"abc"),
        "POST /a 3",
    ),
}
REFUSED = {
    "no host": get(host=b""),
    "two hosts": get(HOST.strip()),
    "long path": get().replace(b"/a", b"/" + b"x" * 70_000),
    "bytes that are no HTTP": b"\x16\x03\x01\x02\x00\r\n\r\n",
    "HTTP 0.9": b"GET /a\r\n\r\n",
    "HTTP/2 at once": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a proxy's tunnel": get().replace(b"GET /a", b"CONNECT h:80"),
    "two lengths": post(b"Content-Length: 1", b"Content-Length: 2", body=b"ab"),
    "negative length": post(b"Content-Length: -1", body=b"a"),
    "length and chunks": post(b"Content-Length: 3", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    "unknown encoding": post(b"Transfer-Encoding: xchunked", body=b"0\r\n\r\n"),
    "encoding that nothing decodes": post(b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"),
    "two encodings": post(b"Transfer-Encoding: gzip", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    "size of a chunk": CHUNKED + b"zz\r\n",
    "end of a chunk": CHUNKED + b"1\r\nab\r\n",
    "space before a colon": get(b"a : b"),
    "zero byte": get(b"a: b\0c"),
    "lone carriage return": get(b"a: b\rc"),
}
ENDLESS = {
    "address": [b"GET /", *[BIG] * 3],
    "header": [b"GET /a HTTP/1.1\r\na: ", *[BIG] * 3],
    "headers": [b"GET /a HTTP/1.1\r\n", *[b"a: b\r\n" * (HEAD_BYTES // 12)] * 3],
    "name of a chunk": [CHUNKED + b"1;", *[BIG] * 3],
    "trailers": [CHUNKED + b"1\r\nx\r\n0\r\n", *[b"a: b\r\n" * (HEAD_BYTES // 12)] * 3],
    "second head": [get(), *[b"GET /a HTTP/1.1\r\na: " + BIG] * 3],
}


@pytest.mark.parametrize("name", READ)
def test_what_is_read(name: str, port: int) -> None:
    raw, content = READ[name]
    followed = b"1.0" not in raw  # the connection takes the next request
    statuses, contents = talk(port, raw + (get(b"Connection: close") if followed else b""))
    assert [status for status in statuses if status != 100] == [200] * (1 + followed)
    assert contents == [content] + ["GET /a 0"] * followed


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str, port: int) -> None:
    assert talk(port, REFUSED[name] + get()) == ([400], [])


@pytest.mark.parametrize("name", ENDLESS)
def test_a_request_without_an_end_is_refused_before_it_fills_the_memory(name: str, port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        answer = b""
        for chunk in ENDLESS[name]:
            client.sendall(chunk)
            time.sleep(0.01)  # the server reads each one by itself
        while data := client.recv(65536):
            answer += data
    assert answer.count(b"HTTP/1.1 400") == 1


@pytest.mark.parametrize("rest", [REFUSED["no host"], REFUSED["bytes that are no HTTP"]])
@pytest.mark.parametrize("before", [1, 2])
def test_requests_before_one_that_is_refused_are_answered(before: int, rest: bytes, port: int) -> None:
    raw = get().replace(b"/a", b"/slow") * before + rest
    assert talk(port, raw) == ([200] * before, ["GET /slow 0"] * before)


def test_clients_that_leave_while_their_requests_wait_raise_nothing(
    port: int, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(get().replace(b"/a", b"/slow") * 3)
        time.sleep(0.02)
    time.sleep(0.1)
    assert talk(port, get(b"Connection: close")) == ([200], ["GET /a 0"])
    assert not caplog.records


def test_a_request_that_crosses_the_end_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "LAST_SECONDS", 5)
    with running_app(echo) as server:
        address = server.servers[0].sockets[0].getsockname()[:2]
        with socket.create_connection(address, timeout=10) as client:
            server.should_exit = True
            while server.servers[0].sockets:  # until the port is closed
                time.sleep(0.002)
            client.sendall(get(b"Connection: close"))
            assert client.recv(1000).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("missing", [True, False])
def test_the_loop_is_uvloop_where_it_exists(missing: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if missing:
        monkeypatch.setitem(sys.modules, "uvloop", None)
    else:
        pytest.importorskip("uvloop")
    loops: list[str] = []

    async def note_loop(scope: Any, receive: Any, send: Any) -> None:
        loops.append(type(asyncio.get_running_loop()).__module__.split(".")[0])
        await echo(scope, receive, send)

    with running_app(note_loop) as server:
        answer = talk(server.servers[0].sockets[0].getsockname()[1], get(b"Connection: close"))
    assert answer == ([200], ["GET /a 0"])
    assert set(loops) == {"asyncio" if missing else "uvloop"}
