"""Errors that name the expected value, the actual value, and the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class OfframpError(Exception):
    """Base of every error that a user can cause and fix."""


class DataError(OfframpError, ValueError):
    """The data cannot be read, or do not fit."""


class ModelError(OfframpError, ValueError):
    """The model, the checkpoint or the exits cannot be used."""


class CriterionError(OfframpError, ValueError):
    """The exit criterion does not fit the model or the task."""


class CalibrationError(OfframpError, ValueError):
    """A threshold or temperature cannot be fitted, or a report would use the data it was fitted on."""


class ConfigError(OfframpError, ValueError):
    """An option has an invalid value."""


class MissingExtraError(OfframpError, ImportError):
    """An optional dependency is missing; the message gives the command, or two, that install it."""

    def __init__(self, package: str, extra: str, then: str = "") -> None:
        second = f" && {then}" if then else ""
        super().__init__(
            f"{package} is needed for this; install it with: pip install 'offramp[{extra}]'{second}"
        )


def unknown_name(kind: str, name: object, choices: Iterable[str]) -> str:
    """Message for an unknown name: the nearest name first, then all valid names."""
    names = sorted(choices)
    near = difflib.get_close_matches(str(name), names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"unknown {kind} {name!r}.{hint} Known: {', '.join(names)}"
