"""COSEE: each example counts most at the exits near the one where it would leave."""

from __future__ import annotations

from typing import TYPE_CHECKING

from offramp._core.arguments import choice, number, whole
from offramp._core.errors import ConfigError
from offramp.training.strategies.base import Inputs, Losses, Moment, Strategy

if TYPE_CHECKING:
    from torch import Tensor

    from offramp.model.base import SegmentedModel

SIGNALS = ("energy", "entropy", "confidence")


class Cosee(Strategy):
    """Losses weighted by the distance of an exit from the one where the example would leave, and a margin.

    A threshold is drawn, and `t(x)` is the exit at which an example leaves with it. Its loss at exit l has the weight
    `softmax_l(−β_k·|l − t(x)|)`, the mean over several thresholds, where `β_k` grows from 0 to `beta` over the
    training. The margin asks each exit before the last for a difference of `epsilon` between the mean signals of its
    right and wrong answers in a batch: `max(0, right − wrong + epsilon)`, averaged over the exits that have both.

    Thresholds are uniform between the smallest and largest signal of the exits before the last in the batch. The
    released code takes that range from the epoch before, which a resumed run would not know. Distances count exits,
    which the paper has after every layer. Draws depend only on the seed and the step.

    Args:
        beta: β at the end of training.
        thresholds: how many are drawn at each step.
        alpha: weight of the margin.
        epsilon: ε, the margin.
        signal: what leaving is decided on, lower for a surer answer: `energy`, `1 / (1 + Σ exp z)`; `entropy`, as a
            share of its maximum; or `confidence`, one minus the largest probability. Exit by the rule of that name.

    Source: He et al. 2025 (COSEE, AAAI 2025, arXiv 2412.13236); β, number, α and ε as in its released code.
    """

    name = "cosee"
    label = "COSEE"

    def __init__(
        self,
        beta: float = 10.0,
        thresholds: int = 5,
        alpha: float = 0.1,
        epsilon: float = 0.3,
        signal: str = "energy",
    ) -> None:
        self.beta = number("beta of cosee", beta, "at least 0", lambda n: n >= 0)
        self.thresholds = whole("thresholds of cosee", thresholds, 1)
        self.alpha = number("alpha of cosee", alpha, "at least 0", lambda n: n >= 0)
        self.epsilon = number("epsilon of cosee", epsilon, "from 0 to 1", lambda n: 0 <= n <= 1)
        self.signal = choice("signal of cosee", signal, SIGNALS)

    def losses(self, model: SegmentedModel, inputs: Inputs, labels: Tensor, moment: Moment) -> Losses:
        import torch
        from torch.nn import functional as F

        from offramp._core.seeding import generator
        from offramp.training.strategies.losses import (
            exit_signals,
            gate_loss,
            signal_margin,
            weights_near_exits,
        )

        state, answers, gates = model.start(inputs), [], torch.zeros((), device=labels.device)
        for k in range(len(model.exit_layers)):
            state = model.segment(k, state)
            scores, gate = model.head(k, state)
            answers.append(scores)
            gates = gates + gate_loss(gate, scores, labels)
        logits = torch.stack(answers)  # (exits, batch, classes)
        if logits.shape[2] == 1:
            raise ConfigError("'cosee' needs classes, and the task is regression: use another strategy")
        errors = F.cross_entropy(logits.flatten(0, 1), labels.repeat(len(logits)), reduction="none").view(
            len(logits), -1
        )
        signals = exit_signals(logits[:-1], self.signal)
        draws = generator(moment.seed, "cosee", moment.phase, moment.step).uniform(size=self.thresholds)
        beta = self.beta * moment.progress
        weighted = (weights_near_exits(signals.detach(), draws.tolist(), beta) * errors).sum(dim=0).mean()
        right = logits[:-1].detach().argmax(dim=2) == labels
        yield weighted + self.alpha * signal_margin(signals, right, self.epsilon) + gates
