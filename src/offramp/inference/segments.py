"""A torch model as the engine's segments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from offramp._core.trace import Evidence, Kind
from offramp.engine.segments import Batch
from offramp.model.base import SegmentedModel


class TorchSegments:
    """Drives a multi-exit model or a cascade segment by segment, on its own device, without gradients."""

    def __init__(self, model: SegmentedModel) -> None:
        self.model = model.eval()
        self.exit_layers = model.exit_layers
        self.kind: Kind = model.kind
        self.gates = model.gates

    @torch.inference_mode()
    def start(self, batch: Batch) -> Any:
        """Move a batch to the device and embed it."""
        return self.model.start({k: torch.as_tensor(v, device=self.model.device) for k, v in batch.items()})

    @torch.inference_mode()
    def run(self, k: int, state: Any) -> tuple[Any, Evidence]:
        """Run segment and head `k`."""
        state = self.model.segment(k, state)
        logits, gate = self.model.head(k, state)
        return state, Evidence(
            k,
            len(self.exit_layers),
            logits.cpu().numpy(),
            None if gate is None else gate.sigmoid().cpu().numpy(),
        )

    @torch.inference_mode()
    def take(self, state: Any, rows: NDArray[np.intp]) -> Any:
        """Some rows of a state."""
        return state.take(torch.as_tensor(rows, device=self.model.device))

    @torch.inference_mode()
    def join(self, states: Sequence[Any]) -> Any:
        """The rows of several states behind each other."""
        return states[0].join(states[1:])

    def costs(self, lengths: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """FLOPs by length; see `SegmentedModel.costs`."""
        return self.model.costs(lengths)
