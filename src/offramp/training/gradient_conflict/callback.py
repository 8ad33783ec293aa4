"""Measure gradient conflict at chosen steps of a training, and store it in the run's folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState

from offramp._core.errors import ConfigError
from offramp._core.run_files import GRADIENT_FILE, read_gradients, write_gradients
from offramp.training.gradient_conflict.measure import Products, check_measurable, measure_products
from offramp.training.trainer import Arguments


class ConflictCallback(TrainerCallback):
    """Measures at chosen steps; weights, gradients and random numbers do not change.

    Args:
        model: the model in training.
        dataset: labelled examples, the same at every step.
        steps: optimizer steps after which to measure, counted over all phases; 0 is before the first.
        folder: of `products.npz`, to which a resumed run adds.
        measure: options of `measure_products`.
    """

    def __init__(
        self, model: Any, dataset: Any, steps: Sequence[int], folder: str | Path, **measure: Any
    ) -> None:
        if not steps or min(steps) < 0:
            raise ConfigError(f"expected steps from 0 on to measure conflict at, got {list(steps)}")
        self.model, self.dataset = check_measurable(model), dataset
        self.steps, self.path = frozenset(steps), Path(folder) / GRADIENT_FILE
        # Called when measuring: the model has its strategy only when the training begins.
        self.measure: Callable[[], Products] = lambda: measure_products(self.model, self.dataset, **measure)
        self.before = 0  # steps of finished phases

    def on_train_begin(self, args: Arguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Measure before the first step."""
        if state.global_step == 0 and self.before == 0:
            self._visit(0)

    def on_step_end(self, args: Arguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Measure when it is due."""
        # A finished phase that resumes inside an epoch takes one more step, with a rate of 0.
        if state.global_step <= state.max_steps:
            self._visit(self.before + state.global_step)

    def on_train_end(self, args: Arguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Count the steps of a finished phase."""
        self.before += min(state.global_step, state.max_steps)

    def _visit(self, step: int) -> None:
        if step in self.steps:
            write_gradients(self.path, {**read_gradients(self.path), step: self.measure()})
