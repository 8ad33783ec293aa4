"""Check numbers from a command line, a file or a caller, with one message."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Integral, Real
from typing import TypeGuard

from offramp._core.errors import ConfigError


def is_number(value: object, *, whole: bool = False) -> TypeGuard[float]:
    """Whether a value is a finite real number, or an integer; numpy's count, a bool does not."""
    kind = Integral if whole else Real
    return not isinstance(value, bool) and isinstance(value, kind) and math.isfinite(value)


def check_number(
    name: str, value: object, expected: str, fits: Callable[[float], bool], *, whole: bool = False
) -> None:
    """Raise `ConfigError` unless a value is a number that fits.

    Args:
        name: of the option.
        value: the value; NaN and infinities are no numbers.
        expected: what it must be, for the message.
        fits: whether a number is acceptable.
        whole: accept integers only.
    """
    if not is_number(value, whole=whole) or not fits(value):
        raise ConfigError(f"{name} must be {expected}, got {value!r}")
