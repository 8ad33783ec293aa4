"""What recipes ask of a victim before they start."""

from __future__ import annotations

from offramp._core.errors import ConfigError
from offramp.attacks.objectives.base import require_classes
from offramp.attacks.victims.base import Victim


def require_probabilities(victim: Victim) -> None:
    """Raise `ConfigError` where there is no model to take gradients of, or it is a regression."""
    model = victim.white_box.model
    require_classes(1 if victim.kind == "regression" else len(model.labels))


def require_shown_probabilities(victim: Victim) -> None:
    """Raise `ConfigError` where the victim itself shows no probabilities of classes."""
    if not victim.probabilities:
        raise ConfigError(
            "this recipe scores texts by the probabilities of all exits, but the victim shows only where texts "
            "leave: use 'slowbert', 'slowbert-time', or 'same-word' with a surrogate (GreyBox)"
        )
    require_classes(1 if victim.kind == "regression" else len(victim.white_box.model.labels))
