"""Checks of arguments. Each returns the value as Python's own type, which JSON can hold, or raises `ConfigError`."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping, Set
from typing import Any

import numpy as np

from offramp._core.errors import ConfigError, unknown_name
from offramp._core.numbers import is_number

LARGEST_SEED = 2**32 - 1  # numpy's global generator, which the library's trainer seeds, takes no larger one


def as_python(value: Any) -> Any:
    """A number or string of numpy, or a tensor without dimensions, as Python's own; any other value unchanged."""
    torch = sys.modules.get("torch")  # a caller who has a tensor has imported it
    arrays = (np.ndarray,) if torch is None else (np.ndarray, torch.Tensor)
    if isinstance(value, np.generic) or (isinstance(value, arrays) and value.ndim == 0):
        return value.item()
    return value


def number(name: str, value: Any, expected: str, fits: Callable[[float], bool]) -> float:
    """A finite number that fits; a bool or a string is none.

    Args:
        name: of the argument, for the message.
        value: the argument.
        expected: what fits, for the message: "a positive number".
        fits: whether a number is in range.
    """
    value = as_python(value)
    if not is_number(value) or not fits(value):
        raise ConfigError(f"{name} must be {expected}, got {value!r}")
    return value


def check_share(name: str, value: Any, *, zero: bool = True, full: bool = True, unit: str = " %") -> float:
    """A share between 0 and 1; the error says how to write a percentage.

    Args:
        name: of the argument.
        value: the argument.
        zero: whether 0 is allowed.
        full: whether 1 is allowed.
        unit: of a hundredth, for the message.
    """
    value = as_python(value)
    if is_number(value) and (0 < value < 1 or (zero and value == 0) or (full and value == 1)):
        return value
    span = "between 0 and 1" if zero and full else f"above 0 and {'at most' if full else 'below'} 1"
    shown = f"{value:g}" if is_number(value) else repr(value)
    hint = percent_hint(value, unit) or f": write 0.05 for 5{unit}"
    raise ConfigError(f"{name} is a share {span}, got {shown}{hint}")


def check_cost(name: str, value: Any, most: float) -> float:
    """A cost as a share of the full model's, above 0 and at most `most`.

    Models that recompute may cost more than their full model, and have a `most` above 1.
    """
    value = as_python(value)
    return value if is_number(value) and 1 < value <= most else check_share(name, value, zero=False)


def percent_hint(value: object, unit: str = " %") -> str:
    """How to write a percentage, 5 or "5 %", as a share; "" for what is no percentage."""
    percent = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*%\s*", value) if isinstance(value, str) else None
    amount = float(percent.group(1)) if percent else value
    if is_number(amount) and (0 if percent else 1) < amount <= 100:
        return f": write {amount / 100:g} for {amount:g}{unit}"
    return ""


def whole(name: str, value: Any, least: int = 0, most: int | None = None, note: str = "") -> int:
    """A whole number from `least` to `most`; a bool, a string or a float is none. A note follows the message."""
    value = as_python(value)
    if not is_number(value, whole=True) or value < least or (most is not None and value > most):
        span = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise ConfigError(f"{name} must be a whole number {span}, got {value!r}{note and ': '}{note}")
    return int(value)


def seed_number(value: Any) -> int:
    """The seed of a run."""
    return whole("seed", value, most=LARGEST_SEED)


def flag(name: str, value: Any) -> bool:
    """True or False; a number or a string is neither."""
    value = as_python(value)
    if not isinstance(value, bool):
        raise ConfigError(f"{name} must be True or False, got {value!r}")
    return value


def choice(what: str, value: Any, choices: Iterable[str]) -> str:
    """One of some names; `what` says what they name."""
    value, choices = as_python(value), list(choices)
    if not isinstance(value, str) or value not in choices:
        raise ConfigError(unknown_name(what, value, choices))
    return value


def sequence(name: str, value: Any, of: str) -> list[Any]:
    """The items of a list, tuple, array or generator, which is consumed; `of` says what they are."""
    value = as_python(value)
    if isinstance(value, str | bytes | Mapping | Set) or not isinstance(value, Iterable):
        raise ConfigError(f"{name} must be a list of {of}, got {type(value).__name__}: {value!r:.80}")
    return [as_python(item) for item in value]


def name_list(name: str, value: Any, of: str) -> tuple[str, ...]:
    """Different strings, none of them blank, in order; `of` says what they are."""
    listed = sequence(name, value, of)
    for item in listed:
        if not isinstance(item, str) or not item.strip():
            raise ConfigError(f"{name} must be strings that are not blank, got {item!r}: give {of}")
    if twice := [item for item in dict.fromkeys(listed) if listed.count(item) > 1]:
        raise ConfigError(f"{name} must differ from each other, got {twice[0]!r} twice: give {of}")
    return tuple(listed)


def set_fields(instance: object, **values: Any) -> None:
    """Put checked values into a frozen dataclass that is just being made."""
    for name, value in values.items():
        object.__setattr__(instance, name, value)
