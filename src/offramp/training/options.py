"""How to fine-tune: options that a command line can offer without loading torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any, Literal

from offramp._core.errors import ConfigError, unknown_name

PRECISIONS = ("fp32", "bf16", "auto")
SMALL_HIDDEN_SIZE = 512
NUMBERS: tuple[tuple[str, Any, str], ...] = (
    ("epochs", Real, "a number"),
    ("max_steps", Integral, "a whole number"),
    ("batch_size", Integral, "a whole number"),
    ("learning_rate", Real | None, "a number"),
    ("warmup", Real, "a number"),
    ("weight_decay", Real, "a number"),
)


@dataclass(frozen=True)
class TrainingOptions:
    """How to fine-tune.

    Args:
        epochs: passes over the training split.
        max_steps: stop after so many optimizer steps; 0 means by epochs.
        batch_size: examples a step.
        learning_rate: peak of a linear schedule; by default 1e-4 for encoders up to 512 wide, 5e-5 above.
        warmup: share of the steps that warm up.
        weight_decay: AdamW's.
        precision: `fp32`; `bf16` for bfloat16 autocast, two to three times faster on a processor that has it; or
            `auto`, which is bf16 where the processor or GPU has it.
        strategy_options: options of the strategy, such as `{"weights": "linear"}` for `joint`.
    """

    epochs: float = 2.0
    max_steps: int = 0
    batch_size: int = 16
    learning_rate: float | None = None
    warmup: float = 0.1
    weight_decay: float = 0.01
    precision: Literal["fp32", "bf16", "auto"] = "fp32"
    strategy_options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, kind, what in NUMBERS:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, kind):
                raise ConfigError(f"{name} must be {what}, got {value!r}")
        if not isinstance(self.strategy_options, Mapping):
            raise ConfigError(f"strategy_options must be values by name, got {self.strategy_options!r}")
        if self.precision not in PRECISIONS:
            raise ConfigError(unknown_name("precision", self.precision, PRECISIONS))
        # Written so that NaN fails too.
        if not 0 < self.epochs < math.inf:
            raise ConfigError(f"epochs must be positive, got {self.epochs}")
        if self.max_steps < 0:
            raise ConfigError(f"max_steps must be at least 0 (0 means by epochs), got {self.max_steps}")
        if not 0 <= self.warmup <= 1:
            raise ConfigError(f"warmup is a share of the steps between 0 and 1, got {self.warmup}")
        if not 0 <= self.weight_decay < math.inf:
            raise ConfigError(f"weight_decay must be at least 0, got {self.weight_decay}")
        if self.batch_size < 1:
            raise ConfigError(f"batch_size must be at least 1, got {self.batch_size}")
        if self.learning_rate is not None and not 0 < self.learning_rate < 1:
            raise ConfigError(f"learning_rate must lie between 0 and 1, got {self.learning_rate}")

    def steps(self, examples: int) -> int:
        """Optimizer steps over so many training examples."""
        return self.max_steps or math.ceil(self.epochs * math.ceil(examples / self.batch_size))


def default_learning_rate(hidden_size: int) -> float:
    """Peak learning rate by the encoder's width: narrow distilled encoders need more."""
    return 1e-4 if hidden_size <= SMALL_HIDDEN_SIZE else 5e-5


def uses_bf16(precision: str) -> bool:
    """Whether to train in bfloat16; for `auto`, whether the hardware computes in it."""
    if precision != "auto":
        return precision == "bf16"
    import torch

    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    has = torch.cpu.get_capabilities()
    return bool(has.get("avx512_bf16") or has.get("amx_bf16"))
