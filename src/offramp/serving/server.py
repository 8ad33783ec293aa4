"""Run the application: the socket, slow clients, and the end."""

from __future__ import annotations

import asyncio
import ipaddress
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn
from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from offramp._core.errors import ConfigError
from offramp._core.paths import user_path
from offramp.inference.engine import Engine
from offramp.serving.guard import Asgi

KEY_VARIABLE = "OFFRAMP_API_KEY"
HEADER_SECONDS = 10.0  # for the head of a request
HEAD_BYTES = 16_384  # of the head of a request
LAST_SECONDS = 0.1  # at the end, for requests that are on their way
IDLE_SECONDS = 60  # between two requests of a connection
MOST_CONNECTIONS = 1000  # more get 503


class ImpatientProtocol(HttpToolsProtocol):
    """HTTP that bounds the time and the memory of a request that does not arrive, and refuses ambiguous ones.

    llhttp, the parser, would take heads of any size, requests without a `Host`, and encodings that nothing decodes.

    Args:
        head_bytes: most bytes of a head, and of what frames a body, before the request is refused.
        options: those of uvicorn.

    Source: RFC 9112, sections 3.2 (`Host`) and 6.1 (`Transfer-Encoding`); RFC 9110, section 7.8 (`Upgrade`).
    """

    def __init__(self, *, head_bytes: int = HEAD_BYTES, **options: Any) -> None:
        super().__init__(**options)
        self.head_bytes = head_bytes
        self._unfinished = 0  # bytes since the parser last reported something whole
        self._cycles: set[RequestResponseCycle] = set()  # unanswered; several where a client pipelines
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)
        for cycle in self._cycles:
            cycle.disconnected = True

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        self._unfinished += len(data)
        try:
            self.parser.feed_data(data)
        except HttpParserUpgrade as end:
            self._ignore_upgrade(data[end.args[0] :])
        except HttpParserError:
            self._refuse()
        else:
            if self._unfinished > self.head_bytes:
                self._refuse()
            self._watch()

    def shutdown(self) -> None:
        """The end of the service: a request that its client has sent by now is still answered."""
        if self._answering():
            super().shutdown()
        else:
            self.loop.call_later(LAST_SECONDS, super().shutdown)

    def on_message_begin(self) -> None:
        self._unfinished = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._unfinished = 0
        hosts = sum(name == b"host" for name, _ in self.headers)
        encodings = [value.lower() for name, value in self.headers if name == b"transfer-encoding"]
        if (
            hosts > 1
            or self.parser.get_http_version() not in (("1.0", "1.1") if hosts else ("1.0",))
            or encodings not in ([], [b"chunked"])
            or self.parser.get_method() == b"CONNECT"
        ):
            raise ValueError("refused")  # ends the parser, and `data_received` answers
        url = self.url
        self.url, _, query = url.partition(b"?")  # httptools splits no address of more than 64 KiB
        super().on_headers_complete()
        self.url, self.scope["query_string"] = url, query
        self._cycles = {c for c in (*self._cycles, self.cycle) if c and not c.response_complete}

    def on_body(self, body: bytes) -> None:
        self._unfinished = 0
        super().on_body(body)

    def _should_upgrade(self) -> bool:
        return True  # so that no request with a body counts as whole without it; see `_ignore_upgrade`

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Read a request again without its wish for another protocol: the parser takes no body after one."""
        version = self.parser.get_http_version().encode()
        line = b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, version)
        fields = [b": ".join(field) for field in self.headers if field[0] != b"upgrade"]
        self.parser = HttpRequestParser(self)
        self.data_received(b"\r\n".join([line, *fields, b"", rest]))

    def _refuse(self) -> None:
        """Answer 400 and close the connection; requests that came whole before are answered first."""
        if self._answering() and not self.cycle.more_body:
            self.cycle.keep_alive = False
        elif not self.transport.is_closing():
            self.logger.warning("invalid HTTP")
            self.send_400_response("expected HTTP/1.1, got bytes that are none: send a valid request")

    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _watch(self) -> None:
        """Time the head of the next request; its body is timed by the guard."""
        if self._answering():
            self._stop_timer()
        elif self._timer is None:
            self._timer = self.loop.call_later(HEADER_SECONDS, self._give_up)

    def _give_up(self) -> None:
        self._timer = None
        if not self._answering():
            self.transport.close()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def open_engines(models: Sequence[str], **options: Any) -> dict[str, Engine]:
    """Engines by name; see `model_folders`. The options are those of every `Engine`.

    Raises:
        ConfigError: two models of one name.
        ModelError: a folder that cannot be opened.
    """
    return {name: Engine(path, **options) for name, path in model_folders(models).items()}


def model_folders(models: Sequence[str]) -> dict[str, Path]:
    """Folders by the names of their models, from folders or `name=folder`; a folder's own name is the default.

    Raises:
        ConfigError: two models of one name.
    """
    folders: dict[str, Path] = {}
    for model in models:
        name, separator, folder = model.partition("=")
        if not separator or "/" in name:  # a path may have an equals sign
            name, folder = "", model
        path = user_path(folder, "the folder of a model")
        name = name or path.resolve().name
        if name in folders:
            raise ConfigError(
                f"two models are called {name!r}: give them names, as in a={folders[name]} b={path}"
            )
        folders[name] = path
    return folders


def read_keys(file: Path | None) -> dict[str, str]:
    """API key by the name of its client, from a file with `name key` on each line, and from OFFRAMP_API_KEY.

    Raises:
        ConfigError: the file cannot be read, or has other lines or a name or key twice.
    """
    keys: dict[str, str] = {}
    if os.environ.get(KEY_VARIABLE):
        keys["default"] = os.environ[KEY_VARIABLE]
    try:
        lines = file.read_text(encoding="utf-8").splitlines() if file else []
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{file} cannot be read ({error}): give a text file with `name key` on each line"
        ) from error
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words or line.startswith("#"):
            continue
        if len(words) != 2 or words[0] in keys or words[1] in keys.values():
            # The key itself is a secret, so the message does not repeat the line.
            raise ConfigError(f"{file}, line {number}: expected `name key`, each once: correct the line")
        keys[words[0]] = words[1]
    if file and not keys:
        raise ConfigError(f"{file} has no keys: write `name key` on each line")
    return keys


def is_loopback(host: str) -> bool:
    """Whether an address is this machine's own, which no other machine reaches."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_exposure(host: str, keys: Mapping[str, str], expose: bool) -> None:
    """Raise `ConfigError` if other machines could reach a service without keys, and nobody said so."""
    if not is_loopback(host) and not keys and not expose:
        raise ConfigError(
            f"on {host} every machine that reaches this one could use the service: set {KEY_VARIABLE} or --keys, or "
            "give --expose to allow it"
        )


def make_server(
    app: Asgi, host: str, port: int, drain_seconds: int, *, head_bytes: int = HEAD_BYTES
) -> uvicorn.Server:
    """A server whose `run` serves until SIGTERM or Ctrl-C.

    It then answers what was accepted, for at most `drain_seconds`. uvloop runs it where it is installed.
    """
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=partial(ImpatientProtocol, head_bytes=head_bytes),  # type: ignore[arg-type]  # it is called only
        ws="none",
        log_config=None,
        access_log=False,
        lifespan="on",
        server_header=False,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=drain_seconds,
    )
    return uvicorn.Server(config)
