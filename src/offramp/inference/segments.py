"""A torch model as the engine's segments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from offramp._core.environment import can_compile
from offramp._core.errors import ConfigError
from offramp._core.trace import Evidence, Kind
from offramp.engine.segments import Batch
from offramp.model.base import SegmentedModel
from offramp.model.multi_exit import MultiExitForSequenceClassification


class TorchSegments:
    """Runs a multi-exit model or a cascade segment by segment, on its own device, without gradients.

    Args:
        model: the model.
        compiled: compile its layers, in place, at their first use; batches of any shape then share the code.
        residuals: whether the evidence has residuals, for rules that need them; of classifiers only.

    Raises:
        ConfigError: `compiled` without a C++ compiler, which torch needs on a CPU.
    """

    def __init__(self, model: SegmentedModel, *, compiled: bool = False, residuals: bool = False) -> None:
        self.model = model.eval()
        if compiled:
            if model.device.type == "cpu" and not can_compile():
                raise ConfigError(
                    "torch needs a C++ compiler to compile for a CPU: install g++, or use backend='torch'"
                )
            for module in model.modules():
                if isinstance(module, MultiExitForSequenceClassification):
                    for layer in module.driver.layers:  # alike, so one compilation serves all of them
                        layer.compile(dynamic=True)
        self.exit_layers = model.exit_layers
        self.kind: Kind = model.kind
        self.gates = model.gates
        self.reads_padding = model.reads_padding
        self.flops = model.flops
        self.spaces = model.class_spaces() if residuals and model.kind == "classification" else None

    @torch.inference_mode()
    def start(self, batch: Batch) -> Any:
        return self.model.start({k: torch.as_tensor(v, device=self.model.device) for k, v in batch.items()})

    @torch.inference_mode()
    def run(self, k: int, state: Any) -> tuple[Any, Evidence]:
        state = self.model.segment(k, state)
        residual = None
        if self.spaces is None:
            logits, gate = self.model.head(k, state)
        else:
            logits, gate, share = self.model.head_and_residual(k, state, self.spaces[k])
            residual = share.cpu().numpy()
        gates = None if gate is None else gate.sigmoid().cpu().numpy()
        return state, Evidence(
            k,
            len(self.exit_layers),
            logits.cpu().numpy(),
            gates,
            residual=residual,
            layer_zero=self.exit_layers[k] == 0,
        )

    @torch.inference_mode()
    def take(self, state: Any, rows: NDArray[np.intp]) -> Any:
        return state.take(torch.as_tensor(rows, device=self.model.device))

    @torch.inference_mode()
    def join(self, states: Sequence[Any]) -> Any:
        return states[0].join(states[1:])
