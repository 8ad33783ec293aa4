"""`offramp serve`: answer over HTTP."""

from __future__ import annotations

import gc
import importlib.util
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Annotated, Literal

from cyclopts import Group, Parameter

from offramp._core.arguments import whole
from offramp._core.errors import ConfigError, MissingExtraError
from offramp._core.progress import progress
from offramp._core.stopping import Stopped
from offramp._core.text import some_of
from offramp.cli.common import Threads
from offramp.cli.paths import PathOption
from offramp.cli.watching import WatchOptions
from offramp.serving.service import Limits

REQUIRED = ("fastapi", "uvicorn", "httptools", "prometheus_client")


@Parameter(name="*", group=Group("Limits", sort_key=8))
@dataclass(frozen=True)
class LimitOptions(Limits):
    """What the service takes.

    Args:
        queue_rows: texts that wait for a model; more are refused with 429.
        request_rows: texts of a request; more are refused with 413.
        body_bytes: size of a request; more is refused with 413.
        text_characters: of a text; more are refused with 413. Longer texts than the model reads are cut.
        deadline_ms: time until an answer, if the request does not say otherwise.
        body_seconds: time for a request to arrive in.
    """


def serve(
    *models: Annotated[
        str, Parameter(help="folder that `offramp export` or `offramp train` wrote, or NAME=FOLDER.")
    ],
    host: str = "127.0.0.1",
    port: int = 8080,
    keys: PathOption | None = None,
    expose: bool = False,
    hide_exits: bool = False,
    batch_size: int = 32,
    threads: Threads = None,
    limits: LimitOptions = LimitOptions(),
    watching: WatchOptions = WatchOptions(),
    drain_seconds: int = 30,
    log: PathOption | None = None,
    engine: Literal["process", "ray"] = "process",
    replicas: int = 2,
) -> None:
    """Answer over HTTP, as text-embeddings-inference, infinity and vLLM do, with early exits.

    For example `offramp serve served`, then `curl localhost:8080/v1/classify -H 'content-type: application/json' -d
    '{"texts": ["a gripping, funny film"]}'`. Several models: `offramp serve movies=served/sst2 pairs=served/mrpc`. The
    endpoints are listed at /docs. SIGTERM answers what was accepted, then ends the service. Every option can be an
    environment variable too, such as OFFRAMP_SERVE_PORT.

    Args:
        host: address to listen on. Another than this machine's own needs keys, or `--expose`.
        port: port to listen on.
        keys: file with `name key` on each line; clients send `Authorization: Bearer KEY`. A single key can stand in
            OFFRAMP_API_KEY.
        expose: let other machines use the service without a key.
        hide_exits: do not tell where a text left, and do not let requests limit the depth: exits tell something about
            the training texts.
        batch_size: rows run at once.
        drain_seconds: time to answer what was accepted, at the end.
        log: file of the log; by default stderr. It has one JSON object a line, and no texts.
        engine: one process, or replicas on Ray Serve.
        replicas: processes on Ray Serve.
    """
    if engine == "ray" and watching != WatchOptions():
        raise ConfigError(
            "budgets and alarms need one process, since replicas would each have their own: leave --engine ray out"
        )
    for package in (*REQUIRED, *(["ray"] if engine == "ray" else [])):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(package, "serve-ray" if engine == "ray" else "serve")
    from offramp.serving.app import make_app
    from offramp.serving.logs import open_log
    from offramp.serving.server import check_exposure, make_server, open_engines, read_keys
    from offramp.serving.service import Service

    whole("port", port, 0, 65535)
    secrets = read_keys(keys)
    check_exposure(host, secrets, expose)
    bounds = Limits(**vars(limits))
    options = {"batch_size": batch_size, "threads": threads}
    if engine == "ray":
        from offramp.serving.on_ray import serve_on_ray

        serve_on_ray(
            models,
            options,
            bounds,
            secrets,
            host=host,
            port=port,
            replicas=replicas,
            show_exits=not hide_exits,
        )
        return
    with progress(f"load {some_of(models, 3)}"):
        engines = open_engines(models, **options)
    open_log(log)
    hooks = watching.watch(engines, secrets)
    service = Service(engines, bounds, hooks, show_exits=not hide_exits)
    gc.collect()
    gc.freeze()  # what lives until the end is not looked at again: each time took 40 ms, and nobody got an answer
    with closing(hooks), suppress(Stopped):  # the usual end, after all answers
        make_server(make_app(service, secrets), host, port, drain_seconds).run()
