from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from offramp._core.records import write_record
from offramp.reports.contents import Doubt, load_contents
from offramp.reports.doubt_groups import group_doubts
from offramp.reports.summary import answers, cautions, summarise
from tests.evaluation.made_up import attack_row
from tests.reports.made_up_runs import attack_rows, write_attack

Numbers = dict[str, tuple[float, float, float]]


def write_policy(
    folder: Path, *, full: float = 0.8, cost: float = 0.5, drop: float = 0.005, **more: Any
) -> None:
    """A model under its policy: intervals of a point and of 10 % of the cost on either side."""
    numbers: Numbers = {
        "score": (full - drop, full - drop - 0.01, full - drop + 0.01),
        "full": (full, full - 0.01, full + 0.01),
        "drop": (drop, drop - 0.01, drop + 0.01),
        "cost": (cost, cost - 0.1, cost + 0.1),
    }
    rows = [
        {"name": name, "estimate": e, "low": low, "high": high} for name, (e, low, high) in numbers.items()
    ]
    write_record(
        folder / "record.json",
        command="offramp evaluate movies",
        config={"data": "movies", "criterion": "confidence", "examples": 1000},
        metrics={"name": folder.name},
        seed=0,
        tables={"policy": rows} | more,
    )


def answer(root: Path) -> tuple[str, ...]:
    return summarise(load_contents(root)).answer


def test_the_cheapest_model_within_a_point_is_the_answer(tmp_path: Path) -> None:
    write_policy(tmp_path / "a", cost=0.6)
    write_policy(tmp_path / "b", cost=0.4)
    write_policy(tmp_path / "c", cost=0.2, drop=0.02)
    summary = summarise(load_contents(tmp_path))
    assert summary.question == "How much work do early exits save on movies?"
    assert summary.scope == "3 models: a, b, c · exit rule confidence · 1,000 texts"
    assert summary.answer == (
        "b needs 40 % [30, 50] of its full model's work and loses 0.5 points [−0.5, 1.5] of accuracy: the least work "
        "among the 2 models that lose at most 1 point.",
        "It scores 79.5 % [78.5, 80.5]; its last exit scores 80.0 % [79.0, 81.0].",
    )


def test_where_no_model_stays_within_a_point_the_answer_says_so(tmp_path: Path) -> None:
    write_policy(tmp_path / "a", drop=0.03, cost=0.2)
    write_policy(tmp_path / "b", drop=0.02)
    assert answer(tmp_path)[0] == (
        "No model stays within 1 point of its last exit: b needs 50 % [40, 60] of its full model's work and loses 2.0 "
        "points [1.0, 3.0] of accuracy, the smallest loss."
    )
    alone = answer(tmp_path / "a")[0]
    assert alone.endswith("loses 3.0 points [2.0, 4.0] of accuracy: more than 1 point.")


def test_a_policy_may_gain(tmp_path: Path) -> None:
    write_policy(tmp_path / "a", drop=-0.03, cost=0.0004)
    assert answer(tmp_path)[0].endswith(
        "] of its full model's work and gains 3.0 points [2.0, 4.0] of accuracy."
    )
    assert answer(tmp_path)[0].startswith("a needs 0.04 % [")
    write_policy(tmp_path / "a", drop=0.0)
    assert "loses 0.0 points [−1.0, 1.0]" in answer(tmp_path)[0]


def test_the_strongest_attack_on_the_chosen_model_is_named(tmp_path: Path) -> None:
    write_policy(tmp_path / "a")
    weak, strong = ([attack_row(0, to, id=i) for i in range(4)] for to in (1, 2))
    for name, rows in (("weak", weak), ("strong", strong)):
        named = [row | {"recipe": name} for row in rows]
        write_attack(tmp_path / "a" / name, named, name="a")
    assert answer(tmp_path)[1] == (
        "The attack strong takes away 100 % [100, 100] of that saving, changing 1.0 words a text."
    )
    assert summarise(load_contents(tmp_path)).scope.endswith("attacks on 4 texts: strong, weak")


def test_an_attack_on_a_model_that_saves_nothing_is_told_by_depth(tmp_path: Path) -> None:
    costly = [
        row | {"clean_cost": 400.0, "adversarial_cost": 800.0} for row in (attack_row(0, 2), attack_row(1, 2))
    ]
    write_attack(tmp_path / "run", [row | {"id": i} for i, row in enumerate(costly)])
    summary = summarise(load_contents(tmp_path))
    assert summary.question == "How much of the saved work do attacks take away on movies?"
    assert summary.answer == (
        "The attack same-word moves the mean exit of run from layer 1.5 to layer 4.0 [4.0, 4.0], changing 1.0 words a "
        "text.",
    )


def test_without_attacks_the_comparison_is_the_second_sentence(runs: Path) -> None:
    (section,) = load_contents(runs).sections
    second = answers(replace(section, attacks=[]))[1]
    assert second.startswith("Averaged over all costs, SWEET scores +8.9 points [")
    assert second.endswith("] against Early-Exit.")


def test_timing_is_the_second_sentence_of_a_single_model(tmp_path: Path) -> None:
    row = {"threshold": 0.8, "seconds": 1.0, "full_seconds": 2.0, "time_speedup": 2.0}
    row |= {"speedup_low": 1.9, "speedup_high": 2.1}
    write_policy(tmp_path / "a", timing=[row])
    assert answer(tmp_path)[1].startswith("It scores")  # the record names no threshold
    record = tmp_path / "a" / "record.json"
    record.write_text(record.read_text().replace('"criterion"', '"threshold": 0.8, "criterion"'))
    assert answer(tmp_path)[1] == "Measured, it is 2.0 [1.9, 2.1] times as fast as at full depth."


def test_records_without_an_answer_are_named(tmp_path: Path) -> None:
    write_record(tmp_path / "r.json", command="offramp train x", config={}, metrics={}, seed=0, tables={})
    assert answer(tmp_path) == ("The tables below show the numbers of 1 record (train).",)


def test_a_better_but_costlier_model_is_not_hidden(tmp_path: Path) -> None:
    write_policy(tmp_path / "a", cost=0.4, full=0.7)
    write_policy(tmp_path / "b", cost=0.6, full=0.8)
    (section,) = load_contents(tmp_path).sections
    assert cautions(section) == [
        "b answers better at its last exit than a: 80.0 % [79.0, 81.0] against 70.0 % [69.0, 71.0]. Compare the "
        "curves, not the losses."
    ]
    (alone,) = load_contents(tmp_path / "b").sections
    assert cautions(alone) == []


def test_equal_doubts_become_one_with_its_runs() -> None:
    few = "only 40 examples: intervals are wide [few]"
    raised = [
        Doubt("joint, attack", few, "joint/a.json"),
        Doubt("sweet, attack", few, "sweet/a.json"),
        Doubt("sweet, evaluate", "something else", "sweet/e.json"),
        Doubt("joint, same-word", few, "joint/a.json"),  # of the same record
        Doubt("third, attack", "only 7 examples: intervals are wide [few]", "third/a.json"),
    ]
    first, second = group_doubts(raised)
    assert first.sentence == "Only 40 examples: intervals are wide."
    assert first.subjects == ("joint, same-word", "sweet, attack", "third, attack")
    assert first.others == ("third, attack: Only 7 examples: intervals are wide.",)
    assert first.who == "3 runs: joint, same-word; sweet, attack; third, attack."
    assert first.details[0].endswith("Read the intervals, not the estimates. Use more examples.")
    assert first.details[1:] == first.others
    assert (second.sentence, second.who, second.details) == ("Something else.", "sweet, evaluate.", ())


def test_a_doubt_of_many_runs_names_a_few_in_its_line() -> None:
    (group,) = group_doubts([Doubt(f"m{i}, attack", "odd", f"{i}.json") for i in range(7)])
    assert group.who == "7 runs: m0, attack; m1, attack; m2, attack; m3, attack; m4, attack and 2 more."
    assert group.details == ("All runs: " + "; ".join(f"m{i}, attack" for i in range(7)) + ".",)


def test_a_model_without_a_defined_score_is_no_answer(tmp_path: Path) -> None:
    write_policy(tmp_path / "a", full=math.nan)
    assert answer(tmp_path) == ("The tables below show the numbers of 1 record (evaluate).",)


@pytest.mark.parametrize("data", ["movies", ""])
def test_one_attack_alone_has_its_scope(tmp_path: Path, data: str) -> None:
    write_attack(tmp_path / "run", attack_rows())
    assert summarise(load_contents(tmp_path)).scope == "attacks on 12 texts: same-word"
