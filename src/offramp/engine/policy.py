"""A policy: criterion, threshold and temperatures, and the origin of their fit. One small JSON file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offramp._core.damaged_files import file_problem
from offramp._core.errors import CriterionError
from offramp._core.numbers import softmax
from offramp._core.records import write_text
from offramp._core.to_json import to_json
from offramp._core.trace import Kind, Trace
from offramp.criteria import Criterion, first_exit, make_criterion, scores


@dataclass(frozen=True)
class Decisions:
    """The exit and the answer of each example. All arrays are `(examples,)`.

    Attributes:
        exit: exit index, 0-based.
        layer: exit layer, counted from 1.
        prediction: class index, or value for regression.
        probability: calibrated probability of the prediction; NaN for regression.
        score: the criterion's score at the exit taken.
        flops: FLOPs spent.
    """

    exit: NDArray[np.intp]
    layer: NDArray[np.int64]
    prediction: NDArray[np.generic]
    probability: NDArray[np.float64]
    score: NDArray[np.float64]
    flops: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.exit)


@dataclass(frozen=True)
class Policy:
    """When to leave, for one model.

    Args:
        criterion: the exit rule with its threshold.
        exit_layers: the exit layers of its model.
        temperatures: one per exit; None means 1 everywhere.
        calibrated_on: fingerprint of the calibration data, or "".
        target: the target of the tuning, and the result on the calibration data.
    """

    criterion: Criterion
    exit_layers: tuple[int, ...]
    temperatures: tuple[float, ...] | None = None
    calibrated_on: str = ""
    target: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.temperatures is None:
            return
        if len(self.temperatures) != len(self.exit_layers) or not all(
            0 < t < np.inf for t in self.temperatures
        ):
            raise CriterionError(
                f"expected one positive temperature for each of the exits {list(self.exit_layers)}, "
                f"got {list(self.temperatures)}: tune the policy again"
            )

    def check(self, exit_layers: tuple[int, ...], kind: Kind, gates: bool) -> None:
        """Raise `CriterionError` if the policy was made for another model or task."""
        if tuple(exit_layers) != self.exit_layers:
            raise CriterionError(
                f"the policy is for exits {list(self.exit_layers)}, the model has {list(exit_layers)}: "
                "tune it again"
            )
        self.criterion.check(len(exit_layers), kind, gates)

    def decide(self, trace: Trace) -> Decisions:
        """Apply the policy to a whole trace; the engine does the same layer by layer."""
        self.check(trace.exit_layers, trace.kind, trace.gates is not None)
        scaled = trace.scaled(self.temperatures)
        table = scores(self.criterion, scaled)
        exit = first_exit(self.criterion, table)
        rows = np.arange(len(trace))
        regression = trace.kind == "regression"
        probabilities = softmax(scaled.logits[rows, exit]).max(-1)
        return Decisions(
            exit=exit,
            layer=np.asarray(trace.exit_layers, dtype=np.int64)[exit],
            prediction=trace.predictions()[rows, exit],
            probability=np.full(len(trace), np.nan) if regression else probabilities,
            score=table[rows, exit],
            flops=trace.flops[rows, exit],
        )

    def save(self, path: str | Path) -> None:
        """Write the policy as JSON; `OfframpError` if the file cannot be written."""
        content = {**asdict(self), "criterion": {"name": self.criterion.name, **asdict(self.criterion)}}
        write_text(path, json.dumps(to_json(content), indent=2, allow_nan=False) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Policy:
        """Read a policy file; `CriterionError` if it is missing or not a policy."""
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
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
                f"{path} is not a policy file, since it {file_problem(Path(path), error)}: make one with 'offramp tune'"
            ) from error
