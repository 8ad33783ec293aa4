"""Texts in, answers out: the adaptive classifier that a program calls."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from offramp._core.environment import usable_cores
from offramp._core.errors import ConfigError, DataError, ModelError, unknown_name
from offramp._core.text import text_columns
from offramp.engine.batching import Encoding, windows
from offramp.engine.compaction import CompactingEngine
from offramp.engine.manifest import FILE_NAME
from offramp.engine.policy import Decisions, Policy
from offramp.engine.pools import PoolingEngine
from offramp.engine.segment_times import SegmentTimes, measure_segments
from offramp.engine.segments import Segments

if TYPE_CHECKING:
    from offramp.model.base import SegmentedModel

BACKENDS = ("torch", "torch-compiled", "onnx")


@dataclass(frozen=True)
class Prediction:
    """One answer.

    Attributes:
        label: class name, or the predicted value for regression.
        probability: calibrated probability of the label; None for regression.
        exit_layer: layer after which the text left, counted from 1.
        cost: FLOPs spent as a share of the full model's.
    """

    label: str | float
    probability: float | None
    exit_layer: int
    cost: float


class Engine:
    """Runs a model with early exits: rows that are done leave the batch.

    Args:
        model: a trained model, the folder of one, or a folder that `offramp export` wrote, which needs no torch.
        policy: when to leave; a `Policy` or a file that `tune` wrote. None takes the one in an exported folder.
        backend: `torch`, or `onnx` for an exported folder; by default what the model is made for. `torch-compiled` lets
            torch compile the model's layers at the first batch, which takes half a minute and a C++ compiler.
        batch_size: rows run at once; exits and labels do not depend on it.
        threads: CPU threads of an exported folder; by default as many as the process may use. Each runs batches of its
            own; a text that comes alone has them all.
        device: of the `onnx` backend, `cpu` or `cuda`; a torch model runs where it lies.
        pools: let rows of several batches wait for each other at every depth of a stream, where the times measured on
            this machine say that it pays.

    Raises:
        ModelError: no such model, or a folder that is damaged or made for another backend.
        CriterionError: the policy was made for another model.
        ConfigError: an unknown backend or device, or no policy.
    """

    def __init__(
        self,
        model: SegmentedModel | str | Path,
        policy: Policy | str | Path | None = None,
        *,
        backend: str | None = None,
        batch_size: int = 32,
        threads: int | None = None,
        device: str = "cpu",
        pools: bool = False,
    ) -> None:
        backend = _backend(model, backend)
        on_cpu = backend == "onnx" and device == "cpu"
        self.segments: Any
        self.encoder: Any
        if backend != "onnx":
            compiled = backend == "torch-compiled"
            self.segments, self.encoder, self.labels = _torch_parts(model, compiled)
        else:
            options = {"threads": 1 if on_cpu else threads, "device": device}
            # A policy of one's own may be for another rule than the single graph's.
            alone = on_cpu and policy is None and not pools
            self.segments, self.encoder, self.labels, exported = _onnx_parts(
                model, options, policy is None, threads if alone else 0
            )
            policy = exported if policy is None else policy
        if policy is None:
            raise ConfigError("the engine needs a policy: tune one with offramp.tune or 'offramp tune'")
        if not isinstance(policy, Policy):
            policy = Policy.load(policy)
        parts: dict[str, Any] = {"batch_size": batch_size, "pad_values": self.encoder.pad_values}
        self.compacting: CompactingEngine[Any]
        if on_cpu:
            from offramp.engine.onnx_engine import onnx_engine

            self.compacting = onnx_engine(self.segments, policy, threads=threads, pools=pools, **parts)
        elif pools:
            times = _times(self.segments, self.encoder)
            self.compacting = PoolingEngine(self.segments, policy, times, **parts)
        else:
            self.compacting = CompactingEngine(self.segments, policy, **parts)

    def decide(self, texts: Iterable[str], pairs: Iterable[str] | None = None) -> Decisions:
        """Decisions in arrays, in the order of the texts."""
        return self.compacting.run(self.encoder(texts, pairs))

    def predict(self, texts: Iterable[str], pairs: Iterable[str] | None = None) -> list[Prediction]:
        """One `Prediction` for each text, in order."""
        encodings = self.encoder(texts, pairs)
        return self._predictions(encodings, self.compacting.run(encodings))

    def stream(self, texts: Iterable[str] | Iterable[tuple[str, str]]) -> Iterator[Prediction]:
        """Answer any number of texts, or of pairs of texts, in bounded memory.

        Args:
            texts: read as needed, some batches at a time, and sorted by length within such a window.

        Yields:
            One `Prediction` for each, in order.

        Raises:
            DataError: what is read is neither texts nor pairs of texts; answers before it have been given.
        """
        if isinstance(texts, str) or not isinstance(texts, Iterable):
            raise DataError(f"expected texts, or pairs of texts, got {texts!r:.80}: put them in a list")
        for window in windows(texts, self.compacting.window * self.compacting.batch_size):
            encodings = self.encoder(*text_columns(window))
            yield from self._predictions(encodings, self.compacting.run(encodings))

    def _predictions(self, encodings: Sequence[Encoding], decisions: Decisions) -> list[Prediction]:
        """Decisions as a caller reads them."""
        lengths = np.array([len(e["input_ids"]) for e in encodings], dtype=np.int64)
        full = self.segments.costs(lengths)[1]
        return [
            Prediction(
                label=self.labels[int(answer)] if self.labels else float(answer),
                probability=float(probability) if self.labels else None,
                exit_layer=int(layer),
                cost=float(cost / whole),
            )
            for answer, probability, layer, cost, whole in zip(
                decisions.prediction,
                decisions.probability,
                decisions.layer,
                decisions.cost,
                full,
                strict=True,
            )
        ]


def _backend(model: SegmentedModel | str | Path, name: str | None) -> str:
    """The backend asked for, by default what the model is made for."""
    if name is None:
        exported = isinstance(model, str | Path) and (Path(model) / FILE_NAME).is_file()
        return "onnx" if exported else "torch"
    if name not in BACKENDS:
        raise ConfigError(unknown_name("backend", name, BACKENDS))
    return name


def _times(segments: Segments[Any], encoder: Any) -> SegmentTimes:
    """Times of segments that choose their threads themselves."""
    example = encoder(["word " * 9], None)[0]
    return measure_segments(segments, example, threads=usable_cores(), longest=encoder.max_length)


def _torch_parts(
    model: SegmentedModel | str | Path, compiled: bool
) -> tuple[Segments[Any], Any, tuple[str, ...]]:
    """Segments, encoder and labels of a torch model."""
    if importlib.util.find_spec("torch") is None:
        raise ModelError(
            f"{model} is no exported folder, and a trained model needs torch, which is not installed: give the folder "
            "that 'offramp export' wrote, or pip install 'offramp[torch]'"
        )
    from offramp.inference.segments import TorchSegments
    from offramp.model import read_model
    from offramp.model.encoding import TextEncoder

    loaded = read_model(model) if isinstance(model, str | Path) else model
    return TorchSegments(loaded, compiled=compiled), TextEncoder.of(loaded), loaded.labels


def _onnx_parts(
    model: SegmentedModel | str | Path, options: dict[str, Any], with_policy: bool, alone: int | None
) -> tuple[Segments[Any], Any, tuple[str, ...], Policy | None]:
    """Segments, encoder, labels and, where asked for, the policy of an exported folder; imports no torch.

    `alone` are the threads of the single graph, by default as many as the process may use; 0 leaves it closed.
    """
    from offramp.engine.onnx import OnnxSegments, thread_count

    if not isinstance(model, str | Path):
        raise ConfigError(
            "backend 'onnx' runs an exported folder: make one with 'offramp export', and give its path"
        )
    segments = OnnxSegments(model, **options, single=None if alone == 0 else thread_count(alone))
    policy = segments.policy() if with_policy else None
    return segments, segments.encoder(), segments.labels, policy
