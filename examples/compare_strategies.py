"""Which training strategy gives the best answers at which speed?

python examples/compare_strategies.py --train-size 2000
"""

from __future__ import annotations

from pathlib import Path

import cyclopts

import offramp

STRATEGIES = {
    "joint": offramp.MultiExitForSequenceClassification,
    "sweet": offramp.MultiExitForSequenceClassification,
    "multi_model": offramp.MultiModelForSequenceClassification,  # a separate classifier for each exit
}


def main(
    data: str = "movies",
    *,
    backbone: str = "minilm-l3",
    output: Path = Path("runs/example-strategies"),
    train_size: int = 1000,
    epochs: float = 1.0,
) -> None:
    """Train a model with each strategy, and compare them over the same examples with intervals.

    Args:
        data: a data set, as for `offramp.load_data`.
        backbone: the encoder.
        output: folder of the models.
        train_size: training examples.
        epochs: passes over them.
    """
    texts = offramp.load_data(data).subsample(train_size)
    models = {}
    for strategy, model_class in STRATEGIES.items():
        model = model_class.from_backbone(backbone, labels=texts.labels)
        models[strategy] = offramp.train(model, texts, strategy, output_dir=output / strategy, epochs=epochs)
    evaluation = offramp.evaluate(models, texts)
    print(evaluation.per_exit.to_pandas().query("metric == @evaluation.metric").to_string(index=False))
    print(evaluation.scores.to_pandas().to_string(index=False))


if __name__ == "__main__":
    cyclopts.run(main)
