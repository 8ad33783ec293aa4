"""The time that an exit itself takes: head, decision, and the way back to Python."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

from offramp._core.trace import Evidence
from offramp.criteria import make_criterion
from offramp.engine.batching import Encoding, pad
from offramp.model.base import SegmentedModel

TEXTS = 20


@torch.inference_mode()
def exit_overhead(
    model: SegmentedModel,
    encodings: Sequence[Encoding],
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Time of one exit's head and decision as a share of the full model's, one text at a time, on this machine.

    Args:
        model: where the exits are; run in torch.
        encodings: texts, of which the first twenty are timed twice; the second time counts.
        clock: seconds from any start.

    Returns:
        The median over texts and exits.
    """
    exits = len(model.exit_layers)
    rule = make_criterion("confidence" if model.kind == "classification" else "patience")
    shares = []
    for warm in (False, True):
        for encoding in encodings[:TEXTS]:
            batch = {
                name: torch.as_tensor(values, device=model.device) for name, values in pad([encoding]).items()
            }
            exit_seconds, before = [], clock()
            state = model.start(batch)
            for k in range(exits):
                state = model.segment(k, state)
                reached = clock()
                logits, _ = model.head(k, state)
                rule.leaves(rule.score(Evidence(k, exits, logits.cpu().numpy()), {})[0])
                exit_seconds.append(clock() - reached)
            layers = clock() - before - sum(exit_seconds)
            if warm:
                shares += [seconds / (layers + exit_seconds[-1]) for seconds in exit_seconds]
    return float(np.median(shares))
