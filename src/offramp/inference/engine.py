"""The adaptive classifier that a program calls: texts in, answers out."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from offramp._core.arguments import choice, flag
from offramp._core.errors import ConfigError, CriterionError, ModelError
from offramp._core.paths import UserPath, user_path
from offramp._core.tables import read_rows
from offramp._core.text import check_pairs, read_texts
from offramp.engine.batching import Encoding, check_batch_size, token_counts, windows
from offramp.engine.compaction import CompactingEngine
from offramp.engine.manifest import FILE_NAME
from offramp.engine.onnx import OnnxSegments, thread_count
from offramp.engine.onnx_engine import onnx_engine, stored_times
from offramp.engine.policy import Decisions, Policy, read_policy
from offramp.engine.pools import PoolingEngine
from offramp.engine.segment_times import SegmentTimes, measure_segments
from offramp.engine.segments import Encoder, Segments

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
    """Runs a model with early exits: finished rows leave the batch.

    Args:
        model: a trained model, the folder of one, or a folder that `offramp export` wrote, which needs no torch.
        policy: when to leave: a `Policy`, or a file that `offramp tune` wrote. By default the policy that is saved
            with the model.
        backend: `torch`, or `onnx` for an exported folder; by default the backend of the model or folder.
            `torch-compiled` compiles the model's layers at the first batch, which takes half a minute and a C++
            compiler.
        batch_size: rows run at once; exits and labels do not depend on it.
        threads: CPU threads of an exported folder; by default as many as the process may use. Each thread runs its own
            batches; a single text uses all threads, if it is long enough to repay that.
        device: where a folder is run: of the `onnx` backend `cpu` or `cuda`, else a device name of torch. A torch
            model stays on its device.
        pools: join rows of several batches at every depth of a stream, if the times measured on this machine show
            that this saves time.

    Raises:
        ModelError: no such model, or a folder that is damaged or for another backend.
        CriterionError: the policy was made for another model.
        ConfigError: an unknown backend or device, or no policy.
    """

    segments: Segments[Any]  # the model, cut at its exits
    encoder: Encoder  # turns texts into token ids
    labels: tuple[str, ...]  # class names; empty for regression
    pair: bool | None  # whether the model was trained on pairs of texts; None if unknown
    compacting: CompactingEngine[Any]  # works on token ids

    def __init__(
        self,
        model: SegmentedModel | UserPath,
        policy: Policy | UserPath | None = None,
        *,
        backend: str | None = None,
        batch_size: int = 32,
        threads: int | None = None,
        device: str = "cpu",
        pools: bool = False,
    ) -> None:
        backend = _choose_backend(model, backend)
        policy = read_policy(policy)
        batch_size, pools = check_batch_size(batch_size), flag("pools", pools)
        thread_count(threads)
        if backend == "onnx":
            if not isinstance(model, str | PathLike):
                raise ConfigError(
                    "backend 'onnx' runs an exported folder: make one with 'offramp export' and give its path"
                )
            self._open_exported(model, policy, batch_size, threads, device, pools)
        else:
            loaded = _open_torch(model, device, with_policy=policy is None)
            from offramp.inference.segments import TorchSegments
            from offramp.model.encoding import TextEncoder

            policy = policy or loaded.policy
            if policy is None:
                raise ConfigError("the engine needs a policy: tune one with offramp.tune or 'offramp tune'")
            self.segments = TorchSegments(
                loaded, compiled=backend == "torch-compiled", residuals=policy.criterion.needs_residual
            )
            self.encoder, self.labels, self.pair = TextEncoder.of(loaded), loaded.labels, loaded.pair
            self._compact(policy, batch_size, pools)

    def _open_exported(
        self,
        folder: UserPath,
        policy: Policy | None,
        batch_size: int,
        threads: int | None,
        device: str,
        pools: bool,
    ) -> None:
        """Open an exported folder; imports no torch."""
        on_cpu = device == "cpu"
        # The fused graph has the rule of the exported policy; another policy may have another rule.
        fused = on_cpu and policy is None and not pools
        segments = OnnxSegments(
            folder,
            threads=1 if on_cpu else threads,
            device=device,
            fused_threads=thread_count(threads) if fused else None,
        )
        chosen = policy or segments.policy()
        if chosen.criterion.needs_residual and not segments.residuals:
            raise CriterionError(
                f"{chosen.criterion.name!r} needs the residuals of the exits, and {folder} was exported without them: "
                "export the model with this policy"
            )
        self.segments, self.encoder = segments, segments.encoder()
        self.labels, self.pair = segments.labels, segments.manifest.pair
        if not on_cpu:
            self._compact(chosen, batch_size, pools)
        elif pools:
            self._compact(chosen, batch_size, pools, stored_times(segments), workers=thread_count(threads))
        else:
            chosen.check(segments.exit_layers, segments.kind, segments.gates, len(segments.labels) or 1)
            self.compacting = onnx_engine(segments, chosen, threads=threads, batch_size=batch_size)

    def _compact(
        self,
        policy: Policy,
        batch_size: int,
        pools: bool,
        times: SegmentTimes | None = None,
        workers: int = 1,
    ) -> None:
        """Run the segments without a fused graph; with pools, by given or measured times."""
        segments, pad_values = self.segments, self.encoder.pad_values
        policy.check(segments.exit_layers, segments.kind, segments.gates, len(self.labels) or 1)
        if not pools:
            self.compacting = CompactingEngine(
                self.segments, policy, batch_size=batch_size, pad_values=pad_values
            )
            return
        if times is None:
            example = self.encoder(["word " * 9])[0]
            times = measure_segments(self.segments, example, threads=1, longest=self.encoder.max_length)
        self.compacting = PoolingEngine(
            self.segments, policy, times, batch_size=batch_size, pad_values=pad_values, workers=workers
        )

    def decide(self, texts: Any, pairs: Iterable[str] | None = None) -> Decisions:
        """Decisions in arrays, in the order of the texts; arguments as in `predict`."""
        return self.compacting.run(self.encode(*read_texts(texts, pairs)))

    @overload
    def predict(self, texts: str, pairs: str | None = None) -> Prediction: ...

    @overload
    def predict(self, texts: Any, pairs: Iterable[str] | None = None) -> list[Prediction]: ...

    def predict(self, texts: Any, pairs: Any = None) -> Prediction | list[Prediction]:
        """Answer one text or many.

        Args:
            texts: one string; or many texts: strings, pairs of strings, or rows with the columns `text` and, for
                pairs, `text_pair`: dicts, a dict of columns, a `datasets.Dataset`, a data frame or an Arrow table.
            pairs: second texts, if `texts` holds only the first ones; one string for one string.

        Returns:
            One `Prediction` for one string; else a list, in order.

        Raises:
            DataError: rows without these columns, mixed forms, or a wrong number of second texts.
        """
        if isinstance(texts, str):
            return self._answer(*read_texts([texts], None if pairs is None else [pairs]))[0]
        return self._answer(*read_texts(texts, pairs))

    def stream(self, texts: Any) -> Iterator[Prediction]:
        """Answer any number of texts in bounded memory.

        Args:
            texts: many texts, as in `predict`. They are read when needed, some batches at a time, and sorted by length
                within each such window.

        Returns:
            An iterator over one `Prediction` for each, in order.

        Raises:
            DataError: rows that `predict` refuses; all answers before them are yielded first.
        """
        rows = read_rows(texts)  # at once, so that a wrong argument fails here
        size = self.compacting.window * self.compacting.batch_size
        return (answer for window in windows(rows, size) for answer in self._answer(*read_texts(window)))

    def encode(self, texts: list[str], pairs: list[str] | None = None) -> list[dict[str, list[int]]]:
        """Token ids without padding; `DataError` for single texts where the model needs pairs, or the reverse."""
        if texts:
            check_pairs(pairs is not None, self.pair, "the input")
        return self.encoder(texts, pairs)

    def _answer(self, texts: list[str], pairs: list[str] | None) -> list[Prediction]:
        encodings = self.encode(texts, pairs)
        decisions = self.compacting.run(encodings)
        return self.predictions(decisions, self.flops_full(encodings))

    def flops_full(self, encodings: Sequence[Encoding]) -> NDArray[np.float64]:
        """FLOPs of the full model for each text `(examples,)`."""
        return self.segments.flops(token_counts(encodings))[1] if encodings else np.zeros(0)

    def predictions(self, decisions: Decisions, flops_full: NDArray[np.float64]) -> list[Prediction]:
        """Decisions as answers, given the FLOPs of the full model for each text `(examples,)`."""
        return [
            Prediction(
                label=self.labels[int(answer)] if self.labels else float(answer),
                probability=float(probability) if self.labels else None,
                exit_layer=int(layer),
                cost=float(cost),
            )
            for answer, probability, layer, cost in zip(
                decisions.prediction,
                decisions.probability,
                decisions.layer,
                decisions.flops / flops_full,
                strict=True,
            )
        ]


def _choose_backend(model: SegmentedModel | UserPath, name: str | None) -> str:
    """The requested backend, by default that of the model or folder."""
    if name is None:
        exported = isinstance(model, str | PathLike) and (user_path(model) / FILE_NAME).is_file()
        return "onnx" if exported else "torch"
    return choice("backend", name, BACKENDS)


def _open_torch(model: SegmentedModel | UserPath, device: str, *, with_policy: bool) -> SegmentedModel:
    """A torch model; a model read from a folder has its policy, if one is asked for, and is put on the device."""
    if importlib.util.find_spec("torch") is None:
        raise ModelError(
            f"{model} is not an exported folder, and a trained model needs torch, which is not installed: give the "
            "folder that 'offramp export' wrote, or pip install 'offramp[torch]'"
        )
    from offramp.inference.loading import load_model
    from offramp.model import read_model, require_model

    if isinstance(model, str | PathLike):
        read = load_model if with_policy else read_model
        return read(model, device=device)
    if device != "cpu":
        raise ConfigError(
            f"device={device!r} is for a folder, and a torch model stays where it is: call model.to({device!r}) first"
        )
    return require_model(model)
