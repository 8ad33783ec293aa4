"""The application: all endpoints on a service, with errors in the shape of each endpoint."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from offramp import __version__
from offramp._core.errors import OfframpError
from offramp.serving.errors import InvalidRequest, ServiceError, UnknownModel
from offramp.serving.guard import Asgi, Guard, as_service_error
from offramp.serving.routes import router
from offramp.serving.service import Service

OPENAI_PATHS = ("/classify", "/models", "/v1/models")  # errors as OpenAI has them
TYPES = {400: "BadRequestError", 404: "NotFoundError", 422: "BadRequestError", 429: "RateLimitError"}
LOG = logging.getLogger("offramp.service")


def make_app(service: Service, keys: Mapping[str, str] | None = None) -> Asgi:
    """The ASGI application of a service, which it starts and closes.

    Args:
        service: the models.
        keys: API key by the name of its client; without keys every client is let in.
    """
    return Guard(make_endpoints(service), service, keys or {}, error_response)


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
    if error.status in (408, 413):  # the rest of the body is not read
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
