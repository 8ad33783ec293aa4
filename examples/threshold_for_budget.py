"""Which threshold keeps a model within a budget, and what does that cost in accuracy?

python examples/threshold_for_budget.py --budgets 0.5 --budgets 0.8
"""

from __future__ import annotations

from pathlib import Path

import cyclopts

import offramp
from offramp.evaluation import policy_scores


def main(
    data: str = "movies",
    *,
    budgets: tuple[float, ...] = (0.5, 0.7, 0.9),
    backbone: str = "minilm-l3",
    output: Path = Path("runs/example-budget"),
    train_size: int = 1000,
) -> None:
    """Choose a threshold for each budget on the calibration split, and check it on the validation split.

    Args:
        data: a data set, as for `offramp.load_data`.
        budgets: mean FLOPs, as shares of the full model's.
        backbone: the encoder.
        output: folder of the model.
        train_size: training examples.
    """
    texts = offramp.load_data(data).subsample(train_size)
    model = offramp.MultiExitForSequenceClassification.from_backbone(backbone, labels=texts.labels)
    offramp.train(model, texts, output_dir=output, epochs=1)

    # The model runs once on each split. Everything below is array work on what its exits said.
    calibration = offramp.trace(model, texts["calibration"])
    validation = offramp.trace(model, texts["validation"])
    for budget in budgets:
        policy = offramp.tune(calibration, "confidence", max_cost=budget)
        scores = policy_scores(validation, policy)
        accuracy, cost = scores["score"], scores["cost"]
        print(
            f"budget {budget:.2f}: threshold {policy.criterion.threshold:.3f}, cost {cost.estimate:.2f}, "
            f"accuracy {accuracy.estimate:.3f} [{accuracy.low:.3f}, {accuracy.high:.3f}]"
        )
        policy.save(output / f"policy-{budget:g}.json")


if __name__ == "__main__":
    cyclopts.run(main)
