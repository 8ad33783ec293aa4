"""Run the model once, keep the trace."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from rich.console import Console
from rich.progress import track

from offramp._core.errors import DataError
from offramp._core.trace import Trace
from offramp.data import fingerprint, fitting_labels
from offramp.engine.tracing import trace_segments
from offramp.inference.segments import TorchSegments
from offramp.model.base import SegmentedModel
from offramp.model.encoding import TextEncoder


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
    if not len(dataset):
        raise DataError("the dataset is empty: there is nothing to trace")
    encoder = TextEncoder.of(model)
    encodings, truncated = encoder.dataset(dataset)
    labels = fitting_labels(dataset, model.labels, model.kind)
    console = Console(stderr=True)  # stdout is for results
    bar = partial(
        track,
        description="trace",
        disable=not (progress and console.is_terminal),
        transient=True,
        console=console,
    )
    run = trace_segments(TorchSegments(model), encodings, encoder.pad_values, batch_size, bar)
    return replace(run, labels=labels, fingerprint=fingerprint(dataset), truncated=truncated)
