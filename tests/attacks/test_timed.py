"""The clock as oracle: noise must not decide, and a real difference must be found."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import wilcoxon

from offramp.attacks import FunctionVictim
from offramp.attacks.constraints.constraints import Constraints
from offramp.attacks.objectives.base import ExitDepth
from offramp.attacks.recipes.base import Composition
from offramp.attacks.search.base import Measure, run_searches
from offramp.attacks.search.local import TimedSearch, in_turn, slower
from offramp.attacks.search.space import EveryWord, Move
from offramp.attacks.text.attacked_text import AttackedText
from offramp.attacks.transformations.base import Edit, Transformation


class Letters(Transformation):
    """Every word may become x, y or z."""

    def edits(self, look: Any, words: Any, top_n: int, rng: Any) -> list[Edit]:
        return [Edit(word, letter) for word in words for letter in "xyz"][:top_n]


def composition(**options: Any) -> Composition:
    move = Move(EveryWord(), Letters())
    search = TimedSearch(**options)
    return Composition(ExitDepth(), (move,), Constraints(2, frozenset()), search=search)


def attack(function: Any, text: str = "a b c", budget: int | None = None, **options: Any) -> Any:
    victim, chosen = FunctionVictim(function, max_forward=budget), composition(**options)
    steps = chosen.search.steps(AttackedText.of(text), chosen, np.random.default_rng(0))
    (outcome,) = run_searches(victim, [steps])
    return outcome


def test_the_first_in_turn_moves_on() -> None:
    texts = [AttackedText.of(w) for w in "abc"]
    steps = in_turn(texts, 3)
    request = next(steps)
    assert isinstance(request, Measure)
    assert [t.text for t in request.texts] == [*"abc", *"bca", *"cab"]
    with pytest.raises(StopIteration) as stop:
        steps.send([1, 2, 3, 20, 30, 10, 300])  # the third round was cut off
    assert stop.value.value.tolist() == [[1, 2, 3], [10, 20, 30]]


def test_slower_is_the_signed_rank_test() -> None:
    rng = np.random.default_rng(0)
    pairs = rng.normal(size=(15, 2)) + np.array([0, 1])
    expected = wilcoxon(pairs[:, 1], pairs[:, 0], alternative="greater", zero_method="zsplit").pvalue
    assert slower(pairs, expected)
    assert not slower(pairs, expected * 0.999)
    assert not slower(np.ones((15, 2)), 0.5)  # all equal
    assert not slower(np.empty((0, 2)), 0.5)  # nothing measured
    one_outlier = np.ones((15, 2)) + 0.001 * rng.normal(size=(15, 2))
    one_outlier[3, 1] = 1000.0
    assert not slower(one_outlier, 0.01)


def test_a_real_difference_is_found_in_heavy_noise() -> None:
    rng = np.random.default_rng(1)

    def seconds(text: str) -> tuple[int, float]:
        busy = 10.0 if rng.random() < 0.05 else 1.0
        return 0, busy * (1.0 + text.count("z")) + 0.05 * rng.exponential()

    outcome = attack(seconds, confirm=25)
    assert outcome.adversarial.text.text.count("z") == 2  # the word budget


def test_noise_alone_changes_nothing() -> None:
    changed = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        outcome = attack(lambda text, rng=rng: (0, float(rng.lognormal())), alpha=0.05)
        changed += bool(outcome.adversarial.text.changes)
    # 40 attacks at a level of 5 % each: 7 and more would come once in a thousand times.
    assert changed <= 6


def test_measurements_are_counted_and_limited() -> None:
    outcome = attack(lambda text: (0, 1.0 + text.count("z")), "a b", scout=2, confirm=5)
    # Clean; two words left out, twice; each word three candidates, twice, and five pairs; the record of z z. A
    # test of five pairs can reach p = 1/32 only, which is above 0.05 / 2 words: nothing is replaced.
    assert outcome.budget.forward == 1 + 4 + 2 * (6 + 10)
    assert outcome.adversarial.text.changes == ()
    cut = attack(lambda text: (0, 1.0 + text.count("z")), "a b", budget=7)
    assert cut.budget.forward == 6  # one is kept back for the answer to what is found: here known already
    assert cut.adversarial.text.changes == ()


def test_what_was_found_is_kept_where_the_budget_ends() -> None:
    def seconds(text: str) -> tuple[int, float]:
        return 0, 1.0 + text.count("z")

    # Clean; two words left out, three times; three candidates, three times, and twelve pairs; some of the second's.
    cut = attack(seconds, "a b", budget=1 + 6 + (9 + 24) + 20, confirm=12)
    assert cut.adversarial.text.text.count("z") == 1
    assert (cut.adversarial.answer.spent, cut.budget.forward) == (2.0, cut.budget.max_forward)
