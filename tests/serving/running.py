"""A real server in a thread, and a client that sends whatever a test says."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Thread
from time import monotonic, sleep
from typing import Any

from offramp.serving.app import make_app
from offramp.serving.server import make_server
from offramp.serving.service import Service


@dataclass
class Running:
    """A server's address."""

    port: int
    service: Service
    server: Any

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def send(
        self, method: str, path: str, body: Any = None, **headers: str
    ) -> tuple[int, Any, dict[str, str]]:
        """Status, content and headers of the answer; a body that is not bytes is sent as JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, data, {"content-type": "application/json", **names})
            response = connection.getresponse()
            content = response.read()
            fields = {name.lower(): value for name, value in response.getheaders()}
            is_json = fields.get("content-type") == "application/json"
            return response.status, json.loads(content) if is_json else content, fields
        finally:
            connection.close()

    def post(self, path: str, body: Any, **headers: str) -> tuple[int, Any]:
        return self.send("POST", path, body, **headers)[:2]


@contextmanager
def running_app(app: Any, drain_seconds: int = 10) -> Iterator[Any]:
    """A server that runs an ASGI application in a thread."""
    server = make_server(app, "127.0.0.1", 0, drain_seconds)
    thread = Thread(target=server.run)
    thread.start()
    try:
        deadline = monotonic() + 20
        while not server.started and thread.is_alive() and monotonic() < deadline:
            sleep(0.005)
        assert server.started
        yield server
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def running(
    service: Service, keys: dict[str, str] | None = None, drain_seconds: int = 10
) -> Iterator[Running]:
    with running_app(make_app(service, keys), drain_seconds) as server:
        yield Running(server.servers[0].sockets[0].getsockname()[1], service, server)
