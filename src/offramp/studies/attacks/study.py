"""What the attacks of a study say together: every number with its interval, averages, and paired differences.

An average is one of costs and depths; the share of the gain that is lost is then computed from the average costs.
A mean of shares would be ruled by models that had next to nothing to lose.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from offramp._core.errors import DataError
from offramp.evaluation.arrow_tables import floats
from offramp.evaluation.bootstrap import percentile_band, replicates
from offramp.evaluation.robustness import efficiency_drop
from offramp.evaluation.sanity_checks.doubts import tally
from offramp.evaluation.sanity_checks.random_baseline import (
    is_random_baseline,
    random_baseline_doubts,
    uses_inside,
)
from offramp.studies.attacks.results import NUMBERS, Attacked, AttackSetting

if TYPE_CHECKING:
    import pyarrow as pa

Floats = NDArray[np.float64]

MEASURES = (*NUMBERS, "efficiency_drop", "score_drop")
COSTS = NUMBERS.index("clean_cost"), NUMBERS.index("adversarial_cost")
SCORES = NUMBERS.index("clean_score"), NUMBERS.index("adversarial_score")
PLACE = ("backbone", "task", "method", "criterion", "attack")


@dataclass(frozen=True)
class Numbers:
    """`MEASURES` of one place, or of several on average.

    Attributes:
        exact: `(measures,)`.
        drawn: `(resamples, measures)`, paired with those of other places by task, seed and example.
        seeds: models, the least of all places.
        examples: attacked of each model, the least of all places.
        places: how many.
    """

    exact: Floats
    drawn: Floats
    seeds: int
    examples: int
    places: int = 1

    def interval(self, measure: str) -> tuple[float, float, float]:
        """A measure with the ends of its 95 % interval."""
        return _interval(self.exact, self.drawn, measure)

    def against(self, base: Numbers, measure: str) -> tuple[float, float, float]:
        """The paired difference of a measure to another's, with its interval."""
        return _interval(self.exact - base.exact, self.drawn - base.drawn, measure)


def _interval(exact: Floats, drawn: Floats, measure: str) -> tuple[float, float, float]:
    at = MEASURES.index(measure)
    low, high = percentile_band(drawn[:, at : at + 1])
    return float(exact[at]), float(low[0]), float(high[0])


def _derived(numbers: Floats) -> Floats:
    """`NUMBERS` `(..., numbers)` with what follows from them: `MEASURES`."""
    drop = efficiency_drop(numbers[..., COSTS[0]], numbers[..., COSTS[1]])
    lost = numbers[..., SCORES[0]] - numbers[..., SCORES[1]]
    return np.concatenate([numbers, drop[..., None], lost[..., None]], axis=-1)


@dataclass(frozen=True)
class AttackStudy:
    """All attacks of a study.

    Attributes:
        attacked: the recorded ones.
        numbers: by place.
        transfers: rows of transfer matrices, or None.
        left_out: sentences about attacks that could not be compared.
    """

    attacked: tuple[Attacked, ...]
    numbers: dict[AttackSetting, Numbers]
    transfers: pa.Table | None = None
    left_out: tuple[str, ...] = ()

    def values(self, name: str) -> list[str]:
        """What a part of the place takes, in order."""
        return list(dict.fromkeys(getattr(place, name) for place in self.numbers))

    def recipe(self, attack: str) -> str:
        """The recipe behind a name."""
        return next(one.recipe for one in self.attacked if one.place.attack == attack)

    def options(self, attack: str) -> dict[str, Any]:
        """The options behind a name."""
        return next(one.options for one in self.attacked if one.place.attack == attack)

    def where(self, **wanted: str) -> list[AttackSetting]:
        """The places in which some parts have these values."""
        return [p for p in self.numbers if all(getattr(p, name) == value for name, value in wanted.items())]

    def met_by_all(
        self, axis: str, values: Iterable[str], places: Iterable[AttackSetting]
    ) -> list[AttackSetting]:
        """The places that are there, and save something, under each of these values of a part."""
        met: dict[AttackSetting, set[str]] = {}
        chosen, wanted = list(places), set(values)
        for place in chosen:
            if self.numbers[place].exact[COSTS[0]] < 1:
                met.setdefault(replace(place, **{axis: ""}), set()).add(getattr(place, axis))
        return [place for place in chosen if met.get(replace(place, **{axis: ""}), set()) >= wanted]

    def shared(self, **wanted: str) -> list[AttackSetting]:
        """The places with these values in which every attack was tried on the same victims; all, if there are none."""
        places = self.where(**wanted)
        return self.met_by_all("attack", {place.attack for place in places}, places) or places

    def mean(self, places: Iterable[AttackSetting]) -> Numbers | None:
        """The average over places; those in which nothing was saved to begin with are left out."""
        chosen = [self.numbers[place] for place in places]
        chosen = [one for one in chosen if one.exact[COSTS[0]] < 1]
        if not chosen:
            return None
        count = len(NUMBERS)
        return Numbers(
            _derived(np.mean([one.exact[:count] for one in chosen], axis=0)),
            _derived(np.mean([one.drawn[:, :count] for one in chosen], axis=0)),
            min(one.seeds for one in chosen),
            min(one.examples for one in chosen),
            len(chosen),
        )

    def pair(self, axis: str, value: str, base: str, **wanted: str) -> tuple[Numbers, Numbers] | None:
        """Averages of two values of a part, over the same other parts; None where they never meet."""
        sides: list[list[AttackSetting]] = [[], []]
        for place in self.where(**{**wanted, axis: value}):
            other = replace(place, **{axis: base})
            if other in self.numbers and self._alike(place, other):
                sides[0].append(place)
                sides[1].append(other)
        kept = [p for p in zip(*sides, strict=True) if all(self.numbers[q].exact[COSTS[0]] < 1 for q in p)]
        if not kept:
            return None
        one, two = (self.mean(side) for side in zip(*kept, strict=True))
        assert one is not None
        assert two is not None
        return one, two

    def _alike(self, one: AttackSetting, other: AttackSetting) -> bool:
        """Whether two places have the same examples and as many models, so that they are paired."""
        a, b = self.numbers[one], self.numbers[other]
        return (a.examples, a.seeds) == (b.examples, b.seeds)

    @property
    def doubts(self) -> list[str]:
        """Every doubt of a record, counted; and white boxes that random edits beat."""
        told = [(f"{_told(one.place)}, seed {one.seed}", one.doubts) for one in self.attacked]
        return [*self.left_out, *tally(told, "attacks"), *self._below_floor()]

    def _below_floor(self) -> list[str]:
        """White boxes that did worse than the strongest random edits with the same options."""
        floors: dict[tuple[AttackSetting, int, str], Attacked] = {}
        for one in sorted(self.attacked, key=lambda one: floats(one.rows, "adversarial_layer").mean()):
            if is_random_baseline(one.recipe):
                floors[_budget(one)] = one
        told = []
        for one in self.attacked:
            floor = floors.get(_budget(one))
            if floor and uses_inside(one.recipe, one.rows):
                names = (one.place.attack, floor.place.attack)
                doubts = random_baseline_doubts(one.rows, floor.rows, names)
                told += [f"{_told(one.place)}, seed {one.seed}: {sentence}" for sentence in doubts]
        return told


def _budget(one: Attacked) -> tuple[AttackSetting, int, str]:
    """What attacks share that are held against each other: the victim, and what they may do."""
    return replace(one.place, attack=""), one.seed, repr(one.options)


def _told(place: AttackSetting) -> str:
    return ", ".join(getattr(place, name) for name in PLACE)


def attack_study(
    attacked: Sequence[Attacked], transfers: pa.Table | None = None, *, resamples: int = 1000
) -> AttackStudy:
    """Sum up the attacks of a study.

    Args:
        attacked: of `load_attacked`.
        transfers: of `load_transfers`.
        resamples: of the bootstrap over examples and, where a place has several, models.

    Raises:
        DataError: models of one place that were attacked on different examples.
    """
    groups: dict[AttackSetting, list[Attacked]] = {}
    for one in attacked:
        groups.setdefault(one.place, []).append(one)
    left_out = _common_seeds(groups)
    numbers = {place: _numbers(place, ones, resamples) for place, ones in groups.items()}
    return AttackStudy(tuple(attacked), numbers, transfers, tuple(left_out))


def _common_seeds(groups: dict[AttackSetting, list[Attacked]]) -> list[str]:
    """Cut each task to the seeds that all of its places have; and what was left out."""
    seeds: dict[tuple[str, str], list[set[int]]] = {}
    for place, ones in groups.items():
        seeds.setdefault((place.backbone, place.task), []).append({one.seed for one in ones})
    left_out = []
    for place, ones in groups.items():
        common = set.intersection(*seeds[place.backbone, place.task])
        lost = sorted({one.seed for one in ones} - common)
        if common and lost:
            groups[place] = [one for one in ones if one.seed in common]
            left_out.append(f"{_told(place)}: seeds {lost}, which not all attacks of the task have")
    return left_out


def _numbers(place: AttackSetting, ones: Sequence[Attacked], resamples: int) -> Numbers:
    models = [one.statistic for one in ones]
    if len({(model.examples, model.fingerprint) for model in models}) > 1:
        raise DataError(f"{_told(place)}: the models were attacked on different examples; attack them again")
    exact = np.mean([model.exact() for model in models], axis=0)
    drawn = replicates(models, resamples=resamples, seed=place.seed, over="nested")
    return Numbers(_derived(exact), _derived(drawn), len(models), models[0].examples)
