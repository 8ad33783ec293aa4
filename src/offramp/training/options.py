"""Options of fine-tuning, which a command line can offer without loading torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from importlib.util import find_spec
from typing import Any, Literal, get_args

from offramp._core.arguments import check_share, choice, name_list, number, set_fields, whole
from offramp._core.errors import ConfigError

Precision = Literal["fp32", "bf16", "auto"]
Order = Literal["length", "random"]
Tracker = Literal["tensorboard", "mlflow", "wandb"]  # each is also the name of its package
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
        max_grad_norm: gradients are scaled down to this norm where theirs is larger; 0 means that they are not.
        order: `length`, batches of texts of similar length, which have less padding; or `random`.
        precision: `fp32`; `bf16` for bfloat16 autocast, two to three times faster on hardware with bfloat16; or `auto`,
            which is bf16 on such hardware.
        strategy_options: options of the strategy, such as `{"weights": "linear"}` for `joint`.
        report_to: where the loss and the learning rate are reported every 20 steps: `tensorboard`, `mlflow` or
            `wandb`, by the library's own callbacks, which read the trackers' usual environment variables. TensorBoard's
            files go to `logs` in the run's folder.
    """

    epochs: float = 2.0
    max_steps: int = 0
    batch_size: int = 16
    learning_rate: float | None = None
    warmup: float = 0.1
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    order: Order = "length"
    precision: Precision = "fp32"
    strategy_options: dict[str, Any] = field(default_factory=dict)
    report_to: tuple[Tracker, ...] = ()

    def __post_init__(self) -> None:
        set_fields(
            self,
            epochs=number("epochs", self.epochs, "a positive number", lambda n: n > 0),
            max_steps=whole("max_steps", self.max_steps, note="0 means that epochs decides"),
            batch_size=whole("batch_size", self.batch_size, 1),
            warmup=check_share("warmup", self.warmup),
            weight_decay=number("weight_decay", self.weight_decay, "at least 0", lambda n: n >= 0),
            max_grad_norm=number(
                "max_grad_norm", self.max_grad_norm, "at least 0 (0 means no clipping)", lambda n: n >= 0
            ),
            order=choice("order", self.order, get_args(Order)),
            precision=choice("precision", self.precision, get_args(Precision)),
        )
        if self.learning_rate is not None:
            rate = number("learning_rate", self.learning_rate, "between 0 and 1", lambda n: 0 < n < 1)
            set_fields(self, learning_rate=rate)
        if not isinstance(self.strategy_options, Mapping):
            raise ConfigError(f"strategy_options must be values by name, got {self.strategy_options!r}")
        set_fields(self, report_to=_installed_trackers(self.report_to))

    def steps(self, examples: int) -> int:
        """Optimizer steps for a number of training examples."""
        return self.max_steps or math.ceil(self.epochs * math.ceil(examples / self.batch_size))


# Those that a plan sets for all its models; the others are a method's.
PLAN_OPTIONS = tuple(
    option.name
    for option in fields(TrainingOptions)
    if option.name not in ("learning_rate", "strategy_options", "report_to")
)


def _installed_trackers(names: Any) -> tuple[str, ...]:
    """The names of trackers; `ConfigError` for an unknown one, or one that is not installed."""
    listed = name_list("report_to", [names] if isinstance(names, str) else names, "names of trackers")
    for name in listed:
        choice("tracker of report_to", name, get_args(Tracker))
        if find_spec(name) is None:
            raise ConfigError(
                f"report_to {name} needs its package, which is not installed: pip install {name}"
            )
    return listed


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
