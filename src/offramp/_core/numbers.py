"""Numbers out of a command line, a file or a caller's hand: checked in one way, told in one line."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Integral, Real
from typing import TypeGuard

from offramp._core.errors import ConfigError


def is_number(value: object, *, whole: bool = False) -> TypeGuard[float]:
    """Whether a value is a finite real number, or an integer, numpy's included; a bool is none."""
    kind = Integral if whole else Real
    return not isinstance(value, bool) and isinstance(value, kind) and math.isfinite(value)


def check_number(
    name: str, value: object, expected: str, fits: Callable[[float], bool], *, whole: bool = False
) -> None:
    """Raise `ConfigError` unless a value is a number, or an integer, that fits.

    Args:
        name: of the option.
        value: whatever was given; NaN and infinities are no numbers.
        expected: what it must be, for the message.
        fits: whether a number will do.
        whole: take integers alone.
    """
    if not is_number(value, whole=whole) or not fits(value):
        raise ConfigError(f"{name} must be {expected}, got {value!r}")
