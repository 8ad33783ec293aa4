"""What the attacks of a study say together: against numbers straight from the rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from offramp._core.errors import DataError
from offramp.studies.attacks.compare import difference_table, number_table
from offramp.studies.attacks.results import AttackSetting, is_attack_study, load_attacked, load_transfers
from offramp.studies.attacks.study import attack_study
from offramp.studies.training.results import is_sweep
from tests.studies.made_up_attacks import (
    ATTACKS,
    made_up_cells,
    made_up_rows,
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
    return attack_study(load_attacked(folder), load_transfers(folder), resamples=FEW)


def cost(side: str, **wanted: str) -> float:
    """Mean cost over cells, straight from the rows."""
    cells = [
        cell
        for cell in made_up_cells()
        if {
            "task": cell.victim.task,
            "method": cell.method,
            "criterion": cell.criterion,
            "attack": cell.attack.name,
        }
        | wanted
        == {
            "task": cell.victim.task,
            "method": cell.method,
            "criterion": cell.criterion,
            "attack": cell.attack.name,
        }
    ]
    return float(np.mean([[row[f"{side}_cost"] / 400 for row in made_up_rows(cell)] for cell in cells]))


def test_a_folder_tells_what_it_holds(folder: Path, tmp_path: Path) -> None:
    assert is_attack_study(folder)
    assert not is_sweep(folder)
    assert not is_attack_study(tmp_path)
    with pytest.raises(
        DataError, match="no attacks of a study below .*offramp sweep configs/same-minilm.yaml"
    ):
        load_attacked(tmp_path)


def test_the_order_in_which_attacks_are_told(study: Any) -> None:
    assert study.values("attack") == ["same-word", "words-1", "textfooler-last", "random-word"]
    assert study.values("method") == ["joint", "sweet"]
    assert study.values("criterion") == ["confidence", "patience"]
    assert len(study.numbers) == 2 * 2 * 2 * 4


def test_numbers_are_those_of_the_rows(study: Any) -> None:
    place = AttackSetting("minilm-l6", "sst2", "joint", "confidence", "same-word")
    found = study.numbers[place]
    assert (found.seeds, found.examples) == (2, 40)
    clean, after = cost("clean", **place_parts(place)), cost("adversarial", **place_parts(place))
    estimate, low, high = found.interval("adversarial_cost")
    assert estimate == pytest.approx(after)
    assert low < estimate < high
    drop, low, high = found.interval("efficiency_drop")
    assert drop == pytest.approx(1 - (1 - after) / (1 - clean))
    assert low < drop < high


def place_parts(place: AttackSetting) -> dict[str, str]:
    return {name: getattr(place, name) for name in ("task", "method", "criterion", "attack")}


def test_averages_are_those_of_costs(study: Any) -> None:
    found = study.mean(study.where(attack="same-word"))
    clean, after = cost("clean", attack="same-word"), cost("adversarial", attack="same-word")
    assert found.places == 8
    assert found.interval("efficiency_drop")[0] == pytest.approx(1 - (1 - after) / (1 - clean))
    assert study.mean([]) is None


def test_differences_are_paired(study: Any) -> None:
    one, base = study.pair("method", "sweet", "joint", attack="same-word")
    gap, low, high = one.against(base, "efficiency_drop")
    assert gap == pytest.approx(one.interval("efficiency_drop")[0] - base.interval("efficiency_drop")[0])
    assert low <= gap <= high < 0  # half as strong against sweet
    widths = [end[2] - end[1] for end in (one.interval("efficiency_drop"), base.interval("efficiency_drop"))]
    assert high - low < sum(widths)
    same, other = study.pair("method", "sweet", "joint", attack="textfooler-last")
    assert same.against(other, "adversarial_cost") == (0, 0, 0)  # the very same rows: no noise is left
    assert study.pair("method", "sweet", "two_stage") is None


def test_models_that_save_nothing_are_left_out(study: Any) -> None:
    place = next(iter(study.numbers))
    idle = replace(study.numbers[place], exact=study.numbers[place].exact.copy())
    idle.exact[2] = 1.0  # the clean cost
    changed = replace(study, numbers={**study.numbers, place: idle})
    assert changed.mean(changed.where(attack=place.attack)).places == 7
    pair = changed.pair("method", "sweet", "joint", attack=place.attack)
    assert pair[0].places == pair[1].places == 3


def test_settings_that_all_have(study: Any) -> None:
    attacks, places = study.values("attack"), list(study.numbers)
    assert study.met_by_all("attack", attacks, places) == places
    missing = AttackSetting("minilm-l6", "rte", "sweet", "patience", "words-1")
    assert missing in places
    left = [place for place in places if place != missing]
    without = {replace(missing, attack=attack) for attack in attacks}
    assert study.met_by_all("attack", attacks, left) == [place for place in left if place not in without]
    nothing_saved = replace(study.numbers[missing], exact=np.ones_like(study.numbers[missing].exact))
    other = replace(study, numbers={**study.numbers, missing: nothing_saved})
    assert other.met_by_all("attack", attacks, places) == [place for place in places if place not in without]
    assert study.met_by_all("attack", [*attacks, "slowbert"], places) == []


def test_difference_tables(study: Any) -> None:
    rows = difference_table(study, "criterion", lambda values: values[0]).to_pylist()
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


def test_doubts_are_counted_and_floors_compared(folder: Path) -> None:
    attacked = load_attacked(folder)
    study = attack_study(attacked, resamples=FEW)
    (few,) = [doubt for doubt in study.doubts if doubt.endswith("[few]")]
    assert few.startswith("64 of 64 attacks, such as minilm-l6, ")
    assert not any("white-below-random" in doubt for doubt in study.doubts)
    swapped = [
        replace(
            one,
            rows=next(
                o for o in attacked if o.seed == one.seed and o.place == replace(one.place, attack=to)
            ).rows,
        )
        if to
        else one
        for one in attacked
        for to in [{"same-word": "random-word", "random-word": "same-word"}.get(one.place.attack)]
    ]
    told = [d for d in attack_study(swapped, resamples=FEW).doubts if "white-below-random" in d]
    assert told == []  # rows of random edits take no gradients
    deep = [
        replace(
            one,
            rows=next(
                o
                for o in attacked
                if o.seed == one.seed and o.place == replace(one.place, attack="same-word")
            ).rows,
        )
        if one.place.attack == "random-word"
        else replace(one, rows=weaker(one.rows))
        if one.place.attack == "same-word"
        else one
        for one in attacked
    ]
    told = [d for d in attack_study(deep, resamples=FEW).doubts if "white-below-random" in d]
    assert len(told) == 16
    assert "same-word reaches layer 1.00 on average, random-word" in told[0]


def weaker(rows: Any) -> Any:
    for name, value in (("adversarial_layer", 1), ("adversarial_exit", 0)):
        rows = rows.set_column(rows.schema.get_field_index(name), name, [[value] * rows.num_rows])
    return rows


def test_seeds_that_not_all_have_are_left_out(folder: Path) -> None:
    attacked = [one for one in load_attacked(folder) if (one.seed, one.place.method) != (1, "sweet")]
    study = attack_study(attacked, resamples=FEW)
    assert all(numbers.seeds == 1 for numbers in study.numbers.values())
    assert (
        "joint, confidence, same-word: seeds [1], which not all attacks of the task have" in study.doubts[0]
    )


def test_other_examples_are_refused(folder: Path) -> None:
    attacked = load_attacked(folder)
    attacked[0] = replace(attacked[0], rows=attacked[0].rows.slice(1))
    with pytest.raises(DataError, match="attacked on different examples"):
        attack_study(attacked, resamples=FEW)


def test_rows_that_are_missing(tmp_path: Path) -> None:
    (cell, *_) = record_study(
        tmp_path, made_up_cells({"sst2": (0,)}, {"same-word": ATTACKS["same-word"]})[:1]
    )
    (tmp_path / cell.folder / "attack.parquet").unlink()
    with pytest.raises(
        DataError, match="attack.parquet is missing: delete .*record.json, and run the study again"
    ):
        load_attacked(tmp_path)
