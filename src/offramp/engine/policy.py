"""A policy: criterion, threshold and temperatures, and the origin of their fit. One small JSON file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offramp._core.arguments import flag, sequence, set_fields, whole
from offramp._core.damaged_files import file_problem
from offramp._core.errors import ConfigError, CriterionError, DataError
from offramp._core.numbers import is_number, softmax
from offramp._core.paths import UserPath, user_path
from offramp._core.records import write_text
from offramp._core.to_json import to_json
from offramp._core.trace import Evidence, Kind, Trace, divide_logits
from offramp.criteria import Criterion, Memory, first_exit, make_criterion, scores


@dataclass(frozen=True)
class Decisions:
    """The exit and the answer of each example. All arrays but the logits are `(examples,)`.

    Attributes:
        exit: exit index, 0-based.
        layer: exit layer, counted from 1.
        prediction: class index, or value for regression.
        probability: calibrated probability of the prediction; NaN for regression.
        score: the criterion's score at the exit taken.
        flops: FLOPs spent.
        answer_exit: exit index, 0-based, of the answer: an earlier exit than `exit` where the policy recalls it.
        logits: of the answer, not yet divided by the temperature of its exit `(examples, classes)`.
    """

    exit: NDArray[np.intp]
    layer: NDArray[np.int64]
    prediction: NDArray[np.generic]
    probability: NDArray[np.float64]
    score: NDArray[np.float64]
    flops: NDArray[np.float64]
    answer_exit: NDArray[np.intp]
    logits: NDArray[np.floating]

    def __len__(self) -> int:
        return len(self.exit)

    def rows(self, chosen: slice | NDArray[np.intp]) -> Decisions:
        """The decisions on some examples."""
        return Decisions(*(values[chosen] for values in vars(self).values()))


@dataclass(frozen=True)
class Policy:
    """When to leave, for one model.

    Args:
        criterion: the exit rule with its thresholds.
        exit_layers: the exit layers of its model.
        temperatures: one per exit; None means 1 everywhere.
        calibrated_on: fingerprint of the calibration data, or "".
        target: the target of the tuning, and the result on the calibration data.
        outputs: logits of each exit of its model, 1 for regression; None if unknown.
        recall: answer with the most confident exit that has run, by calibrated probability, instead of the exit at
            which an example leaves. The deepest of equally confident exits answers.

    Raises:
        CriterionError: no exit rule, or temperatures that are not one positive number for each exit.
        ConfigError: exit layers that are not whole numbers, or a recall that is not True or False.

    Source: recall as in T-Tamer (arXiv 2509.22992), whose policies may return any exit that has run.
    """

    criterion: Criterion
    exit_layers: tuple[int, ...]
    temperatures: tuple[float, ...] | None = None
    calibrated_on: str = ""
    target: dict[str, Any] = field(default_factory=dict)
    outputs: int | None = None
    recall: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.criterion, Criterion):
            raise CriterionError(
                f"expected an exit rule, got {self.criterion!r:.80}: make one with offramp.make_criterion"
            )
        set_fields(self, recall=flag("recall", self.recall))
        layers = sequence("exit_layers", self.exit_layers, "layers, such as [1, 2, 4, 6]")
        set_fields(self, exit_layers=tuple(whole("an exit layer", layer) for layer in layers))
        if self.temperatures is None:
            return
        temperatures = sequence("temperatures", self.temperatures, "numbers, one for each exit")
        if len(temperatures) != len(layers) or not all(is_number(t) and t > 0 for t in temperatures):
            raise CriterionError(
                f"expected one positive temperature for each of the exits {layers}, got {temperatures}: "
                "tune the policy again"
            )
        set_fields(self, temperatures=tuple(map(float, temperatures)))

    def check(
        self, exit_layers: tuple[int, ...], kind: Kind, gates: bool, outputs: int | None = None
    ) -> None:
        """Raise `CriterionError` if the policy was made for another model or task; None is not compared."""
        if tuple(exit_layers) != self.exit_layers:
            raise CriterionError(
                f"the policy is for exits {list(self.exit_layers)}, the model has {list(exit_layers)}: "
                "tune it again"
            )
        if None not in (outputs, self.outputs) and outputs != self.outputs:
            raise CriterionError(
                f"the policy is for exits with {self.outputs} outputs, those of the model have {outputs}: tune it again"
            )
        if self.recall and kind == "regression":
            raise CriterionError(
                "recall answers with the most confident exit, and exits of a regression have no confidence: tune "
                "without recall"
            )
        self.criterion.check(len(exit_layers), kind, gates)

    def answer_exits(self, scaled: Trace) -> NDArray[np.intp]:
        """The exit that answers for an example that leaves at each exit.

        Args:
            scaled: a trace with logits that are divided by the temperatures.

        Returns:
            Exit indices `(examples, exits)`: every exit itself, or with recall the most confident one up to it.
        """
        exits = np.broadcast_to(np.arange(scaled.exits), scaled.logits.shape[:2])
        if not self.recall:
            return exits
        confidence = softmax(scaled.logits).max(axis=-1)
        best = np.maximum.accumulate(confidence, axis=1)
        answering: NDArray[np.intp] = np.maximum.accumulate(np.where(confidence == best, exits, 0), axis=1)
        return answering

    def answers(self, trace: Trace) -> NDArray[Any]:
        """The answer of each example if it leaves at each exit: `(examples, exits)`."""
        if not self.recall:
            return trace.predictions()
        answering = self.answer_exits(trace.scaled(self.temperatures))
        return np.take_along_axis(trace.predictions(), answering, axis=1)

    def answer_so_far(self, evidence: Evidence, scaled: Evidence, before: Memory) -> Memory:
        """The answers for the rows of a batch if they leave at this exit; `answer_exits`, exit by exit.

        Args:
            evidence: of the exit.
            scaled: the same, with logits that are divided by the temperature.
            before: the result at the previous exit, for these rows; `{}` at the first.

        Returns:
            `exit` `(batch,)` and `logits` `(batch, classes)` of the answers; with recall also their `confidence`.
        """
        now = {"exit": np.full(len(evidence.logits), evidence.exit), "logits": evidence.logits}
        if not self.recall:
            return now
        now["confidence"] = softmax(scaled.logits).max(axis=-1)
        if before:
            earlier = before["confidence"] > now["confidence"]
            for name, values in now.items():
                now[name] = np.where(earlier.reshape(-1, *[1] * (values.ndim - 1)), before[name], values)
        return now

    def decide(self, trace: Trace, caps: NDArray[np.intp] | None = None) -> Decisions:
        """Apply the policy to a whole trace; the engine does the same layer by layer, with the same `caps`."""
        check_caps(caps, len(trace))
        self.check(trace.exit_layers, trace.kind, trace.gates is not None, trace.logits.shape[2])
        scaled = trace.scaled(self.temperatures)
        table = scores(self.criterion, scaled)
        exit = first_exit(self.criterion, table)
        if caps is not None:
            exit = np.minimum(exit, caps)
        rows = np.arange(len(trace))
        answering = self.answer_exits(scaled)[rows, exit]
        regression = trace.kind == "regression"
        probabilities = softmax(scaled.logits[rows, answering]).max(-1)
        return Decisions(
            exit=exit,
            layer=np.asarray(trace.exit_layers, dtype=np.int64)[exit],
            prediction=trace.predictions()[rows, answering],
            probability=np.full(len(trace), np.nan) if regression else probabilities,
            score=table[rows, exit],
            flops=trace.flops[rows, exit],
            answer_exit=answering,
            logits=trace.logits[rows, answering],
        )

    def probabilities(self, exit: NDArray[np.intp], logits: NDArray[np.floating]) -> NDArray[np.float64]:
        """Calibrated probabilities `(examples, classes)` of logits that left at some exits `(examples,)`."""
        temperatures = np.asarray(self.temperatures or (1.0,) * len(self.exit_layers))
        return softmax(divide_logits(logits, temperatures[exit, None]))

    def save(self, path: UserPath) -> None:
        """Write the policy as JSON; `OfframpError` if the file cannot be written."""
        content = {**asdict(self), "criterion": {"name": self.criterion.name, **asdict(self.criterion)}}
        write_text(user_path(path), json.dumps(to_json(content), indent=2, allow_nan=False) + "\n")

    @classmethod
    def load(cls, path: UserPath) -> Policy:
        """Read a policy file; `CriterionError` if it is missing or not a policy."""
        path = user_path(path)
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            options = content.pop("criterion")
            temperatures = content.pop("temperatures")
            return cls(
                criterion=make_criterion(options.pop("name"), **options),
                exit_layers=tuple(content.pop("exit_layers")),
                temperatures=None if temperatures is None else tuple(temperatures),
                **content,
            )
        except CriterionError as error:  # the rule's own message explains what is wrong with its options
            raise CriterionError(f"{path}: {error}") from error
        except FileNotFoundError as error:
            raise CriterionError(f"no policy at {path}: make one with 'offramp tune'") from error
        except (OSError, KeyError, TypeError, AttributeError, ValueError) as error:  # ValueError: not JSON
            raise CriterionError(
                f"{path} is not a policy file, since it {file_problem(user_path(path), error)}: make one with "
                "'offramp tune'"
            ) from error


def check_caps(caps: NDArray[np.intp] | None, examples: int) -> None:
    """Raise `DataError` unless there are no caps, or one exit of at least 0 for each example."""
    if caps is not None and (caps.shape != (examples,) or (caps < 0).any()):
        raise DataError(
            f"expected one exit of at least 0 as the cap of each of the {examples} texts, got shape {caps.shape}: "
            "give an array of exit indices, counted from 0"
        )


def read_policy(policy: Policy | UserPath | None) -> Policy | None:
    """A policy, that of a file, or None; `ConfigError` for anything else."""
    if isinstance(policy, str | PathLike):
        return Policy.load(policy)
    if policy is None or isinstance(policy, Policy):
        return policy
    raise ConfigError(
        f"expected a Policy or its file as policy, got {policy!r:.80}: make one with offramp.tune"
    )
