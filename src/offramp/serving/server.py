"""Run the application: the socket, slow clients, and the end."""

from __future__ import annotations

import asyncio
import ipaddress
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from offramp._core.errors import ConfigError
from offramp._core.paths import user_path
from offramp.inference.engine import Engine
from offramp.serving.guard import Asgi

KEY_VARIABLE = "OFFRAMP_API_KEY"
HEADER_SECONDS = 10.0  # for the head of a request
IDLE_SECONDS = 60  # between two requests of a connection
MOST_CONNECTIONS = 1000  # more get 503


class ImpatientProtocol(H11Protocol):
    """HTTP that closes a connection whose next request does not arrive: each would hold a socket for ever."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def _watch(self) -> None:
        """Time the head of the next request; its body is timed by the guard."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_timer()
        elif self._timer is None:
            self._timer = self.loop.call_later(HEADER_SECONDS, self._give_up)

    def _give_up(self) -> None:
        self._timer = None
        if self.cycle is None or self.cycle.response_complete:
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


def make_server(app: Asgi, host: str, port: int, drain_seconds: int, **options: Any) -> uvicorn.Server:
    """A server whose `run` serves until SIGTERM or Ctrl-C.

    It then answers what was accepted, for at most `drain_seconds`. The options are those of `uvicorn.Config`.
    """
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=ImpatientProtocol,
        log_config=None,
        access_log=False,
        lifespan="on",
        server_header=False,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=drain_seconds,
        **options,
    )
    return uvicorn.Server(config)
