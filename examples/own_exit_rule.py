"""An exit rule of one's own: one class, used wherever a built-in rule is.

python examples/own_exit_rule.py
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import cyclopts
import numpy as np
from numpy.typing import NDArray

import offramp
from offramp._core.trace import Evidence
from offramp.criteria import CRITERIA
from offramp.criteria.base import Criterion, Memory, log_probabilities
from offramp.evaluation import area, policy_scores


@dataclass(frozen=True)
class Gini(Criterion):
    """Leave where two draws from the predicted distribution agree with at least the threshold's probability."""

    name: ClassVar[str] = "gini"
    label: ClassVar[str] = "Gini agreement"
    default_threshold: ClassVar[float] = 0.8
    threshold_range: ClassVar[tuple[float, float]] = (0.0, 1.0 + 1e-9)  # the upper end: nothing leaves early

    def rate(self, evidence: Evidence, memory: Memory) -> tuple[NDArray[np.float64], Memory]:
        """The sum of the squared probabilities, at one exit."""
        return np.square(np.exp(log_probabilities(evidence))).sum(axis=1), memory


def main(
    data: str = "movies",
    *,
    backbone: str = "minilm-l3",
    output: Path = Path("runs/example-rule"),
    train_size: int = 1000,
) -> None:
    """Compare the rule with confidence, tune it, and save it with a model.

    Args:
        data: a data set, as for `offramp.load_data`.
        backbone: the encoder.
        output: folder of the model.
        train_size: training examples.
    """
    CRITERIA[Gini.name] = Gini  # the name now means the rule wherever one is given or read
    texts = offramp.load_data(data).subsample(train_size)
    model = offramp.MultiExitForSequenceClassification.from_backbone(backbone, labels=texts.labels)
    offramp.train(model, texts, output_dir=output, epochs=1)

    validation = offramp.trace(model, texts["validation"])
    for rule in ("confidence", "gini"):
        curve = offramp.speed_accuracy(validation, rule)
        policy = offramp.tune(model, texts, rule, max_accuracy_drop=0.02)
        scores = policy_scores(validation, policy)
        print(
            f"{rule}: area under its curve {area(curve):.3f}; tuned: accuracy {scores['score'].estimate:.3f} "
            f"at a cost of {scores['cost'].estimate:.2f}"
        )
    model.save_pretrained(output / "served", policy=policy)
    print(offramp.Engine(output / "served").predict("a gripping, funny film"))


if __name__ == "__main__":
    cyclopts.run(main)
