"""The doubts of many runs, each once, for the first screen of the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from offramp._core.text import some_of
from offramp.evaluation.sanity_checks.doubts import CHECKS
from offramp.reports.contents import Doubt

MOST = 5  # names in a line


@dataclass(frozen=True)
class DoubtGroup:
    """A doubt that several runs share.

    Attributes:
        sentence: the doubt, in the words of the first run that raises it.
        subjects: the runs.
        others: the sentences of runs with other numbers, each with its run in front.
        why, do: from `docs/doubts.md`; "" for a doubt that the page does not list.
    """

    sentence: str
    subjects: tuple[str, ...]
    others: tuple[str, ...] = ()
    why: str = ""
    do: str = ""

    @property
    def who(self) -> str:
        """The runs in a line: how many, and the first ones; "" where the sentence names them."""
        if not self.subjects:
            return ""
        count = f"{len(self.subjects)} runs: " if len(self.subjects) > 1 else ""
        return f"{count}{some_of(self.subjects, MOST, separator='; ')}."

    @property
    def details(self) -> tuple[str, ...]:
        """What unfolds below: why it matters, what to do, other numbers, and all runs where `who` has only some."""
        explained = (f"{self.why} {self.do}",) if self.why else ()
        rest = (f"All runs: {'; '.join(self.subjects)}.",) if len(self.subjects) > MOST else ()
        return (*explained, *self.others, *rest)


def group_doubts(raised: Sequence[Doubt]) -> list[DoubtGroup]:
    """Each doubt once, with the runs that raise it, in order of appearance.

    Doubts are the same if they have the same name in `CHECKS`, or the same words. A run that raises a doubt twice, in
    its record and by its rows, counts once.
    """
    kinds: dict[str, dict[str, Doubt]] = {}
    for doubt in raised:
        name = _check_of(doubt.sentence)
        kinds.setdefault(name if name in CHECKS else doubt.sentence, {})[doubt.path] = doubt
    groups = []
    for name, by_path in kinds.items():
        first, *rest = by_path.values()
        others = [
            f"{doubt.subject}: {_plain(doubt.sentence)}" for doubt in rest if doubt.sentence != first.sentence
        ]
        check = CHECKS.get(name)
        subjects = tuple(dict.fromkeys(doubt.subject for doubt in by_path.values()))
        explained = (check.why, check.do) if check else ("", "")
        groups.append(DoubtGroup(_plain(first.sentence), subjects, tuple(others), *explained))
    return groups


def explain_doubt(sentence: str) -> DoubtGroup:
    """A sentence that names its subjects, with what is known about its check."""
    check = CHECKS.get(_check_of(sentence))
    explained = (check.why, check.do) if check else ("", "")
    return DoubtGroup(_words(sentence), (), (), *explained)  # a subject at its start keeps its case


def _check_of(sentence: str) -> str:
    """The name of the check in the brackets at the end of a sentence."""
    return sentence.rsplit("[", 1)[-1].rstrip("]")


def _plain(sentence: str) -> str:
    """The sentence without the name of its check, with a capital."""
    words = _words(sentence)
    return words[:1].upper() + words[1:]


def _words(sentence: str) -> str:
    """The sentence without the name of its check, with a full stop."""
    words = sentence.rsplit(" [", 1)[0] if _check_of(sentence) in CHECKS else sentence
    return words if words.endswith(".") else f"{words}."
