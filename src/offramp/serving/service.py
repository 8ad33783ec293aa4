"""The service behind every endpoint: it checks a request, queues it, and waits for its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import monotonic

import numpy as np
from numpy.typing import NDArray

from offramp._core.arguments import whole
from offramp._core.errors import ConfigError, DataError, unknown_name
from offramp._core.text import check_pairs
from offramp.engine.batching import Encoding, token_counts
from offramp.engine.policy import Decisions
from offramp.inference.engine import Engine, Prediction
from offramp.serving.batcher import Batcher
from offramp.serving.errors import InvalidRequest, Overloaded, TooLarge, UnknownModel
from offramp.serving.fair_queue import Ticket
from offramp.serving.hooks import Hooks, NoHooks, Refusal, Submission

UNSPECIFIED = (None, "", "default/not-specified")  # the last one is infinity's
QUICK = 4000  # characters that are tokenised faster than a thread takes them over


@dataclass(frozen=True)
class Limits:
    """What the service takes.

    Args:
        queue_rows: texts that wait for a model; more are refused with 429.
        request_rows: texts of a request; more are refused with 413.
        body_bytes: size of a request; more is refused with 413.
        text_characters: of a text; more are refused with 413. Longer texts than the model reads are cut.
        deadline_ms: time until an answer, if the request does not say otherwise.
        body_seconds: time for a request to arrive in.
    """

    queue_rows: int = 1024
    request_rows: int = 64
    body_bytes: int = 4_000_000
    text_characters: int = 100_000
    deadline_ms: int = 30_000
    body_seconds: int = 10

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            whole(name, value, 1)


@dataclass(frozen=True)
class Demand:
    """What a request asks for.

    Attributes:
        texts: at least one.
        pairs: second texts, as many.
        model: name; None for the first model.
        max_layer: the layer after which all texts leave at the latest.
        max_cost: the most FLOPs as a share of the full model's. Every text runs to its first exit.
        deadline_ms: time until the answer.
        truncate: whether texts that are longer than the model reads are cut; if not, they are refused.
    """

    texts: Sequence[str]
    pairs: Sequence[str] | None = None
    model: str | None = None
    max_layer: int | None = None
    max_cost: float | None = None
    deadline_ms: float | None = None
    truncate: bool = True


@dataclass(frozen=True)
class Reply:
    """The answer to a request; sequences and arrays have one entry for each text.

    Attributes:
        model: name of the model.
        engine: it answered.
        predictions: label, probability, exit layer and cost.
        decisions: the same in arrays.
        budgeted: whether a text left early because of the work budget.
        tokens: number of tokens of all texts.
    """

    model: str
    engine: Engine
    predictions: Sequence[Prediction]
    decisions: Decisions
    budgeted: NDArray[np.bool_]
    tokens: int

    def probabilities(self) -> NDArray[np.float64]:
        """Calibrated probability of each class `(texts, classes)`; the value itself for regression."""
        if not self.engine.labels:
            return np.asarray(self.decisions.logits, dtype=np.float64)
        return self.engine.compacting.policy.probabilities(self.decisions.exit, self.decisions.logits)


class Service:
    """Several models by name, each with a queue.

    Args:
        engines: by name, at least one.
        limits: what it takes.
        hooks: called around each request.
        show_exits: whether answers may tell where a text left, and requests may limit the depth.
    """

    def __init__(
        self,
        engines: Mapping[str, Engine],
        limits: Limits = Limits(),
        hooks: Hooks | None = None,
        *,
        show_exits: bool = True,
    ) -> None:
        if not engines:
            raise ConfigError("expected at least one model to serve")
        self.engines, self.limits, self.show_exits = dict(engines), limits, show_exits
        self.hooks: Hooks = NoHooks() if hooks is None else hooks
        self.batchers = {
            name: Batcher(name, engine, self.hooks, limits.queue_rows) for name, engine in engines.items()
        }

    def start(self) -> None:
        """Warm the engines up and take requests."""
        for batcher in self.batchers.values():
            batcher.start()

    def close(self) -> None:
        """Answer what was accepted, then stop."""
        for batcher in self.batchers.values():
            batcher.close()

    def model_name(self, name: str | None) -> str:
        """The name of a model, of the first one by default; `UnknownModel` for any other."""
        if name in UNSPECIFIED:
            return next(iter(self.engines))
        if name not in self.engines:
            raise UnknownModel(unknown_name("model", name, self.engines))
        assert name is not None
        return name

    async def answer(self, demand: Demand, client: str) -> Reply:
        """Answer a request.

        Args:
            demand: what it asks for.
            client: name of the API key, else the address of the client.

        Raises:
            ServiceError: it cannot be answered; the class says why.
        """
        arrived = monotonic()
        name = self.model_name(demand.model)
        engine, batcher = self.engines[name], self.batchers[name]
        self._check(demand, engine)
        batcher.check_room(client, len(demand.texts))
        encodings = await self._encode(engine, demand)
        tokenisation = monotonic() - arrived
        lengths = token_counts(encodings)
        if not demand.truncate and lengths.max() >= engine.encoder.max_length:
            raise TooLarge(
                f"`inputs` must have less than {engine.encoder.max_length} tokens. Given: {lengths.max()}"
            )
        flops, full = engine.segments.flops(lengths)
        wanted = own_exits(engine, demand, flops, full)
        submission, budget = self._admit(name, client, encodings, flops, full, wanted)
        submission.seconds["tokenisation"] = tokenisation
        exits = wanted if budget is None else budget if wanted is None else np.minimum(wanted, budget)
        ticket = Ticket(submission, exits, arrived + (demand.deadline_ms or self.limits.deadline_ms) / 1000)
        try:
            batcher.submit(ticket)
            decisions = await asyncio.wrap_future(ticket.answer)
        except BaseException:  # a request that was cancelled too
            self.hooks.dropped(submission)
            raise
        self.hooks.answered(client, name, decisions, monotonic() - arrived, submission)
        budgeted = cut_short(engine, decisions, budget, wanted)
        return Reply(
            name, engine, engine.predictions(decisions, full), decisions, budgeted, int(lengths.sum())
        )

    def _check(self, demand: Demand, engine: Engine) -> None:
        """Raise `ServiceError` for what no queue could answer."""
        limits, rows = self.limits, len(demand.texts)
        if not rows:
            raise InvalidRequest("expected at least one text, got none")
        if rows > limits.request_rows:
            raise TooLarge(f"batch size {rows} > maximum allowed batch size {limits.request_rows}")
        longest = max(map(len, [*demand.texts, *(demand.pairs or ())]))
        if longest > limits.text_characters:
            raise TooLarge(f"expected texts of at most {limits.text_characters} characters, got {longest}")
        if not self.show_exits and (demand.max_layer, demand.max_cost) != (None, None):
            raise InvalidRequest("this service does not show its exits: leave max_layer and max_cost out")
        try:
            check_pairs(demand.pairs is not None, engine.pair, "the request")
        except DataError as error:
            raise InvalidRequest(str(error)) from error

    async def _encode(self, engine: Engine, demand: Demand) -> list[dict[str, list[int]]]:
        texts, pairs = list(demand.texts), None if demand.pairs is None else list(demand.pairs)
        if sum(map(len, texts)) + sum(map(len, pairs or ())) < QUICK:
            return engine.encode(texts, pairs)
        return await asyncio.to_thread(engine.encode, texts, pairs)

    def _admit(
        self,
        name: str,
        client: str,
        encodings: Sequence[Encoding],
        flops: NDArray[np.float64],
        full: NDArray[np.float64],
        wanted: NDArray[np.intp] | None,
    ) -> tuple[Submission, NDArray[np.intp] | None]:
        """The admitted request, and the exit at which each row must leave because of the budget, if any must."""
        worst = full if wanted is None else flops[np.arange(len(flops)), wanted]
        admitted = self.hooks.admit(client, worst)
        if isinstance(admitted, Refusal):
            raise Overloaded(admitted.reason, admitted.retry_after)
        budget = None if np.isinf(admitted).all() else deepest_within(flops, admitted)
        caps = admitted if wanted is None else np.minimum(admitted, worst)
        return Submission(client, name, encodings, worst, caps), budget


def cut_short(
    engine: Engine,
    decisions: Decisions,
    budget: NDArray[np.intp] | None,
    wanted: NDArray[np.intp] | None,
) -> NDArray[np.bool_]:
    """Rows that the budget made leave, and neither the policy nor the request `(rows,)`."""
    if budget is None:
        return np.zeros(len(decisions), dtype=np.bool_)
    last = len(engine.segments.exit_layers) - 1
    tighter: NDArray[np.bool_] = budget < (last if wanted is None else wanted)
    stayed = ~engine.compacting.policy.criterion.leaves(decisions.score, decisions.exit)
    return tighter & (decisions.exit == budget) & stayed


def own_exits(
    engine: Engine, demand: Demand, flops: NDArray[np.float64], full: NDArray[np.float64]
) -> NDArray[np.intp] | None:
    """The exit at which each row leaves at the latest because the request says so `(rows,)`, or None.

    Raises:
        InvalidRequest: `max_layer` is above the first exit.
    """
    exits = np.full(len(flops), flops.shape[1] - 1)
    if demand.max_layer is not None:
        layers = engine.segments.exit_layers
        if demand.max_layer < layers[0]:
            raise InvalidRequest(
                f"max_layer is {demand.max_layer}, but the first exit is after layer {layers[0]}: give at least that"
            )
        exits = np.minimum(exits, np.searchsorted(layers, demand.max_layer, side="right") - 1)
    if demand.max_cost is not None:
        exits = np.minimum(exits, deepest_within(flops, demand.max_cost * full))
    return None if (demand.max_layer, demand.max_cost) == (None, None) else exits


def deepest_within(flops: NDArray[np.float64], caps: NDArray[np.float64]) -> NDArray[np.intp]:
    """The deepest exit of each row whose FLOPs `(rows, exits)` are within the cap `(rows,)`; at least the first."""
    deepest: NDArray[np.intp] = np.maximum((flops <= caps[:, None] * (1 + 1e-12)).sum(axis=1) - 1, 0)
    return deepest
