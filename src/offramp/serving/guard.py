"""What every request passes before an endpoint: its key, the size of its body, and the log."""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from time import monotonic
from typing import Any

from offramp._core.errors import OfframpError
from offramp.serving.errors import ServiceError, TooLarge, TooSlow, Unauthorized
from offramp.serving.service import Service

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN = ("/health",)  # needs no key
DROPPED = 10  # a body is read up to this many times its limit, and then the connection closes
LOG = logging.getLogger("offramp.service")


class Disconnected(Exception):
    """The client left before its request was complete."""


class Guard:
    """An ASGI layer around the endpoints.

    It checks the key, reads the body within the limits of size and time, and writes one line to the log for each
    request. No line has a text in it.

    Args:
        app: the endpoints.
        service: gives the limits, and is told of refusals.
        keys: API key by the name of its client; without keys every client is let in.
        refuse: writes the answer of an error, in the shape of the endpoint.
    """

    def __init__(
        self,
        app: Asgi,
        service: Service,
        keys: Mapping[str, str],
        refuse: Callable[[str, ServiceError], Asgi],
    ) -> None:
        self.app, self.service, self.refuse = app, service, refuse
        self.keys = {name: key.encode() for name, key in keys.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = monotonic(), 499  # as nginx notes clients that left
        facts: dict[str, Any] = {}
        client = scope["client"][0] if scope.get("client") else "unknown"
        scope.setdefault("state", {}).update(facts=facts, client=client)

        async def note_status(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            scope["state"]["client"] = client = self.client_of(scope, client)
            body = await self.read(receive)
            await self.app(scope, replay(body, receive), note_status)
        except ServiceError as error:
            await self.refuse(scope["path"], error)(scope, receive, note_status)
        except Disconnected:
            pass
        finally:
            if status >= 400:
                self.service.hooks.refused(client, facts.get("model", ""), status)
            line = {"method": scope["method"], "path": route_of(scope), "status": status, "client": client}
            LOG.info(
                "request", extra={"facts": {**line, "ms": round(1e3 * (monotonic() - started), 2), **facts}}
            )

    def client_of(self, scope: Scope, address: str) -> str:
        """The name of the key, or the address where no key is needed; `Unauthorized` for none or a wrong one."""
        if not self.keys or scope["path"] in OPEN:
            return address
        header = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        kind, _, given = header.partition(b" ")
        # All keys are compared, each in constant time: the time says nothing about them.
        names = [name for name, key in self.keys.items() if hmac.compare_digest(given.strip(), key)]
        if kind.lower() != b"bearer" or not names:
            raise Unauthorized("expected the header 'Authorization: Bearer KEY' with a key of this service")
        return names[0]

    async def read(self, receive: Receive) -> bytes:
        """The body; `TooLarge`, `TooSlow` or `Disconnected` if it does not arrive.

        What a body has beyond its limit is read and dropped: a client that is still sending when the connection closes
        never sees why.
        """
        limits = self.service.limits
        chunks: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(limits.body_seconds):
                more = True
                while more and size <= DROPPED * limits.body_bytes:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Disconnected
                    chunk = message.get("body", b"")
                    size += len(chunk)
                    if size <= limits.body_bytes:
                        chunks.append(chunk)
                    more = message.get("more_body", False)
        except TimeoutError as error:
            if size <= limits.body_bytes:
                raise TooSlow(
                    f"the body did not arrive within {limits.body_seconds} s: send it at once"
                ) from error
        if size > limits.body_bytes:
            raise TooLarge(f"expected a body of at most {limits.body_bytes} bytes: send fewer texts")
        return b"".join(chunks)


def replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives a body that was read already, then what comes after it."""
    pending = [body]

    async def receive_again() -> MutableMapping[str, Any]:
        if pending:
            return {"type": "http.request", "body": pending.pop(), "more_body": False}
        return await receive()

    return receive_again


def route_of(scope: Scope) -> str:
    """The endpoint's path; a path that is none could hold anything, so it is not logged."""
    route = scope.get("route")
    return getattr(route, "path", "unknown")


def as_service_error(error: OfframpError) -> ServiceError:
    """An error of the library as one of the service: the request has values that it cannot use."""
    return error if isinstance(error, ServiceError) else ServiceError(str(error))
