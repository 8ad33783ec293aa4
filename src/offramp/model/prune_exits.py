"""The same model with fewer exits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from offramp._core.errors import ModelError
from offramp.model.base import SegmentedModel

M = TypeVar("M", bound=SegmentedModel)


def prune_exits(model: M, layers: Sequence[int]) -> M:
    """A copy of a model with some of its exits alone; of a cascade, some of its members.

    Args:
        model: a multi-exit model or a cascade.
        layers: the exit layers to keep; the last one has to be among them.

    Raises:
        ModelError: layers that the model has no exits at, or without its last one.
    """
    kept = tuple(layers)
    known = model.exit_layers
    if not set(kept) <= set(known) or not kept or kept[-1] != known[-1] or list(kept) != sorted(set(kept)):
        raise ModelError(
            f"expected some of the exit layers {list(known)} with the last one, got {list(kept)}"
        )
    config = type(model.config)(**{**model.config.to_dict(), "exits": list(kept), "costs": None})
    smaller = type(model)(config)
    places = {str(known.index(layer)): str(k) for k, layer in enumerate(kept)}
    weights = {}
    for name, value in model.state_dict().items():
        parts = name.split(".")
        if parts[0] in ("heads", "members"):
            if parts[1] not in places:
                continue
            parts[1] = places[parts[1]]
        weights[".".join(parts)] = value
    smaller.load_state_dict(weights)
    smaller.tokenizer, smaller.trained_on = model.tokenizer, model.trained_on
    return smaller.eval()
