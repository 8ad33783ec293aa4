"""The doubts that an evaluation may raise about itself: their causes, why they matter, and what to do.

The page `docs/doubts.md` is made from this table; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        raised_if: the condition.
        why: its effect on the numbers.
        do: the remedy.
    """

    raised_if: str
    why: str
    do: str


CHECKS: dict[str, Check] = {
    # Any evaluation.
    "few": Check(
        "fewer than 100 examples were evaluated or attacked.",
        "A 95 % interval on accuracy is then wider than about 20 points, and one on `efficiency_drop` wider still.",
        "Read the intervals, not the estimates; use more examples.",
    ),
    "truncated": Check(
        "texts were longer than the model reads; for an attack, the clean or the adversarial ones.",
        "What is cut off is neither read nor attacked. An attack that makes words fall into more tokens pushes the "
        "end of a text out of sight, which is no longer a change of a few words.",
        "Train with a larger `max_length`, or leave long texts out and say so.",
    ),
    "constant-exit": Check(
        "an exit gives every example the same answer.",
        "Its head has not learned anything: thresholds and temperatures there mean nothing.",
        "Train longer, with another learning rate or pooling; look at the scores of every exit.",
    ),
    "worse-deeper": Check(
        "an exit answers worse than an earlier one of its model, by more than chance explains: a sign test over the "
        "examples, p < 0.001.",
        "Texts that leave late cost more and are answered worse. Most often the learning rate was too large for the "
        "deep exits, while early ones bear it; a comparison of training methods then compares learning rates.",
        "Train with a smaller learning rate, or longer; drop exits that do not pay (`offramp tune --kept`).",
    ),
    "one-label": Check(
        "all labels of the evaluation data are the same.",
        "Accuracy is then the share of one answer, and other metrics are undefined.",
        "Evaluate on data with all classes.",
    ),
    "unknown-calibration": Check(
        "the policy or the trace does not say what data it comes from.",
        "Whether a number is reported on the data that it was fitted on cannot be checked.",
        "Tune the policy again with `offramp tune`; trace with `offramp.trace`.",
    ),
    # The rows of an attack.
    "nobody": Check(
        "an attack has no examples.",
        "There is nothing to report.",
        "Give it data; of `waffle-universal` at least two examples.",
    ),
    "weaker": Check(
        "examples leave earlier after the attack than before.",
        "A search that keeps the best text ever seen cannot end below its start: there is a fault in it, or the "
        "attack does not look at exits (`waffle-universal`, accuracy attacks, texts of another model).",
        "Look at the rows; for an attack that does not look, take the number as it is.",
    ),
    "one-exit": Check(
        "every clean and every adversarial text leaves at one and the same exit.",
        "The exit rule does not look at the text: the threshold that was tuned lets everything pass, or nothing. "
        "There is no decision that an attack could change, and a drop of zero says nothing about robustness.",
        "Tune for a cost (`max_cost`) or a smaller loss of accuracy, so that examples leave at different exits.",
    ),
    "success-unchanged": Check(
        "an example counts as a success although its text is what it was.",
        "The victim answers the same text differently: its exits are noise, or rows were mixed up.",
        "See `dropout` and `batch`; attack again.",
    ),
    "repeated-rows": Check(
        "an example comes twice for the same recipe and seed.",
        "It counts twice in every mean, and intervals are too narrow.",
        "Attack again in a fresh folder.",
    ),
    "zero-gradients": Check(
        "gradients at all token embeddings of a text were exactly zero.",
        "A white box that sees no slope is a random search with a better name: saturated probabilities or a loss "
        "that the embeddings do not reach hide the model from it (gradient masking).",
        "Tune with temperatures, which undo saturation; try `slowbert`, which needs no gradient.",
    ),
    "broken-gradients": Check(
        "gradients held NaN or infinities.",
        "Candidates are then ranked by nothing; the attack is weaker than it could be.",
        "Attack in float32; look for overflowing logits.",
    ),
    "constraints": Check(
        "a second implementation, which shares no code with the attack, finds a row that breaks a constraint: the "
        "number of words, the budget, stop words, characters between words, the edit distance, what had to be kept, "
        "the least similarity, or a count of changed words that is not that of the texts.",
        "The attack was stronger than it was allowed to be, and numbers under a budget mean nothing.",
        "Report it as a fault, with the row; do not use the numbers.",
    ),
    "white-below-random": Check(
        "under the same budget, random edits drive the model deeper than an attack that knows it from inside.",
        "What the attack knows misleads it: what it reports is no estimate of what an adversary achieves.",
        "Look for `zero-gradients`; take the stronger of the two as the model's robustness.",
    ),
    # The victim.
    "dropout": Check(
        "the victim answers the same texts differently when asked again.",
        "Dropout is on (a model left in training mode), or something else is random: an attack then finds lucky "
        "draws, not words, and its success does not repeat.",
        "Call `model.eval()`; make the function deterministic.",
    ),
    "batch": Check(
        "the victim answers a text differently in a batch and alone.",
        "Padding or batch mates reach the answer: the attack looks at texts in batches, the deployed model may not.",
        "Check the attention mask and the padding; with int8, use row-independent quantisation.",
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


def page() -> str:
    """All checks as a page in Markdown."""
    head = (
        "# What the evaluation doubts\n\n"
        "Every evaluation and every attack looks at itself, and says what a reader should know. A doubt ends in its "
        "name in brackets. None of them stops anything: numbers are told, with the doubt beside them.\n"
    )
    sections = [
        f"## {name}\n\n**Raised if** {check.raised_if}\n\n**Why it matters.** {check.why}\n\n"
        f"**What to do.** {check.do}\n"
        for name, check in CHECKS.items()
    ]
    return "\n".join([head, *sections])
