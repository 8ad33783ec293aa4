"""Run the model once, keep the trace."""

from __future__ import annotations

from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from offramp._core.errors import DataError
from offramp._core.trace import Trace
from offramp.data import fingerprint, fitting_labels
from offramp.engine.batching import batches
from offramp.inference.segments import TorchSegments
from offramp.model.base import SegmentedModel
from offramp.model.encoding import TextEncoder


def trace(model: SegmentedModel, dataset: Any, *, batch_size: int = 32, progress: bool = False) -> Trace:
    """What every exit says about every example.

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
    if not len(dataset):
        raise DataError("the dataset is empty: there is nothing to trace")
    encoder = TextEncoder.of(model)
    encodings, truncated = encoder.dataset(dataset)
    labels = fitting_labels(dataset, model.labels, model.kind)
    segments = TorchSegments(model)
    exits = len(model.exit_layers)
    classes = 1 if model.kind == "regression" else len(model.labels)
    logits = np.empty((len(encodings), exits, classes), dtype=np.float32)
    gates = np.empty((len(encodings), exits), dtype=np.float32) if model.gates else None
    jobs = list(batches(encodings, batch_size, encoder.pad_values, alike=model.reads_padding))
    console = Console(stderr=True)  # stdout is for results
    hidden = not (progress and console.is_terminal)
    for rows, batch in track(jobs, "trace", disable=hidden, transient=True, console=console):
        state = segments.start(batch)
        for k in range(exits):
            state, evidence = segments.run(k, state)
            logits[rows, k] = evidence.logits
            if gates is not None:
                gates[rows, k] = evidence.gate
    flops, full_flops = model.flops(np.array([len(e["input_ids"]) for e in encodings]))
    return Trace(
        logits=logits,
        exit_layers=model.exit_layers,
        flops=flops,
        full_flops=full_flops,
        labels=labels,
        gates=gates,
        kind=model.kind,
        fingerprint=fingerprint(dataset),
        truncated=truncated,
    )
