"""The application: all endpoints on a service, with errors in the shape of each endpoint."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, get_type_hints

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import TypeAdapter
from pydantic_core import to_json
from starlette.exceptions import HTTPException

from offramp import __version__
from offramp._core.errors import OfframpError
from offramp.serving.errors import InvalidRequest, ServiceError, TooLarge, TooSlow, UnknownModel
from offramp.serving.guard import Asgi, Guard, Receive, Scope, Send, as_service_error, replay
from offramp.serving.routes import router
from offramp.serving.service import Service

OPENAI_PATHS = ("/classify", "/models", "/v1/models")  # errors as OpenAI has them
TYPES = {400: "BadRequestError", 404: "NotFoundError", 422: "BadRequestError", 429: "RateLimitError"}
JSON = (b"content-type", b"application/json")
LOG = logging.getLogger("offramp.service")


def make_app(service: Service, keys: Mapping[str, str] | None = None) -> Asgi:
    """The ASGI application of a service, which it starts and closes.

    Args:
        service: the models.
        keys: API key by the name of its client; without keys every client is let in.
    """
    return Guard(ShortWay(make_endpoints(service)), service, keys or {}, error_response)


def make_endpoints(service: Service) -> FastAPI:
    """The endpoints alone, without keys and limits on the body."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        service.close()

    app = FastAPI(
        title="offramp",
        version=__version__,
        lifespan=lifespan,
        redirect_slashes=False,
        exception_handlers={
            OfframpError: on_error,
            RequestValidationError: on_invalid_body,
            HTTPException: on_http_error,
            Exception: on_failure,
        },
    )
    app.state.service = service
    app.include_router(router)
    return app


class ShortWay:
    """An ASGI layer that calls the endpoints for texts without FastAPI, which takes longer than the rest of a request.

    FastAPI still describes them, and gets every other request: other paths and methods, and bodies that it refuses.

    Args:
        app: the endpoints.
    """

    def __init__(self, app: FastAPI) -> None:
        self.app = app
        self.routes: dict[str, tuple[APIRoute, TypeAdapter[Any]]] = {
            route.path: (route, TypeAdapter(get_type_hints(route.endpoint)["body"]))
            for route in router.routes
            if isinstance(route, APIRoute) and route.methods == {"POST"}
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        direct = self.routes.get(scope.get("path", "")) if scope.get("method") == "POST" else None
        if direct is None or JSON not in scope["headers"]:
            await self.app(scope, receive, send)
            return
        (route, adapter), request = direct, Request({**scope, "app": self.app}, receive)
        content = await request.body()
        try:
            body = adapter.validate_python(json.loads(content))
        except (ValueError, RecursionError):
            await self.app(scope, replay(content, receive), send)
            return
        scope["route"] = route
        response = await answer(route, body, request)
        await response(scope, receive, send)


async def answer(route: APIRoute, body: Any, request: Request) -> Response:
    """The response of an endpoint, or that to its error."""
    try:
        content = await route.endpoint(body, request)
    except OfframpError as error:
        return await on_error(request, error)
    except Exception as error:
        return await on_failure(request, error)
    return Response(
        to_json(content, exclude_none=route.response_model_exclude_none, inf_nan_mode="null"),
        media_type="application/json",
    )


def error_response(path: str, error: ServiceError, detail: Sequence[Any] | None = None) -> JSONResponse:
    """The answer for an error: OpenAI's shape for infinity's and vLLM's paths, else text-embeddings-inference's.

    Args:
        path: of the request.
        error: its reason.
        detail: what infinity's client reads where values are wrong.
    """
    content: dict[str, Any] = {"error": str(error), "error_type": error.kind}
    if path in OPENAI_PATHS:
        kind = TYPES.get(error.status, "InternalServerError")
        content = {"error": {"message": str(error), "type": kind, "param": None, "code": error.status}}
        if error.status == 422:
            content["detail"] = detail or [{"loc": ["body"], "msg": str(error), "type": "value_error"}]
    headers = {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(max(1, round(error.retry_after)))
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, TooSlow | TooLarge):  # the rest of the body is not read
        headers["Connection"] = "close"
    return JSONResponse(content, error.status, headers)


async def on_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, OfframpError)
    return error_response(request.url.path, as_service_error(error))


async def on_invalid_body(request: Request, error: Exception) -> JSONResponse:
    """422 for wrong types, 400 for what is not JSON. Nothing of the body is repeated: it may hold a secret."""
    assert isinstance(error, RequestValidationError)
    problems = [
        {"loc": list(problem["loc"]), "msg": problem["msg"], "type": problem["type"]}
        for problem in error.errors()
    ]
    where = "; ".join(f"{'.'.join(map(str, p['loc'][1:])) or 'body'}: {p['msg']}" for p in problems[:3])
    refusal: ServiceError = InvalidRequest(where)
    if any(problem["type"] == "json_invalid" for problem in problems):
        refusal = InvalidRequest("the body is not JSON: send an object as application/json")
        refusal.status = 400
    return error_response(request.url.path, refusal, problems)


async def on_http_error(request: Request, error: Exception) -> JSONResponse:
    """Unknown paths and methods, and bodies that cannot be parsed."""
    assert isinstance(error, HTTPException)
    refusal: ServiceError = UnknownModel(f"{error.detail}: see /docs for the endpoints")
    refusal.status = error.status_code
    response = error_response(request.url.path, refusal)
    response.headers.update(error.headers or {})
    return response


async def on_failure(request: Request, error: Exception) -> JSONResponse:
    """500 without details; the log has them."""
    LOG.error("failure", exc_info=error)
    failure = ServiceError("the service failed: its log says why")
    failure.status, failure.kind = 500, "Backend"
    return error_response(request.url.path, failure)
