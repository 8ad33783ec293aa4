"""Victims with a hidden inside: a function, an engine, and a victim with a surrogate."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from os import PathLike
from typing import Any

import numpy as np

from offramp._core.errors import ConfigError, DataError
from offramp._core.numbers import is_number
from offramp._core.paths import UserPath, user_path
from offramp._core.trace import Kind
from offramp.attacks.examples import texts_fingerprint
from offramp.attacks.text.attacked_text import AttackedText
from offramp.attacks.victims.base import Answer, Key, OpenVictim, TokenizedText, Victim, segment_columns
from offramp.attacks.victims.ranking import Ranking
from offramp.attacks.victims.white_box import (
    WhiteBoxVictim,
    describe_policy,
    time_engine,
    weights_fingerprint,
)
from offramp.engine.manifest import FILE_NAME
from offramp.engine.onnx import OnnxSegments
from offramp.engine.policy import Policy, read_policy
from offramp.inference.engine import Engine
from offramp.inference.loading import load_model
from offramp.inference.segments import TorchSegments
from offramp.model import require_model
from offramp.model.base import SegmentedModel

# text(, text_pair) -> prediction, exit layer or seconds
Oracle = Callable[..., tuple[int | float, int | float]]


class BlackBox(Victim):
    """A victim that shows exit layers, or only times, and no gradients."""

    probabilities = False

    @property
    def white_box(self) -> OpenVictim:
        raise ConfigError(
            "this recipe takes gradients or words from inside the model, but the victim is a black box: use "
            "'slowbert', 'slowbert-time' or 'random-char', or give a surrogate model with GreyBox"
        )

    def inspect(self, texts: Sequence[AttackedText]) -> list[TokenizedText]:
        """Every word counts as read, since truncation is unknown from outside."""
        return [TokenizedText(text, [], [(word,) for word in range(text.num_words)]) for text in texts]


class FunctionVictim(BlackBox):
    """A plain function of a text.

    Args:
        function: takes `text` or `text, text_pair`, and returns (prediction, exit layer), or without `exit_layers`
            (prediction, seconds).
        exit_layers: its exit layers, counted from 1; None if it reports seconds.
        kind: `classification` for class indices, `regression` for values.
        max_forward: see `Victim`.

    Raises:
        DataError: an answer is not a prediction with an exit layer, or with seconds.
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

    def run(self, segments: Sequence[Key]) -> list[Answer]:
        return [self._answer(key) for key in segments]

    def _answer(self, segments: Key) -> Answer:
        prediction, effort = self._ask(segments)
        if self.exit_layers is None:
            return Answer(np.empty((0, 0), np.float32), -1, 0, prediction, float(effort), float("nan"))
        if effort not in self.exit_layers:
            raise DataError(
                f"expected one of the exit layers {list(self.exit_layers)} from the function, got {effort!r}: "
                "leave exit_layers out if it reports seconds"
            )
        exit, layer = self.exit_layers.index(int(effort)), int(effort)
        no_logits = np.empty((len(self.exit_layers), 0), np.float32)
        return Answer(no_logits, exit, layer, prediction, float(layer), float(self.exit_layers[-1]))

    def _ask(self, segments: Key) -> tuple[int | float, int | float]:
        """The function's answer, or a `DataError` if it is not a pair of numbers."""
        pair = self.function(*segments)
        if not isinstance(pair, tuple | list) or len(pair) != 2 or not all(map(is_number, pair)):
            second = "seconds" if self.exit_layers is None else "exit layer"
            raise DataError(
                f"expected a pair of numbers from the function (class index or value, {second}), got {pair!r:.80}"
            )
        return pair[0], pair[1]

    def describe(self) -> dict[str, Any]:
        name = getattr(self.function, "__qualname__", type(self.function).__name__)
        return {"policy": None, "weights": None, "function": name, "exit_layers": self.exit_layers}

    def stopwatch(self, segments: Key) -> float:
        """The seconds that the function reports; if it reports layers, the seconds that it takes."""
        if self.exit_layers is None:
            return float(self._ask(segments)[1])
        started = time.perf_counter()
        self.function(*segments)
        return time.perf_counter() - started


class EngineVictim(BlackBox):
    """A deployed engine: labels and exit layers, no probabilities."""

    def __init__(self, engine: Engine, *, max_forward: int | None = None) -> None:
        super().__init__(max_forward)
        self.engine: Engine = engine
        segments = engine.segments
        self.model = segments.model if isinstance(segments, TorchSegments) else None
        self.kind, self.labels, self.pair = segments.kind, tuple(engine.labels), engine.pair
        self.policy = engine.compacting.policy

    def run(self, segments: Sequence[Key]) -> list[Answer]:
        if not segments:
            return []
        encodings = self.engine.encoder(*segment_columns(segments))
        decisions = self.engine.compacting.run(encodings)
        full = self.engine.segments.flops(np.array([len(e["input_ids"]) for e in encodings]))[1]
        no_logits = np.empty((len(self.engine.segments.exit_layers), 0), np.float32)
        columns = zip(
            decisions.exit, decisions.layer, decisions.prediction, decisions.flops, full, strict=True
        )
        return [Answer(no_logits, int(e), int(n), p.item(), float(c), float(f)) for e, n, p, c, f in columns]

    def describe(self) -> dict[str, Any]:
        weights: str | None = None
        if self.model is not None:
            weights = weights_fingerprint(self.model)
        elif isinstance(self.engine.segments, OnnxSegments):
            weights = texts_fingerprint(enumerate(sorted(self.engine.segments.manifest.files.items())))
        length = self.engine.encoder.max_length
        return {"policy": describe_policy(self.policy), "weights": weights, "max_length": length}

    def stopwatch(self, segments: Key) -> float:
        return time_engine(self.engine, segments)


class GreyBox(Victim):
    """A victim that is attacked with the gradients and words of another model.

    Texts are run on the victim. A recipe that needs the inside of a model uses the surrogate's.

    Args:
        target: the victim: a `WhiteBoxVictim`, `EngineVictim` or `FunctionVictim`.
        surrogate: the model that the attacker has.
    """

    def __init__(self, target: Victim, surrogate: WhiteBoxVictim) -> None:
        if target.kind != surrogate.kind:
            raise ConfigError(
                f"the surrogate is for {surrogate.kind}, the victim for {target.kind}: use another surrogate"
            )
        if None not in (target.labels, surrogate.labels) and target.labels != surrogate.labels:
            raise ConfigError(
                f"the surrogate has the labels {surrogate.labels}, the victim {target.labels}: use a "
                "surrogate with the victim's labels in the same order"
            )
        super().__init__(target.max_forward, target.max_gradient)
        self.target, self.surrogate = target, surrogate
        self.kind, self.labels, self.model = target.kind, target.labels, target.model
        self.pair = target.pair
        self.layers, self.probabilities = target.layers, target.probabilities

    @property
    def white_box(self) -> OpenVictim:
        return self.surrogate

    def inspect(self, texts: Sequence[AttackedText]) -> list[TokenizedText]:
        return self.surrogate.inspect(texts)

    def run(self, segments: Sequence[Key]) -> list[Answer]:
        return self.target.run(segments)

    def run_ranked(self, segments: Sequence[Key], rankings: Sequence[Ranking]) -> list[Answer | None]:
        return self.target.run_ranked(segments, rankings)

    def describe(self) -> dict[str, Any]:
        described = self.surrogate.describe()
        own = {"surrogate": described["weights"], "surrogate_length": described["max_length"]}
        return {**self.target.describe(), **own}

    def stopwatch(self, segments: Key) -> float:
        return self.target.stopwatch(segments)


def as_victim(
    target: SegmentedModel | Engine | Victim | UserPath,
    policy: Policy | None = None,
    batch_size: int = 64,
    *,
    inside: bool = False,
) -> Victim:
    """Return the victim behind a target.

    Args:
        target: a victim, an engine or an exported folder (a black box), or a model or its folder (a white box).
        policy: of a model or an exported folder; None for the target's own policy.
        batch_size: texts that a model runs at once.
        inside: whether the attack needs the inside of a model. An engine on a torch model then opens it.

    Raises:
        ConfigError: a model without a policy, or a policy for an engine or a victim, which have their own.
        ModelError: a folder that holds no model.
    """
    if isinstance(target, str | PathLike):
        if (user_path(target) / FILE_NAME).is_file():
            return EngineVictim(Engine(target, policy))
        target = load_model(target, device="auto")
    if not isinstance(target, Victim | Engine):
        policy = read_policy(policy) or require_model(target).policy
        if policy is None:
            raise ConfigError("a model is attacked under a policy, got None: tune one, or give an Engine")
        return WhiteBoxVictim(target, policy, batch_size=batch_size)
    if policy is not None:
        raise ConfigError("an engine or a victim has its own policy: leave policy out")
    if isinstance(target, Victim):
        return target
    victim = EngineVictim(target)
    if not inside or victim.model is None:
        return victim
    return GreyBox(victim, WhiteBoxVictim(victim.model, victim.policy, batch_size=batch_size))
