"""What the attacks of a study show together: estimates with intervals, averages, and paired differences.

Costs and depths are averaged; the share of the gain that is lost is then computed from the average costs. A mean of
shares would be dominated by models that had next to nothing to lose.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from offramp._core import progress as display
from offramp._core.errors import DataError
from offramp.evaluation.arrow_tables import floats
from offramp.evaluation.bootstrap import percentile_band, replicates
from offramp.evaluation.robustness import efficiency_drop
from offramp.evaluation.sanity_checks.doubts import tally
from offramp.evaluation.sanity_checks.random_baseline import random_baseline_doubts, uses_inside
from offramp.studies.attacks.results import AXES, NUMBERS, AttackSetting, RecordedAttack
from offramp.studies.training.results import bootstrap_seed

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

Floats = NDArray[np.float64]

MEASURES = (*NUMBERS, "efficiency_drop", "score_drop")
ALL = "all"  # stands for every value of an axis


@dataclass(frozen=True)
class Estimates:
    """`MEASURES` of one setting, or of several on average.

    Attributes:
        exact: `(measures,)`.
        drawn: `(resamples, measures)`, paired with those of other settings by task, seed and example.
        seeds: models, the least of all settings.
        examples: attacked of each model, the least of all settings.
        settings: how many are averaged.
    """

    exact: Floats
    drawn: Floats
    seeds: int
    examples: int
    settings: int = 1

    @property
    def saves(self) -> bool:
        """Whether the model is cheaper than the full one when it is not attacked."""
        return bool(self.exact[NUMBERS.index("clean_cost")] < 1)

    def value(self, measure: str) -> float:
        return float(self.exact[MEASURES.index(measure)])

    def interval(self, measure: str) -> tuple[float, float, float]:
        """The estimate of a measure and the ends of its 95 % interval."""
        column = MEASURES.index(measure)
        low, high = percentile_band(self.drawn[:, [column]])
        return float(self.exact[column]), float(low[0]), float(high[0])

    def difference(self, base: Estimates, measure: str) -> tuple[float, float, float]:
        """The paired difference to the base, and the ends of its 95 % interval."""
        gap = Estimates(self.exact - base.exact, self.drawn - base.drawn, self.seeds, self.examples)
        return gap.interval(measure)


def _with_derived(numbers: Floats) -> Floats:
    """`NUMBERS` `(..., numbers)` with the measures that follow from them: `MEASURES`."""
    columns = {name: numbers[..., column] for column, name in enumerate(NUMBERS)}
    drop = efficiency_drop(columns["clean_cost"], columns["adversarial_cost"])
    lost = columns["clean_score"] - columns["adversarial_score"]
    return np.concatenate([numbers, drop[..., None], lost[..., None]], axis=-1)


@dataclass(frozen=True)
class AttackStudy:
    """All attacks of a study.

    Attributes:
        settings: a row per setting, in the order of the tables: `AXES`, its `estimates`, their `seeds` and `examples`.
        transfers: rows of transfer matrices, or None.
        left_out: sentences about attacks that cannot be compared.
    """

    attacks: tuple[RecordedAttack, ...]
    settings: pd.DataFrame
    transfers: pa.Table | None = None
    left_out: tuple[str, ...] = ()

    def values(self, axis: str) -> list[str]:
        return list(dict.fromkeys(self.settings[axis]))

    def recorded(self, attack: str) -> RecordedAttack:
        """The first attack of a name: all of them have its recipe and options."""
        return next(recorded for recorded in self.attacks if recorded.setting.attack == attack)

    def variants(self) -> list[tuple[str, str]]:
        """Attacks that are a recipe with other options: the variant, and the recipe under its own name."""
        attacks = self.values("attack")
        pairs = [(attack, self.recorded(attack).recipe.name) for attack in attacks]
        return [(attack, recipe) for attack, recipe in pairs if attack != recipe and recipe in attacks]

    def base(self, axis: str) -> str:
        """What the other values are compared with: the first one; of attacks the random baseline, if any."""
        values = self.values(axis)
        baselines = [
            value for value in values if axis == "attack" and self.recorded(value).recipe.is_baseline
        ]
        return (baselines or values)[0]

    def select(self, **wanted: str) -> pd.DataFrame:
        """The settings with these values of axes; `ALL` selects every value."""
        chosen = self.settings
        for axis, value in wanted.items():
            chosen = chosen if value == ALL else chosen[chosen[axis] == value]
        return chosen

    def average_of(self, attack: str, **wanted: str) -> Estimates | None:
        """The average of an attack over the selected settings in which every attack was tried on the same victims.

        If there are no such settings, over all that are selected.
        """
        chosen = self.select(**wanted)
        common = in_common(chosen, "attack", set(chosen["attack"]))
        settings = chosen if common.empty else common
        return average(settings["estimates"][settings["attack"] == attack])

    def pair(self, axis: str, value: str, base: str, **wanted: str) -> tuple[Estimates, Estimates] | None:
        """Averages at two values of an axis, over the settings that both have; None without any.

        Settings are paired if they agree in the other axes and were attacked on as many models and examples.
        """
        others = [name for name in AXES if name != axis]
        left, right = (saving(self.select(**wanted, **{axis: side})) for side in (value, base))
        both = left.merge(right, on=[*others, "seeds", "examples"], suffixes=("", "_base"))
        first, second = average(both["estimates"]), average(both["estimates_base"])
        return None if first is None or second is None else (first, second)

    @property
    def doubts(self) -> list[str]:
        """Every doubt of a record, counted; and every white-box attack that random edits beat."""
        recorded = [(str(attack), attack.doubts) for attack in self.attacks]
        return [*self.left_out, *tally(recorded, "attacks"), *self._below_random()]

    def _below_random(self) -> list[str]:
        """White-box attacks that are weaker than the strongest random edits with the same options."""
        rising = sorted(self.attacks, key=lambda attack: floats(attack.rows, "adversarial_layer").mean())
        baselines = {attack.victim_and_options: attack for attack in rising if attack.recipe.is_baseline}
        doubts = []
        for attack in self.attacks:
            baseline = baselines.get(attack.victim_and_options)
            if baseline and uses_inside(attack.recipe.name, attack.rows):
                names = attack.setting.attack, baseline.setting.attack
                sentences = random_baseline_doubts(attack.rows, baseline.rows, names)
                doubts += [f"{attack}: {sentence}" for sentence in sentences]
        return doubts


def saving(settings: pd.DataFrame) -> pd.DataFrame:
    """The settings in which the model is cheaper than the full one when it is not attacked."""
    return settings[settings["estimates"].map(lambda estimates: estimates.saves).astype(bool)]


def in_common(settings: pd.DataFrame, axis: str, values: set[str]) -> pd.DataFrame:
    """The settings that exist, and save something, under each of these values of an axis."""
    others = [name for name in AXES if name != axis]
    candidates = saving(settings[settings[axis].isin(values)])
    return candidates[candidates.groupby(others)[axis].transform("nunique") == len(values)]


def average(estimates: Sequence[Estimates]) -> Estimates | None:
    """The average over settings; those that save nothing are left out. None without any."""
    chosen = [e for e in estimates if e.saves]
    if not chosen:
        return None
    count = len(NUMBERS)
    return Estimates(
        _with_derived(np.mean([e.exact[:count] for e in chosen], axis=0)),
        _with_derived(np.mean([e.drawn[:, :count] for e in chosen], axis=0)),
        min(e.seeds for e in chosen),
        min(e.examples for e in chosen),
        len(chosen),
    )


def attack_study(
    attacks: Sequence[RecordedAttack],
    transfers: pa.Table | None = None,
    *,
    resamples: int = 1000,
    progress: bool = False,
) -> AttackStudy:
    """Compute the estimates of a study, each task cut to the seeds that all of its settings have.

    `DataError` for models of one setting that were attacked on different examples.
    """
    import pandas as pd

    frame = pd.DataFrame([attack.setting for attack in attacks], columns=AXES)
    frame = frame.assign(recorded=attacks, seed=[attack.seed for attack in attacks])
    groups = frame.groupby(list(AXES), sort=False)
    seeds = groups["seed"].agg(set).groupby(level=["backbone", "task"])
    common = seeds.agg(lambda sets: set.intersection(*sets))
    rows, left_out = [], []
    for key, group in display.track(list(groups), "resample attacks", show=progress):
        setting = AttackSetting(*key)
        kept = common[setting.backbone, setting.task]
        lost = sorted(set(group["seed"]) - kept)
        if kept and lost:
            group = group[group["seed"].isin(kept)]
            left_out.append(f"{setting}: seeds {lost}, which not all attacks of the task have")
        estimates = _estimates(setting, group["recorded"], resamples)
        rows.append((*setting, estimates, estimates.seeds, estimates.examples))
    settings = pd.DataFrame(rows, columns=[*AXES, "estimates", "seeds", "examples"])
    return AttackStudy(tuple(attacks), settings, transfers, tuple(left_out))


def _estimates(setting: AttackSetting, attacks: Sequence[RecordedAttack], resamples: int) -> Estimates:
    models = [attack.statistic for attack in attacks]
    if len({(model.examples, model.fingerprint) for model in models}) > 1:
        raise DataError(f"{setting}: the models were attacked on different examples; attack them again")
    exact = np.mean([model.exact() for model in models], axis=0)
    drawn = replicates(models, resamples=resamples, seed=bootstrap_seed(setting.task), over="nested")
    return Estimates(_with_derived(exact), _with_derived(drawn), len(models), models[0].examples)
