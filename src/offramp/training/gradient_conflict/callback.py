"""Gradient conflict during training: products measured at chosen steps, kept in the run's folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from offramp._core.errors import ConfigError
from offramp.training.gradient_conflict.gradient_products import FILE, Products, read_products, write_products
from offramp.training.gradient_conflict.measure import check_measurable, measure_products


class ConflictCallback(TrainerCallback):
    """Measures at chosen steps; weights, gradients and random numbers stay as they are.

    Args:
        model: the model in training.
        dataset: labelled examples; the same ones at every step.
        steps: optimizer steps after which to measure, counted over all phases; 0 is before the first.
        folder: gets `products.npz`, which a resumed run adds to.
        measure: options of `measure_products`.
    """

    def __init__(
        self, model: Any, dataset: Any, steps: Sequence[int], folder: str | Path, **measure: Any
    ) -> None:
        if not steps or min(steps) < 0:
            raise ConfigError(f"expected steps from 0 on to measure conflict at, got {list(steps)}")
        self.model, self.dataset = check_measurable(model), dataset
        self.steps, self.path = frozenset(steps), Path(folder) / FILE
        # Asked when measuring: a strategy is noted in the model when its training begins.
        self.measure: Callable[[], Products] = lambda: measure_products(self.model, self.dataset, **measure)
        self.before = 0  # steps of the phases that are over

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Measure before the first step."""
        if state.global_step == 0 and self.before == 0:
            self._visit(0)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Measure where it is time."""
        # A finished phase that is resumed inside an epoch takes one more step, at a rate of 0.
        if state.global_step <= state.max_steps:
            self._visit(self.before + state.global_step)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Count the steps of a phase that is over."""
        self.before += min(state.global_step, state.max_steps)

    def _visit(self, step: int) -> None:
        if step in self.steps:
            write_products(self.path, {**read_products(self.path), step: self.measure()})
