"""The first minute of `offramp demo`: a small model, a text that leaves early, and the same text under attack."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.text import Text

from offramp._core.files import policy_file
from offramp._core.progress import console
from offramp._core.text import one_line
from offramp.cli.common import DataOptions, note
from offramp.training.options import TrainingOptions

if TYPE_CHECKING:
    from offramp._core.trace import Trace
    from offramp.data.text_data import TextData
    from offramp.engine.policy import Policy
    from offramp.model.base import SegmentedModel

SENTENCES = 480  # training sentences: a few seconds' work
EPOCHS = 4.0
EXAMPLES = 200  # sentences that the threshold is fitted on, and as many to choose from
DROP = 0.02  # of accuracy
WORDS = 3  # that the attack may change
READABLE = range(8, 21)  # words of the sentence that is shown, where there are such sentences
BAR = 20  # characters


def first_look(
    source: str, output: Path, *, backbone: str, exits: list[int], seed: int, training: TrainingOptions
) -> None:
    """Train a small model, let a text of the validation split climb its exits, and attack the text step by step.

    Args:
        source: a data set.
        output: folder of the model.
        backbone: an encoder.
        exits: layers.
        seed: for everything random.
        training: options; the epochs are `EPOCHS`.
    """
    data = DataOptions().load(source)
    few = data.subsample(min(SENTENCES, len(data["train"])), seed)
    training = replace(training, epochs=EPOCHS)
    model = fit(few, output, strategy="joint", backbone=backbone, exits=exits, seed=seed, training=training)
    policy = _tune(model, few, output, seed)
    _show(model, policy, few, seed)


def fit(
    data: TextData,
    output: Path,
    *,
    strategy: str,
    backbone: str,
    exits: list[int],
    seed: int,
    training: TrainingOptions,
) -> SegmentedModel:
    """`offramp train` without the scores of the exits, which the demo measures later."""
    from offramp.training.run import train, untrained_model

    model = untrained_model(strategy, backbone, exits, data, seed=seed)
    return train(model, data, strategy=strategy, seed=seed, output_dir=output, **vars(training))


def _tune(model: SegmentedModel, data: TextData, output: Path, seed: int) -> Policy:
    from offramp.calibration import tune
    from offramp.inference.tracing import trace

    calibration = trace(model, data.sample("calibration", EXAMPLES, seed), progress=True)
    policy = tune(calibration, "confidence", max_accuracy_drop=DROP, metric=data.metrics[0])
    policy.save(output / "model" / policy_file("confidence"))
    return policy


def _show(model: SegmentedModel, policy: Policy, data: TextData, seed: int) -> None:
    from offramp.attacks import attack, diff_text
    from offramp.inference.tracing import trace

    rows = data.sample("validation", EXAMPLES, seed)
    traced = trace(model, rows, progress=True)
    row = choose(traced, policy, rows["text"])
    example = rows.select([row])
    console.print(Text("A sentence that leaves early", style="bold"))
    note(f"“{example[0]['text']}”")
    _print_ladder(traced.take(np.array([row])), policy, model.labels)
    console.print(Text(f"The same sentence, attacked: up to {WORDS} words change", style="bold"))
    for rounds in range(1, WORDS + 1):
        # The search draws nothing, so each call repeats the rounds of the one before it and adds one.
        result = attack(
            model,
            example,
            policy=policy,
            seed=seed,
            rounds=rounds,
            max_changed_words=WORDS,
            similarity="none",
            progress=False,
        )
        (changed,) = result.rows
        if not changed["words_changed"]:
            note(f"no change of {rounds} words makes it leave later")
            continue
        console.print(diff_text(changed))
        attacked = type(example).from_list([{**example[0], "text": changed["adversarial_text"]}])
        _print_ladder(trace(model, attacked), policy, model.labels)
        if changed["reached_last"]:
            break


def choose(traced: Trace, policy: Policy, texts: list[str]) -> int:
    """The text to show: of those that leave earliest with the right answer, the one with the median confidence.

    Sentences of a readable length come first.
    """
    decisions = policy.decide(traced)
    readable = np.array([len(text.split()) in READABLE for text in texts])
    right = decisions.prediction == traced.require_labels()
    for fitting in (readable & right, right, np.ones(len(texts), dtype=bool)):
        if fitting.any():
            break
    earliest = fitting & (decisions.exit == decisions.exit[fitting].min())
    ranked = sorted(np.flatnonzero(earliest), key=lambda i: decisions.probability[i])
    return int(ranked[len(ranked) // 2])


def _print_ladder(traced: Trace, policy: Policy, labels: tuple[str, ...]) -> None:
    for line in ladder(traced, policy, labels):
        console.print(line, soft_wrap=True)


def ladder(traced: Trace, policy: Policy, labels: tuple[str, ...]) -> list[Text]:
    """The exits of one text, a line each, up to the one at which it leaves.

    Args:
        traced: of one text.
        policy: a threshold on the confidence, shared by all exits.
        labels: class names.
    """
    from scipy.special import softmax

    leaving = int(policy.decide(traced).exit[0])
    probabilities = softmax(traced.scaled(policy.temperatures).logits[0], axis=-1)
    threshold = policy.criterion.threshold
    lines = []
    for k, layer in enumerate(traced.exit_layers[: leaving + 1]):
        confidence, answer = float(probabilities[k].max()), labels[int(probabilities[k].argmax())]
        filled = round(BAR * confidence)
        if k == traced.exits - 1:
            ending = "the last exit"
        else:
            ending = (
                f"{'≥' if k == leaving else '<'} {threshold:.2f}: {'leaves' if k == leaving else 'runs on'}"
            )
        bar = "█" * filled + "░" * (BAR - filled)
        line = f"  layer {layer:>2}  {bar}  {confidence:.2f} {one_line(answer)}, {ending}"
        lines.append(Text(line, style="bold green" if k == leaving else ""))
    return lines
