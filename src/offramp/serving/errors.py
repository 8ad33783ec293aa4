"""Requests that are not answered, with the HTTP status of each reason."""

from __future__ import annotations

from offramp._core.errors import OfframpError


class ServiceError(OfframpError):
    """A request that gets no answer.

    Attributes:
        status: the HTTP status.
        kind: the reason in text-embeddings-inference's words.
        retry_after: seconds after which the request may succeed; None if it never will.
    """

    status = 422
    kind = "Validation"

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class InvalidRequest(ServiceError):
    """Values that the service cannot use."""


class TooLarge(ServiceError):
    """More bytes, texts or characters than the service takes."""

    status = 413


class UnknownModel(ServiceError):
    """No model of that name."""

    status = 404


class Unauthorized(ServiceError):
    """No key, or a wrong one."""

    status, kind = 401, "Unauthorized"


class Overloaded(ServiceError):
    """The queue is full, or the client's budget is used up."""

    status, kind = 429, "Overloaded"


class TooSlow(ServiceError):
    """The body did not arrive in time."""

    status, kind = 408, "Timeout"


class DeadlinePassed(ServiceError):
    """The deadline passed before the request was run."""

    status, kind = 504, "Timeout"


class Closing(ServiceError):
    """The service is about to stop."""

    status, kind = 503, "Unhealthy"
