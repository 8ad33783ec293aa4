"""Options of fine-tuning, which a command line can offer without loading torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from offramp._core.errors import ConfigError, unknown_name
from offramp._core.numbers import check_number

Precision = Literal["fp32", "bf16", "auto"]
RECORD = "train.json"  # in the folder of a run
SMALL_HIDDEN_SIZE = 512


@dataclass(frozen=True)
class TrainingOptions:
    """Options of fine-tuning.

    Args:
        epochs: passes over the training split.
        max_steps: number of optimizer steps; 0 means that `epochs` decides.
        batch_size: examples per step.
        learning_rate: peak of a linear schedule; by default 1e-4 for encoders up to 512 wide, 5e-5 above.
        warmup: share of warm-up steps.
        weight_decay: AdamW's.
        precision: `fp32`; `bf16` for bfloat16 autocast, two to three times faster on hardware with bfloat16; or `auto`,
            which is bf16 on such hardware.
        strategy_options: options of the strategy, such as `{"weights": "linear"}` for `joint`.
    """

    epochs: float = 2.0
    max_steps: int = 0
    batch_size: int = 16
    learning_rate: float | None = None
    warmup: float = 0.1
    weight_decay: float = 0.01
    precision: Precision = "fp32"
    strategy_options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_number("epochs", self.epochs, "a positive number", lambda n: n > 0)
        steps = "a whole number of at least 0 (0 means by epochs)"
        check_number("max_steps", self.max_steps, steps, lambda n: n >= 0, whole=True)
        size = "a whole number of at least 1"
        check_number("batch_size", self.batch_size, size, lambda n: n >= 1, whole=True)
        if self.learning_rate is not None:
            check_number("learning_rate", self.learning_rate, "between 0 and 1", lambda n: 0 < n < 1)
        check_number("warmup", self.warmup, "a share of the steps, 0 to 1", lambda n: 0 <= n <= 1)
        check_number("weight_decay", self.weight_decay, "at least 0", lambda n: n >= 0)
        if not isinstance(self.strategy_options, Mapping):
            raise ConfigError(f"strategy_options must be values by name, got {self.strategy_options!r}")
        if self.precision not in get_args(Precision):
            raise ConfigError(unknown_name("precision", self.precision, get_args(Precision)))

    def steps(self, examples: int) -> int:
        """Optimizer steps for a number of training examples."""
        return self.max_steps or math.ceil(self.epochs * math.ceil(examples / self.batch_size))


def default_learning_rate(hidden_size: int) -> float:
    """Peak learning rate by the encoder's width: narrow distilled encoders need more."""
    return 1e-4 if hidden_size <= SMALL_HIDDEN_SIZE else 5e-5


def uses_bf16(precision: str) -> bool:
    """Whether to train in bfloat16; for `auto`, whether the hardware supports it."""
    if precision != "auto":
        return precision == "bf16"
    import torch

    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    has = torch.cpu.get_capabilities()
    return bool(has.get("avx512_bf16") or has.get("amx_bf16"))
