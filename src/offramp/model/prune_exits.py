"""The same model with fewer exits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from offramp._core.errors import ModelError
from offramp.model.base import SegmentedModel

M = TypeVar("M", bound=SegmentedModel)


def prune_exits(model: M, layers: Sequence[int]) -> M:
    """Copy a model with some of its exits, or a cascade with some of its members.

    Args:
        layers: the exit layers to keep, including the last one.

    Raises:
        ModelError: layers without an exit, or without the last exit.
    """
    kept, present = list(layers), list(model.exit_layers)
    if kept[-1:] != present[-1:] or kept != sorted(set(kept) & set(present)):
        raise ModelError(f"expected some of the exit layers {present} with the last one, got {kept}")
    config = type(model.config)(**{**model.config.to_dict(), "exits": kept, "costs": None})
    smaller = type(model)(config)
    heads, left = (
        [layer for layer in present if layer],
        [layer for layer in kept if layer],
    )  # layer 0 has no head
    positions = {str(heads.index(layer)): str(k) for k, layer in enumerate(left)}
    weights = {}
    for name, value in model.state_dict().items():
        path = name.split(".")
        if path[0] == "linear" and smaller.linear is None:
            continue
        if path[0] in ("heads", "members"):
            if path[1] not in positions:
                continue
            path[1] = positions[path[1]]
        weights[".".join(path)] = value
    smaller.load_state_dict(weights)
    smaller.tokenizer, smaller.trained_on = model.tokenizer, model.trained_on
    return smaller.eval()
