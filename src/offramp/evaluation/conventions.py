"""Conversions between our convention and those of papers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offramp._core.errors import ConfigError, unknown_name

Conversion = Callable[[float, int], float]  # value, number of layers L


@dataclass(frozen=True)
class Convention:
    """How a paper reports a quantity that we report differently.

    Attributes:
        theirs: its name in the paper.
        ours: the name of our quantity: `cost` or `depth`.
        lower_is_faster: the direction of the paper's number.
        from_ours, to_ours: convert a value, given the number of layers, and back.
    """

    theirs: str
    ours: str
    lower_is_faster: bool
    from_ours: Conversion
    to_ours: Conversion


CONVENTIONS: dict[str, Convention] = {
    # SWEET (Rotem 2023) plots "speed-up" from 0 to 1, lower being faster: the share of the FLOPs spent.
    "sweet": Convention("speed-up", "cost", True, lambda cost, _: cost, lambda theirs, _: theirs),
    # PABEE (Zhou 2020), and DeeBERT's "saving": the share of the layers not run.
    "pabee": Convention(
        "speed",
        "depth",
        False,
        lambda depth, layers: 1 - depth / layers,
        lambda theirs, layers: layers * (1 - theirs),
    ),
    # WAFFLE's released code (Coalson 2023) adds 1 to an exit that already counts from 1.
    "waffle": Convention(
        "average exit", "depth", True, lambda depth, _: depth + 1, lambda theirs, _: theirs - 1
    ),
}


def layer_speedup(layers: int, depth: float | NDArray[np.floating]) -> Any:
    """`L / depth`, infinite where every text leaves before the first layer; the shape of `depth`."""
    with np.errstate(divide="ignore"):
        return np.float64(layers) / np.asarray(depth, dtype=np.float64)


def to_paper(paper: str, value: float, layers: int) -> float:
    """Our `cost` or `depth` in a paper's own convention; `ConfigError` for an unknown paper.

    Args:
        paper: a key of `CONVENTIONS`.
        value: our number, of the kind that the convention's `ours` names.
        layers: L of the full model.
    """
    return _convention(paper).from_ours(value, layers)


def from_paper(paper: str, value: float, layers: int) -> float:
    """A paper's number as our `cost` or `depth`; arguments and errors as in `to_paper`."""
    return _convention(paper).to_ours(value, layers)


def _convention(paper: str) -> Convention:
    if paper not in CONVENTIONS:
        raise ConfigError(unknown_name("paper convention", paper, CONVENTIONS))
    return CONVENTIONS[paper]
