"""One text through one graph that decides itself where to stop, without a way back to Python between exits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from offramp.engine.batching import MASK, Encoding
from offramp.engine.compaction import FusedAnswer
from offramp.engine.manifest import Manifest
from offramp.engine.onnx import open_session
from offramp.engine.policy import Policy

OUTPUTS = ("logits", "exit", "probability", "score")


class FusedGraph:
    """The fused graph of an exported folder, under a policy.

    Args:
        folder: what `offramp export` wrote, with a fused graph in it.
        manifest: the folder's manifest.
        policy: its rule must be the one that the graph decides by; see `fits`.
        threads: CPU threads; by default as many as the process may use.
        session: of the graph, if it is already open.

    Raises:
        ModelError: a graph that this ONNX Runtime cannot run.
    """

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        policy: Policy,
        threads: int | None = None,
        session: Any = None,
    ) -> None:
        assert fits(manifest, policy), "ask `fits` first"
        self.session = session or open_session(
            folder / manifest.fused_graph, threads, manifest, spinning=True, lean=True
        )
        self.inputs = manifest.inputs
        temperatures = policy.temperatures or (1.0,) * len(manifest.exit_layers)
        self.constants = {
            "threshold": np.array(policy.criterion.threshold, dtype=np.float64),
            "temperatures": np.array(temperatures, dtype=np.float64),
        }

    def __call__(self, encoding: Encoding) -> FusedAnswer:
        """Where one text leaves, and with what."""
        ids = np.array([encoding["input_ids"]], dtype=np.int64)
        feeds = dict(self.constants)
        for name in self.inputs:
            if name in encoding:
                feeds[name] = np.array([encoding[name]], dtype=np.int64)
            else:
                feeds[name] = np.full(ids.shape, name == MASK, dtype=np.int64)
        logits, exit, probability, score = self.session.run(OUTPUTS, feeds)
        return FusedAnswer(int(exit), logits, float(probability), float(score))


def fits(manifest: Manifest, policy: Policy) -> bool:
    """Whether a folder has a fused graph that decides as the policy does."""
    return bool(manifest.fused_graph) and manifest.fused_rule == policy.criterion.name
