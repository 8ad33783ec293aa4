"""The playground as a web application: the page at every state, its files, and attacks as a stream of events."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Generator, Mapping, MutableMapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles
from starlette.datastructures import MutableHeaders
from starlette.middleware.trustedhost import TrustedHostMiddleware

from offramp import __version__
from offramp._core.errors import OfframpError
from offramp.playground.attack import attack_steps
from offramp.playground.models import PlayModel
from offramp.playground.page import render_page, render_problem, render_step
from offramp.playground.state import PageState, read_state
from offramp.serving.guard import Asgi, Receive, Scope, Send
from offramp.serving.server import is_loopback

HEADERS = {
    # The page runs its own script alone, and reaches nothing but this server: it works without a network.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",  # an address holds the text
    "Cache-Control": "no-store",
}


@dataclass(frozen=True)
class Playground:
    """The models of a playground, and its one attack at a time.

    Args:
        models: by name, at least one.
        attack_seconds: longest time of an attack.
        attacking: held by the attack that runs.
    """

    models: Mapping[str, PlayModel]
    attack_seconds: float
    attacking: Lock = field(default_factory=Lock)

    def state(self, request: Request) -> PageState:
        """The state in the address of a request."""
        return read_state(request.query_params.multi_items(), self.models)

    def attack(self, state: PageState) -> Generator[str, None, None]:
        """The events of an attack: `step` while it runs, then `end`."""
        if not self.attacking.acquire(blocking=False):
            yield event("end", render_problem(state, "another attack is running: wait until it ends"))
            return
        side = state.sides[state.target]
        try:
            for step in attack_steps(
                side.model,
                side.policy,
                side.model.segments_of(state.text, state.text_pair),
                recipe=state.recipe,
                max_changed_words=state.words,
                seconds=self.attack_seconds,
            ):
                yield event("end" if step.ending else "step", render_step(state, step))
        except OfframpError as error:
            yield event("end", render_problem(state, str(error)))
        finally:
            self.attacking.release()


def event(kind: str, content: str) -> str:
    """A server-sent event whose data are a JSON string, which has no line breaks."""
    return f"event: {kind}\ndata: {json.dumps(content)}\n\n"


def make_app(
    models: Mapping[str, PlayModel], *, host: str = "127.0.0.1", attack_seconds: float = 60
) -> FastAPI:
    """The application.

    Args:
        models: by name, at least one.
        host: address that it listens on. At this machine's own, requests for other hosts are refused, so that no
            page of another site reaches the playground by a name that leads here.
        attack_seconds: longest time of an attack.
    """
    playground = Playground(models, attack_seconds)
    app = FastAPI(
        title="offramp playground", version=__version__, docs_url=None, redoc_url=None, openapi_url=None
    )
    app.mount("/static", StaticFiles(directory=Path(__file__).with_name("static")))
    app.add_middleware(FixedHeaders)
    if is_loopback(host):
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost", "[::1]", host])

    @app.get("/", response_class=HTMLResponse)
    def page(request: Request) -> str:
        return render_page(playground.state(request), list(playground.models.values()))

    @app.get("/attack")
    async def attack(request: Request) -> Response:
        # Another site's page could start attacks here, though it could not read them.
        if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return Response("attacks are started from the playground's own page", 403)
        return StreamingResponse(
            stream(playground.attack(playground.state(request))), media_type="text/event-stream"
        )

    return app


class FixedHeaders:
    """An ASGI layer that adds `HEADERS` to every response."""

    def __init__(self, app: Asgi) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        await self.app(scope, receive, send_with_headers)


async def stream(events: Generator[str, None, None]) -> AsyncIterator[str]:
    """The events, each made in a thread; a reader that leaves ends the work."""
    try:
        while (item := await run_in_threadpool(next, events, None)) is not None:
            yield item
    finally:
        # A server that ends does not wait for the step under way; the generator is closed when the thread drops it.
        with suppress(ValueError):
            events.close()
