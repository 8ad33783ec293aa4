"""`offramp play`: a page on which a text is typed, watched as it climbs the exits, and attacked."""

from __future__ import annotations

import importlib.util
import os
import socket
from contextlib import closing, suppress
from typing import Annotated

from cyclopts import Parameter

from offramp._core.arguments import number, whole
from offramp._core.errors import ConfigError, MissingExtraError
from offramp._core.progress import progress
from offramp._core.stopping import Stopped
from offramp._core.text import some_of
from offramp.cli.common import Threads, note
from offramp.cli.paths import PathOption

REQUIRED = ("fastapi", "uvicorn", "httptools", "jinja2")
# An address holds two texts of 10,000 characters, and a character takes up to 12 bytes of it.
ADDRESS_BYTES = 2**19


def play(
    *models: Annotated[
        str,
        Parameter(
            help="folder that `offramp train` or `offramp export` wrote, or NAME=FOLDER; two to compare."
        ),
    ],
    policy: list[PathOption] | None = None,
    host: str = "127.0.0.1",
    port: int = 7860,
    expose: bool = False,
    attack_seconds: float = 60,
    threads: Threads = None,
) -> None:
    """Open a page on which a text is typed, watched as it climbs the exits, and attacked.

    For example `offramp play runs/sweet`, or `offramp play runs/sweet runs/joint` to compare two models. The address of
    the page holds all that it shows, so it can be kept and shared. Ctrl-C ends the playground.

    Args:
        policy: files of policies to choose from, besides those in the models' folders.
        host: address to listen on. Another than this machine's own needs `--expose`.
        port: port to listen on; 0 takes a free one.
        expose: let other machines open the page, and read and attack with these models.
        attack_seconds: longest time of an attack.
    """
    for package in REQUIRED:
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(package, "play")
    from offramp.playground.app import make_app
    from offramp.playground.models import open_models
    from offramp.serving.server import is_loopback, make_server

    whole("port", port, 0, 65535)
    number("attack_seconds", attack_seconds, "seconds above 0", lambda seconds: seconds > 0)
    if not is_loopback(host) and not expose:
        raise ConfigError(
            f"on {host} every machine that reaches this one could open the playground: give --expose to allow it"
        )
    with closing(listen(host, port)) as listener, suppress(Stopped):  # the usual end
        with progress(f"load {some_of(models, 3)}"):
            opened = open_models(models, policy or (), threads)
        app = make_app(opened, host=host, attack_seconds=attack_seconds)
        server = make_server(app, host, port, 1, head_bytes=ADDRESS_BYTES)
        name = f"[{host}]" if ":" in host else host
        note(f"playground: http://{name}:{listener.getsockname()[1]} (Ctrl-C ends it)")
        server.run(sockets=[listener])


def listen(host: str, port: int) -> socket.socket:
    """The socket of an address; `ConfigError` if it cannot be had."""
    try:
        (family, *_, address), *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        # Python appends the address to the system's reason.
        reason = error.strerror if isinstance(error, socket.gaierror) else os.strerror(error.errno or 0)
        raise ConfigError(
            f"cannot listen on {host}, port {port} ({reason}): give another --port, or 0 for a free one, or "
            "another --host"
        ) from error
