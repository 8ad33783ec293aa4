"""Victims whose inside the attacker does not see: a function, a saved engine, and one with a surrogate."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from offramp._core.errors import ConfigError, DataError
from offramp._core.numbers import is_number
from offramp._core.trace import Kind
from offramp.attacks.text.attacked_text import AttackedText
from offramp.attacks.victims.answers import Answer, Key, TokenizedText
from offramp.attacks.victims.base import Victim, columns
from offramp.attacks.victims.fingerprints import describe_policy, texts_fingerprint, weights_fingerprint
from offramp.attacks.victims.white_box import WhiteBoxVictim, clocked
from offramp.engine.onnx import OnnxSegments
from offramp.engine.policy import Policy
from offramp.inference.engine import Engine
from offramp.inference.segments import TorchSegments
from offramp.model.base import SegmentedModel

Oracle = Callable[
    ..., tuple[int | float, int | float]
]  # text(, text_pair) -> prediction, exit layer or seconds


class BlackBox(Victim):
    """A victim that shows where texts leave, or only how long they take, and no gradients."""

    probabilities = False

    @property
    def white_box(self) -> WhiteBoxVictim:
        """There is none."""
        raise ConfigError(
            "this recipe takes gradients or words from inside the model, but the victim is a black box: use "
            "'slowbert', 'slowbert-time' or 'random-char', or give a surrogate model with GreyBox"
        )

    def inspect(self, texts: Sequence[AttackedText]) -> list[TokenizedText]:
        """Every word counts as read: what is cut away is not known from outside."""
        return [TokenizedText(text, [], [(word,) for word in range(text.num_words)]) for text in texts]


class FunctionVictim(BlackBox):
    """A plain function of a text.

    Args:
        function: `text` or `text, text_pair` to (prediction, exit layer), or with no `exit_layers` to
            (prediction, seconds).
        exit_layers: the layers it can leave at, counted from 1; None where it tells seconds.
        kind: what it predicts: a class index, or a value.
        max_forward: most texts that may be run for one example; None for no limit.

    Raises:
        DataError: at the first answer that is no prediction with one of the exit layers, or with seconds.
    """

    def __init__(
        self,
        function: Oracle,
        exit_layers: Sequence[int] | None = None,
        *,
        kind: Kind = "classification",
        max_forward: int | None = None,
    ) -> None:
        super().__init__(max_forward)
        self.function, self.kind = function, kind
        self.exit_layers = None if exit_layers is None else tuple(exit_layers)
        self.layers = exit_layers is not None

    def _run(self, segments: Sequence[Key]) -> list[Answer]:
        return [self._answer(key) for key in segments]

    def _answer(self, segments: Key) -> Answer:
        prediction, told = self._ask(segments)
        if self.exit_layers is None:
            return Answer(np.empty((0, 0), np.float32), -1, 0, prediction, float(told), float("nan"))
        if told not in self.exit_layers:
            raise DataError(
                f"expected one of the exit layers {list(self.exit_layers)} from the function, got {told!r}: "
                "leave exit_layers out where it tells seconds"
            )
        exit, nothing = self.exit_layers.index(int(told)), np.empty((len(self.exit_layers), 0), np.float32)
        depth = float(self.exit_layers[-1])
        return Answer(nothing, exit, int(told), prediction, float(told), depth)  # cost in layers

    def _ask(self, segments: Key) -> tuple[int | float, int | float]:
        """What the function says, or a `DataError` where that is no pair of numbers."""
        told = self.function(*segments)
        if not isinstance(told, tuple | list) or len(told) != 2 or not all(map(is_number, told)):
            second = "seconds" if self.exit_layers is None else "exit layer"
            raise DataError(
                f"expected a pair of numbers from the function (class index or value, {second}), got {told!r:.80}"
            )
        return told[0], told[1]

    def describe(self) -> dict[str, Any]:
        """Its name: what it does is not known."""
        name = getattr(self.function, "__qualname__", type(self.function).__name__)
        return {"policy": None, "weights": None, "function": name, "exit_layers": self.exit_layers}

    def stopwatch(self, segments: Key) -> float:
        """The seconds that it tells; where it tells layers, the seconds it takes."""
        if self.exit_layers is None:
            return float(self._ask(segments)[1])
        started = time.perf_counter()
        self.function(*segments)
        return time.perf_counter() - started


class EngineVictim(BlackBox):
    """A deployed engine: labels and exit layers, no probabilities.

    Args:
        engine: with its model and policy.
        max_forward: most texts that may be run for one example; None for no limit.
    """

    def __init__(self, engine: Engine, *, max_forward: int | None = None) -> None:
        super().__init__(max_forward)
        self.engine = engine
        segments = engine.segments
        self.model = segments.model if isinstance(segments, TorchSegments) else None
        self.kind, self.policy = segments.kind, engine.compacting.policy

    def _run(self, segments: Sequence[Key]) -> list[Answer]:
        if not segments:
            return []
        encodings = self.engine.encoder(*columns(segments))
        decisions = self.engine.compacting.run(encodings)
        full = self.engine.segments.flops(np.array([len(e["input_ids"]) for e in encodings]))[1]
        nothing = np.empty((len(self.engine.segments.exit_layers), 0), np.float32)
        named = zip(decisions.exit, decisions.layer, decisions.prediction, decisions.flops, full, strict=True)
        return [Answer(nothing, int(e), int(n), p.item(), float(c), float(f)) for e, n, p, c, f in named]

    def describe(self) -> dict[str, Any]:
        """Policy, and fingerprint of the weights or, of an exported model, of its files."""
        if self.model is not None:
            weights: str | None = weights_fingerprint(self.model)
        elif isinstance(self.engine.segments, OnnxSegments):
            weights = texts_fingerprint(enumerate(sorted(self.engine.segments.manifest.files.items())))
        else:
            weights = None
        length = self.engine.encoder.max_length
        return {"policy": describe_policy(self.policy), "weights": weights, "max_length": length}

    def stopwatch(self, segments: Key) -> float:
        """Seconds of the engine for one text alone."""
        return clocked(self.engine, segments)


class GreyBox(Victim):
    """A victim attacked with gradients and words of another model.

    Texts are run on the victim; what a recipe looks for inside a model, it finds in the surrogate.

    Args:
        target: the victim: a `WhiteBoxVictim`, `EngineVictim` or `FunctionVictim`.
        surrogate: the model that the attacker has.
    """

    def __init__(self, target: Victim, surrogate: WhiteBoxVictim) -> None:
        if target.kind != surrogate.kind:
            raise ConfigError(
                f"the surrogate is for {surrogate.kind}, the victim for {target.kind}: take another"
            )
        super().__init__(target.max_forward, target.max_gradient)
        self.target, self.surrogate = target, surrogate
        self.model = target.model
        self.layers = target.layers
        self.kind, self.probabilities = target.kind, target.probabilities

    @property
    def white_box(self) -> WhiteBoxVictim:
        """The surrogate."""
        return self.surrogate

    def inspect(self, texts: Sequence[AttackedText]) -> list[TokenizedText]:
        """As the surrogate reads them."""
        return self.surrogate.inspect(texts)

    def _run(self, segments: Sequence[Key]) -> list[Answer]:
        return self.target._run(segments)

    def describe(self) -> dict[str, Any]:
        """Of the victim, and the surrogate's weights and maximum length."""
        inside = self.surrogate.describe()
        told = {"surrogate": inside["weights"], "surrogate_length": inside["max_length"]}
        return {**self.target.describe(), **told}

    def stopwatch(self, segments: Key) -> float:
        """Of the victim."""
        return self.target.stopwatch(segments)


def as_victim(model: SegmentedModel | Engine | Victim, policy: Policy | None, batch_size: int = 64) -> Victim:
    """The victim: as it is, a deployed engine as a black box, or a model under its policy as a white box."""
    if isinstance(model, Victim):
        return model
    if isinstance(model, Engine):
        return EngineVictim(model)
    if policy is None:
        raise ConfigError("a model is attacked under a policy, got None: tune one, or give an Engine")
    return WhiteBoxVictim(model, policy, batch_size=batch_size)
