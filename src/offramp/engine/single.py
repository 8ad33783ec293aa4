"""One text through one graph that decides for itself where to stop: no way back to Python between exits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from offramp.engine.manifest import Manifest
from offramp.engine.onnx import open_session
from offramp.engine.policy import Policy
from offramp.engine.segments import Batch


class SingleGraph:
    """The single-graph form of an exported folder, under a policy.

    Args:
        folder: what `offramp export` wrote, with a single graph in it.
        manifest: what it says of itself.
        policy: its rule has to be the one that the graph decides by.
        threads: CPU threads; by default as many as the process may use.

    Raises:
        ModelError: a graph that this ONNX Runtime cannot run.
    """

    def __init__(self, folder: Path, manifest: Manifest, policy: Policy, threads: int | None = None) -> None:
        assert fits(manifest, policy), "ask `fits` first"
        self.session = open_session(folder / manifest.single, threads, manifest, lean=True)
        self.inputs = manifest.inputs
        temperatures = policy.temperatures or (1.0,) * len(manifest.exit_layers)
        self.constants = {
            "threshold": np.array(policy.criterion.threshold, dtype=np.float64),
            "temperatures": np.array(temperatures, dtype=np.float64),
        }

    def __call__(self, batch: Batch) -> tuple[int, NDArray[np.float32]]:
        """The exit (0-based) that a batch of one text leaves at, and its logits there `(1, classes)`."""
        feeds = {
            name: batch[name] if name in batch else np.zeros_like(batch["input_ids"]) for name in self.inputs
        }
        logits, exit = self.session.run(("logits", "exit"), feeds | self.constants)
        return int(exit), logits


def fits(manifest: Manifest, policy: Policy) -> bool:
    """Whether a folder has a single graph that decides as the policy does."""
    return bool(manifest.single) and manifest.single_rule == policy.criterion.name
