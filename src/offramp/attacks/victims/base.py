"""The interface of a victim, which remembers answers, enforces budgets, and counts queries."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from offramp._core.errors import ConfigError, DataError
from offramp._core.trace import Kind
from offramp.attacks.text.attacked_text import AttackedText

if TYPE_CHECKING:
    from torch import Tensor

    from offramp.attacks.victims.ranking import Ranking
    from offramp.engine.policy import Policy
    from offramp.model.base import SegmentedModel

REMEMBERED = 1024  # answers kept per example
Key = tuple[str, ...]  # the segments of a text, which are all that the model sees


@dataclass(frozen=True)
class Answer:
    """The model's answer to one text.

    A victim that reports only seconds has no logits, exit -1 and layer 0.

    Attributes:
        logits: `(exits, classes)` float32, divided by the policy's temperatures; `(exits, 0)` if the victim does not
            show them.
        exit: exit index at which the text leaves, 0-based.
        layer: the backbone layer of that exit, counted from 1; 0 for an exit before the first layer.
        prediction: class index, or value for regression.
        spent: FLOPs spent; for a function, its layers or seconds.
        full_spent: cost of the full model, in the same unit.
        gates: `(exits,)` learned gates in [0, 1]; None if there are none, or the victim does not show them.
    """

    logits: NDArray[np.float32]
    exit: int
    layer: int
    prediction: int | float
    spent: float
    full_spent: float
    gates: NDArray[np.float32] | None = None

    @property
    def last(self) -> bool:
        """Whether the text leaves at the last exit; never if the victim reports no exits."""
        return self.exit >= 0 and self.exit == len(self.logits) - 1


@dataclass(frozen=True)
class TokenizedText:
    """A text as the model reads it, with gradients if they were taken.

    Attributes:
        ids: `(tokens,)` token ids, special tokens included, without padding.
        tokens: for each word the positions of its tokens; empty if truncation cut it off.
        gradients: for each embedding table the gradient of the loss at every token embedding `(tokens, dim)`; empty
            if none was taken.
    """

    text: AttackedText
    ids: list[int]
    tokens: list[tuple[int, ...]]
    gradients: tuple[Tensor, ...] = ()


@dataclass
class QueryBudget:
    """The cost of one attacked example so far, its limits (None for no limit), and its answers."""

    max_forward: int | None = None
    max_gradient: int | None = None
    forward: int = 0  # texts run
    gradient: int = 0  # gradients taken; the forward pass inside a gradient does not count as a forward query
    zero_gradients: int = 0  # gradients that were zero everywhere
    broken_gradients: int = 0  # gradients with NaN or infinities
    seconds: float = 0.0  # time of the model calls; the texts of a call share its time evenly
    answers: OrderedDict[Key, Answer] = field(default_factory=OrderedDict, repr=False)  # the last ones

    def within_budget(self, texts: Sequence[AttackedText]) -> list[Key]:
        """Keys of the first texts that the budget allows; an answered text is free."""
        keys: list[Key] = []
        new: set[Key] = set()
        for text in texts:
            key = text.segments
            if key not in self.answers and key not in new:
                if self.max_forward is not None and self.forward + len(new) >= self.max_forward:
                    break
                new.add(key)
            keys.append(key)
        return keys

    def gradients_left(self, wanted: int) -> int:
        """The number of the wanted gradients that the budget allows."""
        return wanted if self.max_gradient is None else min(wanted, self.max_gradient - self.gradient)

    def record_gradient(self, tokenized: TokenizedText) -> None:
        """Count a zero or broken gradient."""
        size = sum(float(g.abs().sum()) for g in tokenized.gradients)
        self.zero_gradients += size == 0
        self.broken_gradients += not np.isfinite(size)

    def record(self, key: Key, answer: Answer | None, seconds: float) -> None:
        """Count a text that was run for this example; a text without a place in its ranking has no answer."""
        if answer is not None:
            self.answers[key] = answer
        self.forward += 1
        self.seconds += seconds

    def forget(self) -> None:
        """Drop the oldest answers if there are too many."""
        while len(self.answers) > REMEMBERED:
            self.answers.popitem(last=False)


Loss = Callable[["Tensor", "Tensor"], "Tensor"]  # logits (batch, exits, classes), exit (batch,) -> (batch,)
BudgetedTexts = tuple[QueryBudget, Sequence[AttackedText]]


class Victim(ABC):
    """A victim from an attacker's view: texts in, answers out.

    Attributes:
        kind: `classification` or `regression`.
        probabilities: whether answers show the exits' logits.
        layers: whether answers show exit layers; otherwise they report only seconds.
        labels: class names in order, empty for regression; None if unknown.
        pair: whether the model was trained on pairs of texts; None if unknown.
        model: the model under attack, for judges and records; None if unknown.
        max_forward, max_gradient: most texts to run, and most gradients to take, for one example; None for no limit.
    """

    kind: Kind
    probabilities: bool
    layers: bool = True
    labels: tuple[str, ...] | None = None
    pair: bool | None = None
    model: SegmentedModel | None = None

    def __init__(self, max_forward: int | None = None, max_gradient: int | None = None) -> None:
        for name, value in {"max_forward": max_forward, "max_gradient": max_gradient}.items():
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1, got {value}: leave it out for no limit")
        self.max_forward, self.max_gradient = max_forward, max_gradient

    @abstractmethod
    def run(self, segments: Sequence[Key]) -> list[Answer]:
        """Answer texts, in order. Nothing is counted or remembered."""

    @abstractmethod
    def inspect(self, texts: Sequence[AttackedText]) -> list[TokenizedText]:
        """Return the texts as the model reads them. The model does not run, so nothing is counted."""

    @property
    @abstractmethod
    def white_box(self) -> OpenVictim:
        """The model that gradients come from; `ConfigError` if the victim has none."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Describe the victim as JSON: `policy`, and a fingerprint of the `weights`; None if unknown."""

    @abstractmethod
    def stopwatch(self, segments: Key) -> float:
        """Measure the seconds that one text takes, run alone."""

    def budget(self, default: int | None = None) -> QueryBudget:
        """Return a fresh budget for one example: at most `default` queries, within the victim's own limits."""
        limits = [limit for limit in (default, self.max_forward) if limit is not None]
        return QueryBudget(min(limits, default=None), self.max_gradient)

    def query_many(self, requests: Sequence[BudgetedTexts]) -> list[list[Answer]]:
        """Answer the texts of several examples in shared batches. A repeated text is not run again.

        Returns:
            For each budget the answers to its first texts, in order, as many as the budget allowed.
        """
        replies = self._answer_all(requests, lambda keys, _: self.run(keys))
        return [[answer for answer in reply if answer is not None] for reply in replies]

    def rank_many(
        self, requests: Sequence[BudgetedTexts], rankings: Sequence[Ranking]
    ) -> list[list[Answer | None]]:
        """Answer those texts of several examples that get a place in a ranking, and maybe others.

        Args:
            requests: budgets and texts. Each text is a query, answered or not.
            rankings: one for each request.

        Returns:
            As `query_many`, with None for texts that have no place.
        """
        return self._answer_all(
            requests, lambda keys, owners: self.run_ranked(keys, [rankings[i] for i in owners])
        )

    def run_ranked(self, segments: Sequence[Key], rankings: Sequence[Ranking]) -> list[Answer | None]:
        """Answer texts that compete in rankings, one for each text; None for texts that have no place.

        Nothing is counted or remembered. This one runs every text; a model whose layers are open can run fewer.
        """
        return list(self.run(segments))

    def _answer_all(
        self,
        requests: Sequence[BudgetedTexts],
        run: Callable[[list[Key], list[int]], Sequence[Answer | None]],
    ) -> list[list[Answer | None]]:
        """Run the new texts of all requests at once, and count them; `run` gets them and their requests."""
        asked = [budget.within_budget(texts) for budget, texts in requests]
        fresh = [
            (i, key)
            for i, ((budget, _), keys) in enumerate(zip(requests, asked, strict=True))
            for key in dict.fromkeys(keys)
            if key not in budget.answers
        ]
        started = time.perf_counter()
        answers = run([key for _, key in fresh], [i for i, _ in fresh])
        share = (time.perf_counter() - started) / max(len(fresh), 1)
        for (i, key), answer in zip(fresh, answers, strict=True):
            requests[i][0].record(key, answer, share)
        replies = [[b.answers.get(key) for key in keys] for (b, _), keys in zip(requests, asked, strict=True)]
        for budget, _ in requests:
            budget.forget()
        return replies

    def gradients_many(self, requests: Sequence[BudgetedTexts], loss: Loss) -> list[list[TokenizedText]]:
        """Take the gradient of a loss at every token embedding, for each text alone and fresh at every call.

        Args:
            requests: budgets and texts.
            loss: of the scaled logits and the current exits; see `Loss`.

        Returns:
            For each budget its first texts with their gradients, as many as the budget allowed.
        """
        allowed = [texts[: budget.gradients_left(len(texts))] for budget, texts in requests]
        started = time.perf_counter()
        differentiated = self.white_box.differentiate([text for texts in allowed for text in texts], loss)
        share = (time.perf_counter() - started) / max(len(differentiated), 1)
        left, replies = iter(differentiated), []
        for (budget, _), texts in zip(requests, allowed, strict=True):
            budget.gradient += len(texts)
            budget.seconds += share * len(texts)
            replies.append([next(left) for _ in texts])
            for tokenized in replies[-1]:
                budget.record_gradient(tokenized)
        return replies

    def measure(self, budget: QueryBudget, texts: Sequence[AttackedText]) -> list[float]:
        """Measure the seconds of each text, run alone and in turn. Each text is a query, even if it repeats.

        Returns:
            The seconds of the first texts, as many as the budget allowed without its last query, which is reserved
            for the answer to the final text.
        """
        left = len(texts) if budget.max_forward is None else budget.max_forward - budget.forward - 1
        seconds = [self.stopwatch(text.segments) for text in texts[: max(left, 0)]]
        budget.forward += len(seconds)
        budget.seconds += sum(seconds)
        return seconds

    def tokens_lost(self, texts: Sequence[AttackedText]) -> list[int | None]:
        """Count the tokens of each text beyond the maximum length; None if unknown."""
        if self.model is None or not texts:
            return [None] * len(texts)
        from offramp.model.encoding import TextEncoder

        encoder = TextEncoder.of(self.model)
        lengths = encoder.full_lengths(*segment_columns([text.segments for text in texts]))
        return [max(length - encoder.max_length, 0) for length in lengths]


class OpenVictim(Victim):
    """A victim whose model and policy the attacker sees."""

    model: SegmentedModel
    policy: Policy

    @abstractmethod
    def differentiate(self, texts: Sequence[AttackedText], loss: Loss) -> list[TokenizedText]:
        """Return the texts with the gradient of the loss; nothing is counted. See `gradients_many`."""


def segment_columns(segments: Sequence[Key]) -> tuple[list[str], list[str] | None]:
    """First segments, and second ones or None."""
    if len({len(s) for s in segments}) > 1:
        raise DataError("texts with and without a text_pair cannot be mixed: give every example one, or none")
    return [s[0] for s in segments], [s[1] for s in segments] if len(segments[0]) > 1 else None
