"""The endpoints: text-embeddings-inference's, infinity's, vLLM's, Hugging Face's task, and our own."""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse

from offramp import __version__
from offramp.engine.onnx import OnnxSegments
from offramp.inference.engine import Engine
from offramp.serving.errors import InvalidRequest
from offramp.serving.service import Demand, Reply, Service
from offramp.serving.wire import (
    ClassifyBody,
    ErrorBody,
    OpenAIErrorBody,
    OwnBody,
    OwnReply,
    PipelineBody,
    PredictBody,
    Score,
    class_scores,
    infinity_reply,
    own_reply,
    ranked,
    read_inputs,
    vllm_reply,
)

REASONS = {
    400: "The body is not JSON.",
    401: "The key is missing or wrong.",
    404: "No such model.",
    408: "The body did not arrive in time, or the deadline passed.",
    413: "Too many bytes, texts or characters.",
    422: "The values cannot be used.",
    429: "The queue is full, or the budget is used up; see Retry-After.",
    503: "The service is stopping.",
}
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody, "description": reason} for status, reason in REASONS.items()
}
OPENAI_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": OpenAIErrorBody, "description": reason} for status, reason in REASONS.items()
}
router = APIRouter()


def service_of(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


async def ask(request: Request, demand: Demand) -> Reply:
    """Answer a request, and note its model and rows for the log."""
    request.state.facts |= {"rows": len(demand.texts)}
    reply = await service_of(request).answer(demand, request.state.client)
    request.state.facts |= {"model": reply.model, "tokens": reply.tokens}
    return reply


@router.post("/predict", response_model=list[Score] | list[list[Score]], responses=ERRORS)
async def predict(body: PredictBody, request: Request) -> Any:
    """Classify one input or a batch, as text-embeddings-inference does. The first model answers."""
    if body.truncation_direction.lower() != "right":
        raise InvalidRequest("truncation_direction must be 'Right': texts are cut at their end")
    service = service_of(request)
    engine = service.engines[service.model_name(None)]
    texts, pairs, single = read_inputs(body.inputs, engine.pair)
    reply = await ask(request, Demand(texts, pairs, truncate=body.truncate is not False))
    scores = ranked(reply, class_scores(reply, "none" if body.raw_scores else "softmax"))
    return scores[0] if single else scores


@router.post("/", response_model=list[list[Score]], responses=ERRORS)
async def pipeline(body: PipelineBody, request: Request) -> Any:
    """The text-classification task, as `huggingface_hub.InferenceClient` asks for it. The first model answers."""
    form = body.parameters.function_to_apply or "softmax"
    if form not in ("softmax", "sigmoid", "none"):
        raise InvalidRequest("function_to_apply must be softmax, sigmoid or none")
    texts = [body.inputs] if isinstance(body.inputs, str) else body.inputs
    reply = await ask(request, Demand(texts))
    return ranked(reply, class_scores(reply, form), body.parameters.top_k)


@router.post("/classify", responses=OPENAI_ERRORS)
async def classify(body: ClassifyBody, request: Request) -> dict[str, Any]:
    """Classify texts, as infinity does for a body with `raw_scores`, else as vLLM does."""
    texts = [body.input] if isinstance(body.input, str) else body.input
    reply = await ask(request, Demand(texts, model=body.model))
    raw = body.raw_scores or body.use_activation is False
    scores = class_scores(reply, "none" if raw else "softmax")
    return infinity_reply(reply, scores) if body.infinity else vllm_reply(reply, scores)


@router.post("/v1/classify", response_model=OwnReply, response_model_exclude_none=True, responses=ERRORS)
async def own(body: OwnBody, request: Request) -> OwnReply:
    """Classify texts or pairs; each answer says where the text left, and what it cost."""
    reply = await ask(request, body.demand())
    return own_reply(reply, show_exits=service_of(request).show_exits, probabilities=body.probabilities)


@router.get("/health")
async def health() -> dict[str, float]:
    """200 while the service takes requests, with the time that infinity's client reads."""
    return {"unix": time.time()}


@router.get("/info")
async def info(request: Request) -> dict[str, Any]:
    """The first model, as text-embeddings-inference describes it."""
    service = service_of(request)
    name, engine = next(iter(service.engines.items()))
    labels = engine.labels or ("LABEL_0",)
    return {
        "model_id": name,
        "model_sha": None,
        "model_dtype": precision(engine),
        "model_type": {
            "classifier": {
                "id2label": {str(k): label for k, label in enumerate(labels)},
                "label2id": {label: k for k, label in enumerate(labels)},
            }
        },
        "max_concurrent_requests": service.limits.queue_rows,
        "max_input_length": engine.encoder.max_length,
        "max_batch_tokens": engine.encoder.max_length * service.batchers[name].batch_rows,
        "max_batch_requests": service.batchers[name].batch_rows,
        "max_client_batch_size": service.limits.request_rows,
        "auto_truncate": True,
        "tokenization_workers": 1,
        "version": __version__,
        "sha": None,
        "docker_label": None,
    }


def precision(engine: Engine) -> str:
    """The type of a model's numbers, as text-embeddings-inference names it."""
    segments = engine.segments
    return (
        "int8" if isinstance(segments, OnnxSegments) and segments.manifest.precision == "int8" else "float32"
    )


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    """The metrics in Prometheus' text format."""
    return Response(
        service_of(request).hooks.exposition(), media_type="text/plain; version=0.0.4; charset=utf-8"
    )


@router.get("/models")
@router.get("/v1/models")
async def models(request: Request) -> dict[str, Any]:
    """All models, as infinity lists them; vLLM's and OpenAI's clients read the list too."""
    service = service_of(request)
    data = []
    for name, batcher in service.batchers.items():
        waiting = batcher.queue.rows
        stats = {
            "queue_fraction": waiting / service.limits.queue_rows,
            "queue_absolute": waiting,
            "results_pending": waiting,
            "batch_size": batcher.batch_rows,
        }
        data.append(
            {
                "id": name,
                "stats": stats,
                "object": "model",
                "owned_by": "infinity",
                "created": int(time.time()),
                "backend": "offramp",
                "capabilities": ["classify"],
            }
        )
    return {"data": data, "object": "list"}
