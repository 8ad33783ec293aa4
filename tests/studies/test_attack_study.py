"""What the attacks of a study say together: against numbers straight from the rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from offramp._core.errors import DataError
from offramp.studies.attacks.results import (
    AttackSetting,
    RecordedAttack,
    is_attack_study,
    load_attacks,
    load_transfers,
)
from offramp.studies.attacks.study import NUMBERS, attack_study, average, in_common
from offramp.studies.attacks.tables import difference_table, number_table
from offramp.studies.training.results import is_sweep
from tests.studies.made_up_attacks import (
    ATTACKS,
    made_up_rows,
    made_up_trials,
    record_study,
    record_transfer,
)

FEW = 80  # resamples


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("same-toy")
    record_transfer(path, record_study(path))
    return path


@pytest.fixture(scope="module")
def study(folder: Path) -> Any:
    return attack_study(load_attacks(folder), load_transfers(folder), resamples=FEW)


def cost(side: str, **wanted: str) -> float:
    """Mean cost over trials, straight from the rows."""
    trials = []
    for trial in made_up_trials():
        axes = {"method": trial.method, "criterion": trial.criterion, "attack": trial.attack.name}
        axes |= {"backbone": trial.victim.backbone, "task": trial.victim.task}
        trials += [trial] if axes | wanted == axes else []
    return float(np.mean([[row[f"{side}_cost"] / 400 for row in made_up_rows(trial)] for trial in trials]))


def estimates_at(study: Any, setting: AttackSetting) -> Any:
    (estimates,) = study.select(**setting._asdict())["estimates"]
    return estimates


def test_a_folder_tells_what_it_holds(folder: Path, tmp_path: Path) -> None:
    assert is_attack_study(folder)
    assert not is_sweep(folder)
    assert not is_attack_study(tmp_path)
    with pytest.raises(
        DataError, match="no attacks of a study below .*offramp sweep configs/same-minilm.yaml"
    ):
        load_attacks(tmp_path)


def test_the_order_of_attacks(study: Any) -> None:
    assert study.values("attack") == ["same-word", "words-1", "textfooler-last", "random-word"]
    assert study.values("method") == ["joint", "sweet"]
    assert study.values("criterion") == ["confidence", "patience"]
    assert len(study.settings) == 2 * 2 * 2 * 4


def test_estimates_are_those_of_the_rows(study: Any) -> None:
    setting = AttackSetting("minilm-l6", "sst2", "joint", "confidence", "same-word")
    estimates = estimates_at(study, setting)
    assert (estimates.seeds, estimates.examples) == (2, 40)
    clean, after = (cost(side, **setting._asdict()) for side in ("clean", "adversarial"))
    estimate, low, high = estimates.interval("adversarial_cost")
    assert estimate == pytest.approx(after)
    assert low < estimate < high
    drop, low, high = estimates.interval("efficiency_drop")
    assert drop == pytest.approx(1 - (1 - after) / (1 - clean))
    assert low < drop < high


def test_averages_are_those_of_costs(study: Any) -> None:
    estimates = average(study.select(attack="same-word")["estimates"])
    clean, after = cost("clean", attack="same-word"), cost("adversarial", attack="same-word")
    assert estimates is not None
    assert estimates.settings == 8
    assert estimates.value("efficiency_drop") == pytest.approx(1 - (1 - after) / (1 - clean))
    assert average([]) is None


def test_differences_are_paired(study: Any) -> None:
    sweet, joint = study.pair("method", "sweet", "joint", attack="same-word")
    gap, low, high = sweet.difference(joint, "efficiency_drop")
    assert gap == pytest.approx(sweet.value("efficiency_drop") - joint.value("efficiency_drop"))
    assert low <= gap <= high < 0  # half as strong against sweet
    widths = [end[2] - end[1] for end in (side.interval("efficiency_drop") for side in (sweet, joint))]
    assert high - low < sum(widths)
    same, other = study.pair("method", "sweet", "joint", attack="textfooler-last")
    assert same.difference(other, "adversarial_cost") == (0, 0, 0)  # the very same rows: no noise is left
    assert study.pair("method", "sweet", "two_stage") is None


def changed(study: Any, setting: AttackSetting, **fields: Any) -> Any:
    """The study with other estimates at one setting."""
    settings = study.settings.copy()
    (row,) = study.select(**setting._asdict()).index
    settings.at[row, "estimates"] = replace(settings.at[row, "estimates"], **fields)
    for name in ("seeds", "examples"):
        settings.at[row, name] = getattr(settings.at[row, "estimates"], name)
    return replace(study, settings=settings)


def saving_nothing(study: Any, setting: AttackSetting) -> Any:
    exact = estimates_at(study, setting).exact.copy()
    exact[NUMBERS.index("clean_cost")] = 1.0
    return changed(study, setting, exact=exact)


def test_models_that_save_nothing_are_left_out(study: Any) -> None:
    setting = AttackSetting("minilm-l6", "sst2", "joint", "confidence", "same-word")
    idle = saving_nothing(study, setting)
    assert average(idle.select(attack="same-word")["estimates"]).settings == 7  # type: ignore[union-attr]
    sweet, joint = idle.pair("method", "sweet", "joint", attack="same-word")
    assert sweet.settings == joint.settings == 3


@pytest.mark.parametrize("field", ["seeds", "examples"])
def test_settings_of_other_models_or_examples_are_not_paired(study: Any, field: str) -> None:
    setting = AttackSetting("minilm-l6", "sst2", "joint", "confidence", "same-word")
    sweet, joint = changed(study, setting, **{field: 1}).pair("method", "sweet", "joint", attack="same-word")
    assert sweet.settings == joint.settings == 3


def test_settings_that_all_have(study: Any) -> None:
    attacks, settings = set(study.values("attack")), study.settings
    assert in_common(settings, "attack", attacks).equals(settings)
    missing = AttackSetting("minilm-l6", "rte", "sweet", "patience", "words-1")
    others = missing._asdict() | {"attack": "all"}
    left = settings.drop(study.select(**missing._asdict()).index)
    without = settings.drop(study.select(**others).index)
    assert len(without) == len(settings) - 4
    assert in_common(left, "attack", attacks).equals(without)
    idle = in_common(saving_nothing(study, missing).settings, "attack", attacks)
    assert idle.index.equals(without.index)
    assert in_common(settings, "attack", attacks | {"slowbert"}).empty


def test_difference_tables(study: Any) -> None:
    rows = difference_table(study, "criterion").to_pylist()
    assert {row["base"] for row in rows} == {"confidence"}
    (row,) = [
        r
        for r in rows
        if (r["attack"], r["task"], r["method"], r["criterion"]) == ("same-word", "all", "all", "patience")
    ]
    assert row["places"] == 4
    for measure in ("clean_cost", "adversarial_cost", "efficiency_drop"):
        assert row[f"{measure}_difference"] == pytest.approx(row[measure] - row[f"{measure}_base"])
    keys = [tuple(row[name] for name in ("attack", "task", "method", "criterion")) for row in rows]
    assert len(set(keys)) == len(keys)
    numbers = number_table(study)
    assert numbers.num_rows == 32 * 16


def test_doubts_are_counted_and_random_baselines_compared(folder: Path) -> None:
    attacks = load_attacks(folder)
    study = attack_study(attacks, resamples=FEW)
    (few,) = [doubt for doubt in study.doubts if doubt.endswith("[few]")]
    assert few.startswith("64 of 64 attacks, such as minilm-l6, ")
    assert below_random(attacks) == []

    def rows(attack: RecordedAttack, name: str) -> Any:
        """The rows of another attack on the same model."""
        setting = attack.setting._replace(attack=name)
        return next(a.rows for a in attacks if (a.setting, a.seed) == (setting, attack.seed))

    swap = {"same-word": "random-word", "random-word": "same-word"}
    swapped = [replace(a, rows=rows(a, swap.get(a.setting.attack, a.setting.attack))) for a in attacks]
    assert below_random(swapped) == []  # rows of random edits take no gradients
    deep = {
        "same-word": lambda attack: weaker(attack.rows),
        "random-word": lambda attack: rows(attack, "same-word"),
    }
    doubts = below_random(
        [replace(a, rows=deep[a.setting.attack](a)) if a.setting.attack in deep else a for a in attacks]
    )
    assert len(doubts) == 16
    assert "same-word reaches layer 1.00 on average, random-word" in doubts[0]


def below_random(attacks: list[RecordedAttack]) -> list[str]:
    return [d for d in attack_study(attacks, resamples=FEW).doubts if "white-below-random" in d]


def weaker(rows: Any) -> Any:
    for name, value in (("adversarial_layer", 1), ("adversarial_exit", 0)):
        rows = rows.set_column(rows.schema.get_field_index(name), name, [[value] * rows.num_rows])
    return rows


def test_seeds_that_not_all_have_are_left_out(folder: Path) -> None:
    attacks = load_attacks(folder)
    study = attack_study([a for a in attacks if (a.seed, a.setting.method) != (1, "sweet")], resamples=FEW)
    assert set(study.settings["seeds"]) == {1}
    sentence = "joint, confidence, same-word: seeds [1], which not all attacks of the task have"
    assert sentence in study.doubts[0]


def test_only_tasks_that_lack_seeds_are_cut(folder: Path) -> None:
    setting = AttackSetting("minilm-l6", "rte", "sweet", "patience", "words-1")
    attacks = [a for a in load_attacks(folder) if (a.setting, a.seed) != (setting, 1)]
    study = attack_study(attacks, resamples=FEW)
    assert {row.task: row.seeds for row in study.settings.itertuples()} == {"rte": 1, "sst2": 2}
    assert len(study.left_out) == 15


def test_other_examples_are_refused(folder: Path) -> None:
    attacks = load_attacks(folder)
    attacks[0] = replace(attacks[0], rows=attacks[0].rows.slice(1))
    with pytest.raises(DataError, match="attacked on different examples"):
        attack_study(attacks, resamples=FEW)


def test_rows_that_are_missing(tmp_path: Path) -> None:
    trials = made_up_trials({"sst2": (0,)}, {"same-word": ATTACKS["same-word"]})[:1]
    (trial,) = record_study(tmp_path, trials)
    (tmp_path / trial.folder / "attack.parquet").unlink()
    with pytest.raises(
        DataError, match="attack.parquet is missing: delete the record beside it, and run its command again"
    ):
        load_attacks(tmp_path)
