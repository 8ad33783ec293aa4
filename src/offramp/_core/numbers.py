"""Checks of numeric options, and the one implementation of log-softmax."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from numbers import Integral, Real
from typing import TypeGuard

import numpy as np
from numpy.typing import NDArray

from offramp._core.errors import ConfigError


def is_number(value: object, *, whole: bool = False) -> TypeGuard[float]:
    """Whether a value is a finite real number, or an integer. Numpy's numbers count, a bool does not."""
    kind = Integral if whole else Real
    return not isinstance(value, bool) and isinstance(value, kind) and math.isfinite(value)


def check_number(
    name: str, value: object, expected: str, fits: Callable[[float], bool], *, whole: bool = False
) -> None:
    """Raise `ConfigError`, which names the expected value, unless an option is a finite number that fits."""
    if not is_number(value, whole=whole) or not fits(value):
        raise ConfigError(f"{name} must be {expected}, got {value!r}")


def check_share(name: str, value: object, *, zero: bool = True, full: bool = True, unit: str = " %") -> None:
    """Raise `ConfigError`, which says how to write a percentage, unless an option is a share between 0 and 1.

    Args:
        name: of the option.
        value: what was given.
        zero: whether 0 is allowed.
        full: whether 1 is allowed.
        unit: of a hundredth, for the message.
    """
    if is_number(value) and (0 < value < 1 or (zero and value == 0) or (full and value == 1)):
        return
    span = "between 0 and 1" if zero and full else f"above 0 and {'at most' if full else 'below'} 1"
    shown = f"{value:g}" if is_number(value) else repr(value)
    hint = percent_hint(value, unit) or f": write 0.05 for 5{unit}"
    raise ConfigError(f"{name} is a share {span}, got {shown}{hint}")


def check_cost(name: str, value: object, most: float) -> None:
    """Raise `ConfigError` unless a cost is a share of the full model's, above 0 and at most `most`.

    Models that recompute may cost more than their full model, and have a `most` above 1.
    """
    if not (is_number(value) and 1 < value <= most):
        check_share(name, value, zero=False)


def percent_hint(value: object, unit: str = " %") -> str:
    """How to write a percentage, 5 or "5 %", as a share; "" for what is no percentage."""
    percent = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*%\s*", value) if isinstance(value, str) else None
    number = float(percent.group(1)) if percent else value
    if is_number(number) and (0 if percent else 1) < number <= 100:
        return f": write {number / 100:g} for {number:g}{unit}"
    return ""


def log_softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Log-softmax over the last axis in float64, finite for every finite logit; any shape."""
    # scipy's own takes 30 µs for one row, a tenth of a layer of a small model.
    wide: NDArray[np.float64] = np.asarray(logits, dtype=np.float64)
    shifted = wide - wide.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Softmax over the last axis in float64, for any finite logits of any shape."""
    return np.exp(log_softmax(logits))
