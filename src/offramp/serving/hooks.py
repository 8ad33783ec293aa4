"""Calls that the service makes around each request: for a work budget, for metrics, for alarms, for an audit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from offramp.engine.batching import Encoding
from offramp.engine.policy import Decisions


@dataclass(frozen=True)
class Refusal:
    """A request that is not admitted; the client gets 429.

    Attributes:
        reason: one sentence for the client.
        retry_after: seconds after which the request may be admitted.
    """

    reason: str
    retry_after: float


@dataclass
class Submission:
    """The rows of one request on their way through the service.

    Attributes:
        client: name of the API key, else the address of the client.
        model: name of the model.
        encodings: token ids of each row, without padding.
        flops_full: worst case of each row `(rows,)`: FLOPs of the full model, or of the deepest exit that the request
            allows.
        caps: most FLOPs for each row `(rows,)`: the lower of what `Hooks.admit` returned and what the request allows;
            infinite where there is no cap.
        seconds: time of each stage so far: `tokenisation`, `queue`, `inference`.
    """

    client: str
    model: str
    encodings: Sequence[Encoding]
    flops_full: NDArray[np.float64]
    caps: NDArray[np.float64]
    seconds: dict[str, float] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.encodings)

    @cached_property
    def reserved(self) -> float:
        """The most FLOPs that all rows together may use."""
        return float(np.minimum(self.caps, self.flops_full).sum())


class Hooks(Protocol):
    """Calls around each request, made from several threads: they return soon, and never raise.

    For each `admit` that returned caps, exactly one of `answered` and `dropped` follows.
    """

    def admit(self, client: str, flops_full: NDArray[np.float64]) -> NDArray[np.float64] | Refusal:
        """Decide on a request before it is queued.

        Args:
            client: name of the API key, else the address of the client.
            flops_full: the worst case of each row `(rows,)`; see `Submission`.

        Returns:
            The most FLOPs that each row may use `(rows,)`, infinite for no cap, or a refusal. A row always runs to its
            first exit, even if that exceeds the cap.
        """

    def answered(
        self, client: str, model: str, decisions: Decisions, seconds: float, submission: Submission
    ) -> None:
        """Note an answered request, and the seconds from its arrival to its answer."""

    def dropped(self, submission: Submission) -> None:
        """Note an admitted request that got no answer: its deadline passed, the queue was full, or it failed."""

    def refused(self, client: str, model: str, status: int) -> None:
        """Note a request that was answered with an error, by its HTTP status."""

    def ran_batch(self, model: str, rows: int, waiting: int, seconds: float) -> None:
        """Note a batch: its rows, the rows that still wait in the queue, and its seconds of inference."""

    def exposition(self) -> bytes:
        """The metrics in Prometheus' text format, for `/metrics`."""


class NoHooks:
    """Everything is admitted without a cap, and nothing is noted."""

    def admit(self, client: str, flops_full: NDArray[np.float64]) -> NDArray[np.float64] | Refusal:
        return np.full(len(flops_full), np.inf)

    def answered(
        self, client: str, model: str, decisions: Decisions, seconds: float, submission: Submission
    ) -> None:
        pass

    def dropped(self, submission: Submission) -> None:
        pass

    def refused(self, client: str, model: str, status: int) -> None:
        pass

    def ran_batch(self, model: str, rows: int, waiting: int, seconds: float) -> None:
        pass

    def exposition(self) -> bytes:
        return b""
