"""Measure how the exits' gradients agree: inner products per layer, also at chosen steps of a training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState

from offramp._core.errors import ConfigError, DataError
from offramp._core.paths import UserPath, user_path
from offramp._core.progress import track
from offramp._core.run_files import GRADIENT_FILE, read_gradients, write_gradients
from offramp._core.seeding import generator
from offramp.data import require_split
from offramp.engine.batching import pad
from offramp.model.base import SegmentedModel
from offramp.model.encoding import TextEncoder
from offramp.model.heads import exit_loss
from offramp.model.multi_exit import MultiExitForSequenceClassification
from offramp.training.strategies import STRATEGIES
from offramp.training.trainer import Arguments

Batch = tuple[dict[str, Tensor], Tensor]
Products = NDArray[np.float64]  # (batches, layers, exits, exits)


@dataclass(frozen=True)
class _Graph:
    """One forward pass: the hidden states around each layer, and the loss at each exit."""

    around: dict[int, tuple[Tensor, Tensor]]  # layer, from 1: hidden states below and above it
    losses: dict[int, Tensor]  # exit layer: loss


def gradient_products(
    model: MultiExitForSequenceClassification,
    inputs: Mapping[str, Tensor],
    labels: Tensor,
    *,
    cut: bool = False,
) -> Products:
    """Inner products of the exits' gradients at every layer, on one batch.

    There is one forward pass. The backward passes of all exits run together, layer by layer, so only the gradients of
    one layer are in memory. `.grad` does not change.

    Args:
        model: its mode decides whether dropout is on.
        inputs: `input_ids`, `attention_mask`, …, `(batch, length)`.
        labels: `(batch,)`.
        cut: cut the graph after every exit, as training with `sweet` does.

    Returns:
        `(layers, exits, exits)`: `⟨∇_{θ_ℓ} L_i, ∇_{θ_ℓ} L_j⟩`, zero if an exit does not reach the layer.
        If an encoder reuses a layer, the gradient is that of one passage through it.
    """
    layers, exits = model.exit_layers[-1], model.exit_layers
    products = np.zeros((layers, len(exits), len(exits)))
    with torch.enable_grad():
        graph = _forward(model, inputs, labels, cut)
        arriving: dict[int, Tensor] = {}  # exit to gradient of its loss by the hidden states above the layer
        for layer in range(layers, 0, -1):
            below, above = graph.around[layer]
            if layer in exits:
                own = torch.autograd.grad(graph.losses[layer], above, retain_graph=True)
                arriving[exits.index(layer)] = own[0]
            parameters = [p for p in model.driver.layers[layer - 1].parameters() if p.requires_grad]
            gradients, arriving = _down(parameters, below, above, arriving)
            for i, own_gradient in gradients.items():
                for j, other in gradients.items():
                    products[layer - 1, i, j] = float(torch.dot(own_gradient, other))
    return products


def _forward(
    model: MultiExitForSequenceClassification, inputs: Mapping[str, Tensor], labels: Tensor, cut: bool
) -> _Graph:
    state, graph = model.embed(inputs), _Graph({}, {})
    for layer in range(1, model.exit_layers[-1] + 1):
        # A leaf: where layers share parameters, the gradient must not continue into earlier passages.
        below = state.hidden.detach().requires_grad_(state.hidden.requires_grad)
        state = model.driver.layer(layer, replace(state, hidden=below))
        graph.around[layer] = (below, state.hidden)
        if layer in model.exit_layers:
            graph.losses[layer] = exit_loss(model.head(model.exit_layers.index(layer), state)[0], labels)
            state = state.detach() if cut else state
    return graph


def _down(
    parameters: Sequence[Tensor], below: Tensor, above: Tensor, arriving: Mapping[int, Tensor]
) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
    """Each exit's gradient of a layer, flat, and its gradient of the state below."""
    wanted = [*parameters, *([below] if below.requires_grad else [])]
    gradients, leaving = {}, {}
    for k, arrived in arriving.items():
        gradients_of_k = torch.autograd.grad(above, wanted, arrived, retain_graph=True, allow_unused=True)
        pairs = zip(parameters, gradients_of_k, strict=False)
        gradients[k] = torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for p, g in pairs])
        if below.requires_grad and gradients_of_k[-1] is not None:
            leaving[k] = gradients_of_k[-1]
    return gradients, leaving


def measure_products(
    model: SegmentedModel,
    dataset: Any,
    *,
    batches: int = 8,
    batch_size: int = 16,
    seed: int = 0,
    cut: bool | None = None,
    progress: bool = False,
) -> Products:
    """`gradient_products` on some batches, `(batches, layers, exits, exits)`, without dropout; no weight changes.

    Args:
        dataset: labelled, with columns `text` and for pairs `text_pair`.
        batches: number of batches; fewer for small data.
        seed: chooses the examples.
        cut: whether the graph is cut after every exit; None takes the choice of the model's training strategy.
        progress: show a progress bar.

    Raises:
        ConfigError: a cascade, or fewer than one batch or example.
        DataError: no labels.
    """
    whole = check_measurable(model)
    trained = STRATEGIES.get(model.config.strategy)  # None before training, and for imported weights
    severed = cut if cut is not None else trained is not None and trained.cuts_graph
    training = model.training
    model.eval()
    try:
        examples = batches_of(model, dataset, batches, batch_size, seed)
        shown = track([*examples], "measure the conflict", show=progress)
        return np.stack([gradient_products(whole, *batch, cut=severed) for batch in shown])
    finally:
        model.train(training)


def check_measurable(model: SegmentedModel) -> MultiExitForSequenceClassification:
    """The model; `ConfigError` if its exits share no layers."""
    if not isinstance(model, MultiExitForSequenceClassification):
        raise ConfigError(
            "exits can conflict only in layers that they share, and the members of a Multi-Model cascade "
            "share none: measure a multi-exit model"
        )
    return model


def batches_of(
    model: SegmentedModel, dataset: Any, batches: int, batch_size: int, seed: int
) -> Iterator[Batch]:
    """Random examples, encoded and padded, on the model's device."""
    if batches < 1 or batch_size < 1:
        raise ConfigError(f"expected at least one batch of one example, got {batches} of {batch_size}")
    dataset = require_split(dataset)
    if "label" not in dataset.column_names or not len(dataset):
        raise DataError(f"measuring gradients needs labelled examples, got {len(dataset)} without labels")
    rows = generator(seed, "conflict").permutation(len(dataset))[: batches * batch_size]
    chosen = dataset.select(rows.tolist())
    encoder = TextEncoder.of(model)
    encodings, labels = encoder.dataset(chosen)[0], torch.tensor(chosen["label"], device=model.device)
    for start in range(0, len(encodings), batch_size):
        stretch = slice(start, start + batch_size)
        padded = pad(encodings[stretch], encoder.pad_values)
        inputs = {name: torch.from_numpy(values).to(model.device) for name, values in padded.items()}
        yield inputs, labels[stretch]


class ConflictCallback(TrainerCallback):
    """Measures at chosen steps; weights, gradients and random numbers do not change.

    Args:
        dataset: labelled examples, the same at every step.
        steps: optimizer steps after which to measure, counted over all phases; 0 is before the first.
        folder: of `products.npz`; a resumed run adds to it.
        measure: options of `measure_products`.
    """

    def __init__(
        self, model: Any, dataset: Any, steps: Sequence[int], folder: UserPath, **measure: Any
    ) -> None:
        if not steps or min(steps) < 0:
            raise ConfigError(f"conflict is measured at steps of at least 0, got {list(steps)}")
        self.model, self.dataset = check_measurable(model), dataset
        self.steps, self.path = frozenset(steps), user_path(folder) / GRADIENT_FILE
        # Evaluated at each measurement: the model has its strategy only when the training begins.
        self.measure: Callable[[], Products] = lambda: measure_products(self.model, self.dataset, **measure)
        self.before = 0  # steps of finished phases

    def on_train_begin(self, args: Arguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.global_step == 0 and self.before == 0:
            self._visit(0)

    def on_step_end(self, args: Arguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        # A finished phase that resumes inside an epoch takes one more step, with a rate of 0.
        if state.global_step <= state.max_steps:
            self._visit(self.before + state.global_step)

    def on_train_end(self, args: Arguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.before += min(state.global_step, state.max_steps)

    def _visit(self, step: int) -> None:
        if step in self.steps:
            write_gradients(self.path, {**read_gradients(self.path), step: self.measure()})
