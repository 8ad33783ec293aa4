"""The same application on Ray Serve: several replicas, which are started again when they die."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from offramp._core.cluster import connect
from offramp._core.errors import MissingExtraError
from offramp._core.stopping import handled
from offramp.serving.app import make_app
from offramp.serving.server import model_folders, open_engines
from offramp.serving.service import Limits, Service

APPLICATION = "offramp"


def deploy(
    models: Sequence[str],
    options: Mapping[str, Any],
    limits: Limits,
    keys: Mapping[str, str],
    *,
    host: str,
    port: int,
    replicas: int,
    show_exits: bool,
) -> None:
    """Start the application on a Ray cluster, and wait until it answers; arguments as of `offramp serve`.

    Every replica opens the models itself, so the folders must be readable on every machine of the cluster. Limits of
    the queue hold for each replica.

    Raises:
        MissingExtraError: without ray.
    """
    serve = ray_serve()
    folders = [f"{name}={path.resolve()}" for name, path in model_folders(models).items()]

    class Replica:
        """One process with all models, an ASGI application for Ray Serve."""

        def __init__(self) -> None:

            self.service = Service(open_engines(folders, **options), limits, show_exits=show_exits)
            self.service.start()
            self.app = make_app(self.service, keys)

        async def __call__(self, request: Any) -> Any:
            """Pass a request on; the body and the answer are small, so both are held in memory."""
            return await answer_in_memory(self.app, request)

    serve.start(http_options={"host": host, "port": port})
    deployment = serve.deployment(Replica, name=APPLICATION, num_replicas=replicas)
    serve.run(deployment.bind(), name=APPLICATION, route_prefix="/")


def ray_serve() -> Any:
    """The module `ray.serve`, with ray connected."""
    connect()
    try:
        return importlib.import_module("ray.serve")
    except ImportError as error:  # ray alone lacks what its server needs
        raise MissingExtraError("ray[serve]", "serve-ray") from error


async def answer_in_memory(app: Any, request: Any) -> Any:
    """The application's whole answer to a request of Ray Serve's proxy, as a Starlette response."""
    from starlette.responses import Response

    messages: list[Any] = []

    async def send(message: Any) -> None:
        messages.append(message)

    await app({**request.scope, "root_path": ""}, request.receive, send)
    start, *bodies = messages
    response = Response(b"".join(message.get("body", b"") for message in bodies), start["status"])
    response.raw_headers = list(start["headers"])
    return response


def serve_on_ray(*args: Any, **options: Any) -> None:
    """Deploy, and wait for SIGTERM or Ctrl-C; Ray then lets the replicas finish their requests."""
    deploy(*args, **options)
    stopped = threading.Event()
    with handled(lambda number, frame: stopped.set()):
        while not stopped.wait(0.5):
            pass
    ray_serve().shutdown()
