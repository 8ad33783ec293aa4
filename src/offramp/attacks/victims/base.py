"""The one door to whatever is attacked: it remembers, keeps to budgets, and counts what is asked."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from offramp._core.errors import ConfigError, DataError
from offramp._core.trace import Kind
from offramp.attacks.text.attacked_text import AttackedText
from offramp.attacks.victims.answers import Answer, Key, QueryBudget, TokenizedText

if TYPE_CHECKING:
    from torch import Tensor

    from offramp.attacks.victims.white_box import WhiteBoxVictim
    from offramp.model.base import SegmentedModel

Loss = Callable[["Tensor", "Tensor"], "Tensor"]  # logits (batch, exits, classes), exit (batch,) -> (batch,)
Asked = tuple[QueryBudget, Sequence[AttackedText]]


class Victim(ABC):
    """A victim as an attacker sees it: texts in, answers out.

    Attributes:
        kind: `classification` or `regression`.
        probabilities: whether answers show the exits' logits.
        layers: whether answers tell where a text leaves; else they tell seconds alone.
        model: the model behind the door, for those who judge and describe an attack; None where not known.
        max_forward: most texts that may be run for one example; None for no limit.
        max_gradient: most gradients that may be taken for one example; None for no limit.
    """

    kind: Kind
    probabilities: bool
    layers: bool = True
    model: SegmentedModel | None = None

    def __init__(self, max_forward: int | None = None, max_gradient: int | None = None) -> None:
        for name, value in {"max_forward": max_forward, "max_gradient": max_gradient}.items():
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1, got {value}: leave it out for no limit")
        self.max_forward, self.max_gradient = max_forward, max_gradient
        self.own = self.budget()  # of `query` and `gradients`

    @abstractmethod
    def _run(self, segments: Sequence[Key]) -> list[Answer]:
        """Answers to texts, in order."""

    @abstractmethod
    def inspect(self, texts: Sequence[AttackedText]) -> list[TokenizedText]:
        """The texts as the model reads them; the model is not asked, so nothing is counted."""

    @property
    @abstractmethod
    def white_box(self) -> WhiteBoxVictim:
        """The model that gradients come from; `ConfigError` where there is none."""

    def budget(self, default: int | None = None) -> QueryBudget:
        """A fresh account, for one example: at most `default` queries, and no more than the victim allows."""
        limits = [limit for limit in (default, self.max_forward) if limit is not None]
        return QueryBudget(min(limits, default=None), self.max_gradient)

    def query(self, texts: Sequence[AttackedText]) -> list[Answer]:
        """Answers to the texts of one example, on the victim's own account; see `query_many`."""
        return self.query_many([(self.own, texts)])[0]

    def query_many(self, requests: Sequence[Asked]) -> list[list[Answer]]:
        """Answer the texts of several examples in shared batches; what one has asked before is not run again.

        Returns:
            For each account the answers in the order of its texts: only those of the first texts, as many
            as its budget allowed.
        """
        asked = [account.within_budget(texts) for account, texts in requests]
        fresh = [
            (account, key)
            for (account, _), keys in zip(requests, asked, strict=True)
            for key in dict.fromkeys(keys)
            if key not in account.answers
        ]
        started = time.perf_counter()
        answers = self._run([key for _, key in fresh])
        share = (time.perf_counter() - started) / max(len(fresh), 1)
        for (account, key), answer in zip(fresh, answers, strict=True):
            account.record(key, answer, share)
        found = [[a.answers[key] for key in keys] for (a, _), keys in zip(requests, asked, strict=True)]
        for account, _ in requests:
            account.forget()
        return found

    def gradients(self, texts: Sequence[AttackedText], loss: Loss) -> list[TokenizedText]:
        """Gradients for texts of one example, on the victim's own account; see `gradients_many`."""
        return self.gradients_many([(self.own, texts)], loss)[0]

    def gradients_many(self, requests: Sequence[Asked], loss: Loss) -> list[list[TokenizedText]]:
        """The gradient of a loss at every token embedding, one text at a time and fresh at every call.

        Args:
            requests: accounts and texts.
            loss: of the scaled logits `(batch, exits, classes)` and current exits `(batch,)` to `(batch,)`.

        Returns:
            For each account a look at each of its first texts, as many as its budget allowed.
        """
        allowed = [texts[: account.gradients_left(len(texts))] for account, texts in requests]
        started = time.perf_counter()
        looks = self.white_box.differentiate([text for texts in allowed for text in texts], loss)
        share = (time.perf_counter() - started) / max(len(looks), 1)
        left, found = iter(looks), []
        for (account, _), texts in zip(requests, allowed, strict=True):
            account.gradient += len(texts)
            account.seconds += share * len(texts)
            found.append([next(left) for _ in texts])
            for look in found[-1]:
                account.record_gradient(look)
        return found

    def tokens_lost(self, texts: Sequence[AttackedText]) -> list[int | None]:
        """For each text how many tokens its maximum length cuts away; None where that is not known."""
        if self.model is None or not texts:
            return [None] * len(texts)
        from offramp.model.encoding import TextEncoder

        encoder = TextEncoder.of(self.model)
        lengths = encoder.full_lengths(*columns([text.segments for text in texts]))
        return [max(length - encoder.max_length, 0) for length in lengths]

    def measure(self, account: QueryBudget, texts: Sequence[AttackedText]) -> list[float]:
        """Seconds that each text takes, run alone and in turn; each is a query, also where it repeats.

        Returns:
            One a text: those of the first texts, as many as the budget allowed. One query is kept back, for the
            answer to the text that is found.
        """
        left = len(texts) if account.max_forward is None else account.max_forward - account.forward - 1
        seconds = [self.stopwatch(text.segments) for text in texts[: max(left, 0)]]
        account.forward += len(seconds)
        account.seconds += sum(seconds)
        return seconds

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What is attacked, as JSON: `policy`, and fingerprint of the `weights`; None where not known."""

    @abstractmethod
    def stopwatch(self, segments: Key) -> float:
        """Seconds that one text takes, run alone."""


def columns(segments: Sequence[Key]) -> tuple[list[str], list[str] | None]:
    """First segments, and second ones or None."""
    if len({len(s) for s in segments}) > 1:
        raise DataError("texts with and without a text_pair cannot be mixed: give every example one, or none")
    return [s[0] for s in segments], [s[1] for s in segments] if len(segments[0]) > 1 else None
