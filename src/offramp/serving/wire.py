"""The bodies of requests and answers, in the shapes of four services' clients."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr

from offramp.serving.errors import InvalidRequest
from offramp.serving.service import Demand, Reply

Text = StrictStr
Pair = tuple[StrictStr, StrictStr]


class Score(BaseModel):
    """One class of one text."""

    score: float
    label: str


class PredictBody(BaseModel):
    """text-embeddings-inference's `/predict`.

    `inputs` is a text; a pair of texts, `["a", "b"]`; or a batch, `[["a"], ["b"], ["c", "d"]]`. A flat list is a batch
    too, unless it has one text, or two and the model reads pairs.
    """

    inputs: Text | list[Text] | list[list[Text]]
    raw_scores: StrictBool = False
    truncate: StrictBool | None = None
    truncation_direction: str = "Right"


class PipelineParameters(BaseModel):
    """Options of the text-classification task of Hugging Face's clients."""

    top_k: Annotated[StrictInt, Field(ge=1)] | None = None
    function_to_apply: str | None = None


class PipelineBody(BaseModel):
    """The text-classification task of Hugging Face's clients."""

    inputs: Text | list[Text]
    parameters: PipelineParameters = PipelineParameters()


class ClassifyBody(BaseModel):
    """`/classify` of infinity and of vLLM.

    A body with `raw_scores` or `modality`, which infinity's client always sends and vLLM does not have, gets
    infinity's answer. Any other body gets vLLM's.
    """

    model_config = ConfigDict(extra="allow")

    input: Text | list[Text]
    model: StrictStr | None = None
    raw_scores: StrictBool | None = None
    modality: str | None = None
    use_activation: StrictBool | None = None

    @property
    def infinity(self) -> bool:
        """Whether infinity's answer is expected."""
        return self.raw_scores is not None or self.modality is not None


class OwnBody(BaseModel):
    """Our own endpoint: `texts`, or `pairs` of texts."""

    model_config = ConfigDict(extra="forbid")

    texts: list[Text] | None = None
    pairs: list[Pair] | None = None
    model: StrictStr | None = None
    max_layer: Annotated[StrictInt, Field(ge=0)] | None = None
    max_cost: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    deadline_ms: Annotated[float, Field(gt=0, le=3_600_000, allow_inf_nan=False)] | None = None
    probabilities: StrictBool = False

    def demand(self) -> Demand:
        """What the request asks for; `InvalidRequest` unless it has texts or pairs."""
        if (self.texts is None) == (self.pairs is None):
            raise InvalidRequest("expected either texts or pairs: give one of them")
        first = self.texts if self.pairs is None else [pair[0] for pair in self.pairs]
        return Demand(
            texts=first or (),
            pairs=None if self.pairs is None else [pair[1] for pair in self.pairs],
            model=self.model,
            max_layer=self.max_layer,
            max_cost=self.max_cost,
            deadline_ms=self.deadline_ms,
        )


class OwnAnswer(BaseModel):
    """The answer to one text; `exit_layer` and `cost` are missing if the service hides its exits."""

    label: str | float
    probability: float | None
    exit_layer: int | None = None
    cost: float | None = None
    budgeted: bool | None = None
    probabilities: dict[str, float] | None = None


class OwnReply(BaseModel):
    """The answers of our own endpoint, in the order of the texts."""

    model: str
    answers: list[OwnAnswer]


class ErrorBody(BaseModel):
    """text-embeddings-inference's errors, which our own endpoint has too."""

    error: str
    error_type: str


def read_inputs(inputs: Any, pair: bool | None) -> tuple[list[str], list[str] | None, bool]:
    """First texts, second texts or None, and whether the answer is that of a single input.

    Args:
        inputs: of a `PredictBody`.
        pair: whether the model was trained on pairs; None if unknown.

    Raises:
        InvalidRequest: a batch that mixes texts and pairs, or entries of more than two texts.
    """
    if isinstance(inputs, str):
        return [inputs], None, True
    if all(isinstance(entry, str) for entry in inputs):
        if len(inputs) == 2 and pair is not False:
            return [inputs[0]], [inputs[1]], True
        return list(inputs), None, len(inputs) == 1
    sizes = {len(entry) for entry in inputs}
    if not sizes <= {1, 2} or len(sizes) != 1:
        raise InvalidRequest(
            "`inputs` must be a single string or a pair of strings, or a batch of one of these"
        )
    second = [entry[1] for entry in inputs] if sizes == {2} else None
    return [entry[0] for entry in inputs], second, False


def class_scores(reply: Reply, form: str = "softmax") -> NDArray[np.float64]:
    """Scores of all classes `(texts, classes)`: `softmax`, `sigmoid`, or the logits themselves for `none`."""
    logits = np.asarray(reply.decisions.logits, dtype=np.float64)
    if form == "none" or not reply.engine.labels:
        return logits
    if form == "sigmoid":
        from scipy.special import expit

        scores: NDArray[np.float64] = expit(logits)
        return scores
    return reply.probabilities()


def class_names(reply: Reply) -> tuple[str, ...]:
    """Names of the classes; regression has one without a name."""
    return reply.engine.labels or ("LABEL_0",)


def ranked(reply: Reply, scores: NDArray[np.float64], top_k: int | None = None) -> list[list[dict[str, Any]]]:
    """Labels with scores of each text, the highest first."""
    names = class_names(reply)
    return [
        [
            {"score": row[k], "label": names[k]}
            for k in sorted(range(len(row)), key=row.__getitem__, reverse=True)[:top_k]
        ]
        for row in scores.tolist()
    ]


def vllm_reply(reply: Reply, scores: NDArray[np.float64]) -> dict[str, Any]:
    """The answer of vLLM's `/classify`."""
    names = class_names(reply)
    return {
        "id": f"classify-{uuid.uuid4().hex}",
        "object": "list",
        "created": int(time.time()),
        "model": reply.model,
        "data": [
            {"index": index, "label": names[int(np.argmax(row))], "probs": row, "num_classes": len(row)}
            for index, row in enumerate(scores.tolist())
        ],
        "usage": {**_usage(reply), "completion_tokens": 0, "prompt_tokens_details": None},
    }


def infinity_reply(reply: Reply, scores: NDArray[np.float64]) -> dict[str, Any]:
    """The answer of infinity's `/classify`."""
    return {
        "object": "classify",
        "data": ranked(reply, scores),
        "model": reply.model,
        "usage": _usage(reply),
        "id": f"infinity-{uuid.uuid4()}",
        "created": int(time.time()),
    }


def _usage(reply: Reply) -> dict[str, int]:
    return {"prompt_tokens": reply.tokens, "total_tokens": reply.tokens}


def own_reply(reply: Reply, *, show_exits: bool, probabilities: bool) -> OwnReply:
    """The answer of our own endpoint."""
    shares: Sequence[Any] = [None] * len(reply.predictions)
    if probabilities and reply.engine.labels:
        names = reply.engine.labels
        shares = [dict(zip(names, row, strict=True)) for row in reply.probabilities().tolist()]
    answers = []
    for prediction, budgeted, share in zip(reply.predictions, reply.budgeted.tolist(), shares, strict=True):
        exits: dict[str, Any] = {}
        if show_exits:
            exits = {"exit_layer": prediction.exit_layer, "cost": prediction.cost, "budgeted": budgeted}
        answers.append(
            OwnAnswer(
                label=prediction.label, probability=prediction.probability, probabilities=share, **exits
            )
        )
    return OwnReply(model=reply.model, answers=answers)
