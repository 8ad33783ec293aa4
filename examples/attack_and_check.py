"""How much of the savings can an attacker take back, and does another exit rule hold better?

python examples/attack_and_check.py --examples 40
"""

from __future__ import annotations

from pathlib import Path

import cyclopts

import offramp
from offramp.evaluation import attack_doubts, random_baseline_doubts, robustness


def main(
    data: str = "movies",
    *,
    backbone: str = "minilm-l3",
    output: Path = Path("runs/example-attack"),
    train_size: int = 1000,
    examples: int = 20,
    rounds: int = 3,
    similarity: str = "none",
) -> None:
    """Attack a model under two exit rules, and check the attack against random edits.

    Args:
        data: a data set, as for `offramp.load_data`.
        backbone: the encoder.
        output: folder of the model.
        train_size: training examples.
        examples: texts attacked.
        rounds: words changed one after another.
        similarity: judge of the similarity to the original text, as for `offramp.attack`.
    """
    texts = offramp.load_data(data).subsample(train_size)
    model = offramp.MultiExitForSequenceClassification.from_backbone(backbone, labels=texts.labels)
    offramp.train(model, texts, output_dir=output, epochs=1)
    rows = texts["validation"].take(examples)

    for rule in ("confidence", "patience"):
        policy = offramp.tune(model, texts, rule, max_accuracy_drop=0.02)
        results = {
            recipe: offramp.attack(
                model, rows, recipe=recipe, policy=policy, rounds=rounds, similarity=similarity
            )
            for recipe in ("same-word", "random-word")
        }
        for recipe, result in results.items():
            numbers = robustness(result.table, model.exit_layers).metrics
            print(
                f"{rule}, {recipe}: layer {numbers['clean_depth']:.2f} before, "
                f"{numbers['adversarial_depth']:.2f} after; {numbers['gain_drop']:.0%} of the savings lost"
            )
        attack, baseline = results["same-word"], results["random-word"]
        doubts = attack_doubts(attack.table, attack.metadata)
        for doubt in (*doubts, *random_baseline_doubts(attack.table, baseline.table)):
            print(f"doubt: {doubt}")


if __name__ == "__main__":
    cyclopts.run(main)
