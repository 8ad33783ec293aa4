"""Run the model once for a trace, and measure the time of an exit itself."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from offramp._core import progress as display
from offramp._core.errors import DataError
from offramp._core.trace import Evidence, Trace
from offramp.criteria import make_criterion
from offramp.data import fingerprint, fitting_labels, require_split
from offramp.engine.batching import Encoding, check_batch_size, pad
from offramp.engine.segments import trace_segments
from offramp.inference.segments import TorchSegments
from offramp.model.base import SegmentedModel
from offramp.model.encoding import TextEncoder
from offramp.model.loading import require_model

OVERHEAD_TEXTS = 20


def trace(model: SegmentedModel, dataset: Any, *, batch_size: int = 32, progress: bool = False) -> Trace:
    """The output of every exit for every example.

    Args:
        model: a multi-exit model or a cascade, with its tokenizer.
        dataset: a `datasets.Dataset` with columns `text`, for pairs `text_pair`, and optionally `label`.
        batch_size: rows run at once, sorted by length.
        progress: show a progress bar.

    Returns:
        A `Trace` in the order of the dataset.

    Raises:
        DataError: no examples, no text column, or labels that do not fit the model.
    """
    require_model(model)
    batch_size = check_batch_size(batch_size)
    dataset = require_split(dataset)
    if not len(dataset):
        raise DataError("the dataset is empty: there is nothing to trace")
    labels = fitting_labels(dataset, model.labels, model.kind, pair=model.pair)
    encoder = TextEncoder.of(model)
    with display.progress("tokenise", show=progress):
        encodings, truncated = encoder.dataset(dataset)
    bar = partial(display.track, title="run every exit", show=progress)
    run = trace_segments(TorchSegments(model, residuals=True), encodings, encoder.pad_values, batch_size, bar)
    return replace(run, labels=labels, fingerprint=fingerprint(dataset), truncated=truncated)


@torch.inference_mode()
def exit_overhead(model: SegmentedModel, encodings: Sequence[Encoding]) -> float:
    """Time of one exit's head, decision and return to Python, as a share of the full model's, for single texts.

    Args:
        model: the model with the exits, run in torch.
        encodings: texts; the first twenty are timed twice, and the second time counts.

    Returns:
        The median over texts and exits.
    """
    exits = len(model.exit_layers)
    rule = make_criterion("confidence" if model.kind == "classification" else "patience")
    shares = []
    for warm in (False, True):
        for encoding in encodings[:OVERHEAD_TEXTS]:
            batch = {
                name: torch.as_tensor(values, device=model.device) for name, values in pad([encoding]).items()
            }
            exit_seconds, before = [], time.perf_counter()
            state = model.start(batch)
            for k in range(exits):
                state = model.segment(k, state)
                reached = time.perf_counter()
                logits, _ = model.head(k, state)
                rule.leaves(rule.score(Evidence(k, exits, logits.cpu().numpy()), {})[0], k)
                exit_seconds.append(time.perf_counter() - reached)
            layers = time.perf_counter() - before - sum(exit_seconds)
            if warm:
                shares += [seconds / (layers + exit_seconds[-1]) for seconds in exit_seconds]
    return float(np.median(shares))
