"""The doubts that an evaluation raises about itself: when, why they matter, and what to do.

The page `docs/doubts.md` lists the same checks: a test compares it with this table, to the letter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """The condition that raises a doubt, what the condition does to the numbers, and how to resolve it."""

    raised_if: str
    why: str
    do: str


CHECKS: dict[str, Check] = {
    # Any evaluation.
    "few": Check(
        "fewer than 100 examples were evaluated or attacked.",
        "A 95 % interval on accuracy is then wider than about 20 points, and one on `efficiency_drop` is wider still.",
        "Read the intervals, not the estimates. Use more examples.",
    ),
    "truncated": Check(
        "texts were longer than the model reads. For an attack, both clean and adversarial texts are checked.",
        "The model does not read the tokens that are cut off, and the attack cannot change them. An attack that "
        "splits words into more tokens pushes the end of a text out of sight. That is more than a change of a few "
        "words.",
        "Train with a larger `max_length`, or leave long texts out and say so.",
    ),
    "constant-exit": Check(
        "an exit gives every example the same answer.",
        "The head of this exit has not learned anything. Its thresholds and temperatures mean nothing.",
        "Train longer, or with another learning rate or pooling. Check the scores of every exit.",
    ),
    "worse-deeper": Check(
        "an exit answers worse than an earlier exit of the same model, by more than chance explains (a sign test over "
        "the examples, p < 0.001).",
        "Texts that leave late cost more and get worse answers. The usual cause is a learning rate that is too large "
        "for the deep exits but not for the early ones. A comparison of training methods then compares learning rates.",
        "Train with a smaller learning rate, or longer. Drop exits that do not pay (`offramp tune --kept`).",
    ),
    "one-label": Check(
        "all labels of the evaluation data are the same.",
        "Accuracy is then the share of one answer, and other metrics are undefined.",
        "Evaluate on data with all classes.",
    ),
    "unknown-calibration": Check(
        "the policy or the trace does not name the data it comes from.",
        "Nobody can then check whether a number is reported on the data that it was fitted on.",
        "Tune the policy again with `offramp tune`. Trace with `offramp.trace`.",
    ),
    # The rows of an attack.
    "nobody": Check(
        "an attack has no examples.",
        "There is nothing to report.",
        "Give the attack some data. `waffle-universal` needs at least two examples.",
    ),
    "weaker": Check(
        "examples leave earlier after the attack than before.",
        "A search that keeps the best text cannot end below its start. Either the search has a fault, or the attack "
        "does not use exits (`waffle-universal`, accuracy attacks, texts of another model).",
        "Read the rows. If the attack does not use exits, take the number as it is.",
    ),
    "one-exit": Check(
        "all clean and adversarial texts leave at the same exit.",
        "The exit rule ignores the text, because the tuned threshold lets every text pass or none. There is no "
        "decision that an attack could change, so a drop of zero says nothing about robustness.",
        "Tune for a cost (`max_cost`) or a smaller loss of accuracy, so that examples leave at different exits.",
    ),
    "success-unchanged": Check(
        "an example counts as a success although its text is unchanged.",
        "The victim answers the same text differently. Its exits are noise, or rows were mixed up.",
        "See `dropout` and `batch`, then attack again.",
    ),
    "repeated-rows": Check(
        "an example appears twice for the same recipe and seed.",
        "The example counts twice in every mean, and intervals are too narrow.",
        "Attack again in a fresh folder.",
    ),
    "zero-gradients": Check(
        "gradients at all token embeddings of a text were exactly zero.",
        "A white-box attack without a slope is only a random search. Saturated probabilities, or a loss that does not "
        "depend on the embeddings, hide the model from the attack (gradient masking).",
        "Tune with temperatures, which undo saturation. Try `slowbert`, which needs no gradient.",
    ),
    "broken-gradients": Check(
        "gradients held NaN or infinities.",
        "The gradients then rank no candidates, and the attack is weaker than it could be.",
        "Attack in float32. Check the logits for overflow.",
    ),
    "constraints": Check(
        "a second implementation finds a row that breaks a constraint. It shares no code with the attack and checks "
        "the number of words, the budget, stop words, characters between words, the edit distance, what the attack had "
        "to preserve, the minimum similarity, and the reported count of changed words.",
        "The attack was stronger than allowed, so numbers under a budget mean nothing.",
        "Report the row as a fault. Do not use the numbers.",
    ),
    "white-below-random": Check(
        "random edits drive the model deeper than a white-box attack under the same budget.",
        "The attack is misled by what it knows. Its result does not estimate what an adversary can achieve.",
        "Look for `zero-gradients`. Take the stronger of the two results as the model's robustness.",
    ),
    # The victim.
    "dropout": Check(
        "the victim answers the same texts differently when asked again.",
        "Dropout is on (the model is in training mode), or something else is random. The attack then finds lucky "
        "draws instead of words, and its success does not repeat.",
        "Call `model.eval()`, or make the function deterministic.",
    ),
    "batch": Check(
        "the victim answers a text differently in a batch and alone.",
        "Padding or other texts of the batch affect the answer. The attack asks about texts in batches, but the "
        "deployed model may not.",
        "Check the attention mask and the padding. With int8, use row-independent quantisation.",
    ),
}


def doubt(name: str, sentence: str) -> str:
    """A sentence with the name under which `docs/doubts.md` explains it."""
    assert name in CHECKS, name
    return f"{sentence} [{name}]"


def tally(doubts: Sequence[tuple[str, Sequence[str]]], noun: str) -> list[str]:
    """The doubts of many subjects, each doubt once.

    Args:
        doubts: name and doubts of every subject, of those without doubts too.
        noun: for all of them together, such as `attacks`.

    Returns:
        For each kind of doubt the first sentence, with the number of subjects where there are several.
    """
    raised: dict[str, list[str]] = {}
    for subject, sentences in doubts:
        first = {sentence.rsplit("[", 1)[-1].rstrip("]"): sentence for sentence in reversed(sentences)}
        for name, sentence in first.items():
            raised.setdefault(name, []).append(f"{subject}: {sentence}")
    return [
        same[0] if len(same) == 1 else f"{len(same)} of {len(doubts)} {noun}, such as {same[0]}"
        for same in raised.values()
    ]
