"""What the page shows beyond the tables: charts, operating points, budgets of words, examples and heat maps."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from offramp.reports.budgets import at_budgets, budgets_chart, budgets_table
from offramp.reports.charts import Axis, Lines, line_chart, percent, short
from offramp.reports.contents import load_contents
from offramp.reports.examples import example_data
from offramp.reports.explorer import curve_chart, explorer
from offramp.reports.heat_maps import Cell, cosine_maps
from offramp.reports.page_sections import exits_chart, leaving
from tests.evaluation.made_up import attack_row
from tests.reports.made_up_runs import HOSTILE, attack_rows, laddered, write_attack, write_evaluation


@given(st.floats(-1e6, 1e6), st.floats(0.01, 1e3))
def test_an_axis_keeps_every_value_between_its_ends(value: float, width: float) -> None:
    axis = Axis("", 0.0, width, 50.0, 500.0, ())
    assert 50 <= axis.at(value) <= 500
    assert (axis.at(0.0), axis.at(width)) == (50.0, 500.0)


def test_charts_leave_out_what_is_undefined() -> None:
    nan = math.nan
    whole = Lines(
        "a", [(0.0, 0.5), (0.5, nan), (1.0, 0.9)], [(0.0, nan, 0.6)], [(1.0, nan, "x")], [(0.0, nan, 1.0)]
    )
    chart = line_chart("id", "t", [whole], x="x", y="y")
    assert chart is not None
    (drawing,) = chart.drawings
    assert drawing.line.count("L") == 1
    assert (drawing.band, drawing.marks, drawing.whiskers) == ("", (), ())
    assert line_chart("id", "t", [Lines("a", [(0.0, nan)])], x="x", y="y") is None
    unknown = Lines("a", [(0.0, 0.5)], marks=[(0.0, None, "null in JSON")])  # type: ignore[list-item]
    chart = line_chart("id", "t", [unknown], x="x", y="y")
    assert chart is not None
    assert chart.drawings[0].marks == ()
    flat = line_chart("id", "t", [Lines("a", [(1.0, 0.5)])], x="x", y="y")
    assert flat is not None
    assert flat.y.low < 0.5 < flat.y.high
    near = line_chart("id", "t", [Lines("a", [(0, 1e-6), (1, 2e-6)])], x="x", y="y", write=(short, percent))
    assert near is not None
    assert all(len(text) <= len("−0.25 %") for _, text in near.y.ticks)


def test_ticks_are_short_and_inside() -> None:
    chart = line_chart(
        "id", "t", [Lines("a", [(0.1, 0.61), (1.0, 0.83)])], x="x", y="y", write=(short, percent)
    )
    assert chart is not None
    assert [text for _, text in chart.y.ticks] == ["60 %", "65 %", "70 %", "75 %", "80 %"]
    assert all(chart.y.last <= at <= chart.y.first for at, _ in chart.y.ticks)
    assert short(-0.5) == "−0.5"


def test_operating_points_are_those_of_the_curve(runs: Path) -> None:
    (section,) = load_contents(runs).sections
    curves = section.curves["accuracy"]
    chart = curve_chart("c", "accuracy", curves)
    assert chart is not None
    content = explorer(section, "accuracy", curves, chart)
    assert [model["label"] for model in content["models"]] == ["Early-Exit", "SWEET"]
    rows = curves["SWEET"][0].sweep.to_pylist()
    points = content["models"][1]["points"]
    assert len(points) == len(rows)
    for point, row in zip(points, rows, strict=True):
        threshold, x, y, score, _, _, cost, depth, shares, time = point
        assert (threshold, score, cost) == pytest.approx(
            (row["threshold"], row["score"], row["cost"]), abs=1e-4
        )
        assert (x, y) == (chart.x.at(row["cost"]), chart.y.at(row["score"]))
        assert shares[0] + 2 * shares[1] + 4 * shares[2] == pytest.approx(depth, abs=1e-3)
        assert time is None
    assert content["models"][1]["layers"] == [1, 2, 4]


def test_times_are_interpolated_between_the_timed_thresholds(tmp_path: Path) -> None:
    write_evaluation(tmp_path, "SWEET")
    record = tmp_path / "evaluate.json"
    timing = [
        {"threshold": threshold, "seconds": seconds, "full_seconds": 4.0, "time_speedup": 1.0}
        | {"speedup_low": 1.0, "speedup_high": 1.0}
        for threshold, seconds in ((0.0, 1.0), (2.0, 3.0))
    ]
    content = json.loads(record.read_text())
    content["tables"]["timing"] = timing
    content["config"] |= {"timed": 10, "examples": 80, "batch_size": 8}
    record.write_text(json.dumps(content))
    (section,) = load_contents(tmp_path).sections
    curves = section.curves["accuracy"]
    chart = curve_chart("c", "accuracy", curves)
    assert chart is not None
    (model,) = explorer(section, "accuracy", curves, chart)["models"]
    times, costs = [point[9] for point in model["points"]], [point[6] for point in model["points"]]
    assert model["batch"] == 8
    assert (times[0], times[-1]) == (100.0, 300.0)
    share = (costs[5] - costs[0]) / (costs[-1] - costs[0])
    assert times[5] == pytest.approx(100 + 200 * share, abs=0.05)
    assert abs(model["points"][model["own"]][0] - 0.8) == min(
        abs(point[0] - 0.8) for point in model["points"]
    )


def test_budgets_of_words_by_hand(tmp_path: Path) -> None:
    rows = [attack_row(0, 2, id=i, words_changed=i) for i in range(4)]
    write_attack(tmp_path, rows)
    (section,) = load_contents(tmp_path).sections
    (attack,) = section.attacks
    budgets = at_budgets(attack)
    assert list(budgets) == [0, 1, 2, 3]
    # The row with no changed word counts at every budget: n + 1 of the 4 rows go from layer 1 to layer 4.
    assert [budgets[n]["adversarial_depth"] for n in budgets] == [1 + 3 * (n + 1) / 4 for n in budgets]
    assert budgets[3]["efficiency_drop"] == attack.robustness["efficiency_drop"] == 1.0
    table = budgets_table(section, {attack.label: budgets})
    assert [row[:3] for row in table.rows][:2] == [
        ("same-word", "0", "1.00 → 1.75"),
        ("same-word", "1", "1.00 → 2.50"),
    ]
    chart = budgets_chart("b", {attack.label: budgets})
    assert chart is not None
    assert [text for _, text in chart.x.ticks] == ["0", "1", "2", "3"]


def test_attacks_that_do_not_count_words_have_no_budgets(tmp_path: Path) -> None:
    write_attack(tmp_path, [row | {"words_changed": None} for row in attack_rows()])
    (section,) = load_contents(tmp_path).sections
    (attack,) = section.attacks
    assert at_budgets(attack) == {}
    assert budgets_chart("b", {attack.label: {}}) is None


def test_attacks_of_several_budgets_have_them_in_their_labels(tmp_path: Path) -> None:
    for words in (0.1, 0.3):
        write_attack(tmp_path / f"words-{words}", attack_rows(), name="sweet", words=words)
    (section,) = load_contents(tmp_path).sections
    labels = [attack.label for attack in section.attacks]
    assert labels == ["same-word, words at most 0.1", "same-word, words at most 0.3"]


def test_examples_have_marked_words_and_likeliest_classes(tmp_path: Path) -> None:
    rows = laddered(attack_rows())
    rows[1]["clean_probabilities"] = [[0.1, 0.2, 0.3, 0.4]] * 3
    write_attack(tmp_path, rows, labels=["a\u200b", "b"])
    (section,) = load_contents(tmp_path).sections
    content = example_data(section.attacks[0])
    assert content["classes"] == ["a⟨U+200B⟩", "b"]
    assert content["layers"] == [1, 2, 4]
    first, second = content["rows"][:2]
    assert first["segments"][0][0] == ["a", 1]
    assert "\u202e" not in str(first["segments"])
    assert HOSTILE[:8] in "".join(words for words, kind in first["segments"][0] if kind == 2)
    assert second["segments"] == [[["a ", 0], ["good", 1], ["fine", 2], [" film", 0]]]
    assert second["ladder"][0][0] == [(1, 0.2), (2, 0.3), (3, 0.4)]
    assert second["ladder"][1][1] == [(0, 0.9), (1, 0.1)]


def test_records_without_probabilities_names_or_texts_still_make_a_page(tmp_path: Path) -> None:
    write_attack(tmp_path / "old", attack_rows())
    (section,) = load_contents(tmp_path).sections
    content = example_data(section.attacks[0])
    assert content["classes"] == []
    assert content["rows"][0]["ladder"] == [None, None]
    write_attack(tmp_path / "old", [row | {"text": None} for row in attack_rows()])
    (section,) = load_contents(tmp_path).sections
    assert example_data(section.attacks[0])["rows"] == []


def test_heat_maps_have_a_cell_for_each_pair_above_the_layer() -> None:
    row = {"step": 1, "norm_ratio": 1.0}
    table = pa.Table.from_pylist(
        [
            row | {"layer": 1, "exit_layer": 1, "other_exit_layer": 4, "cosine": -0.5, "negative_share": 0.5},
            row | {"layer": 1, "exit_layer": 2, "other_exit_layer": 4, "cosine": 0.25, "negative_share": 0.0},
            row | {"layer": 2, "exit_layer": 2, "other_exit_layer": 4, "cosine": 0.75, "negative_share": 0.0},
        ]
    )
    (heat,) = cosine_maps("sweet", table)
    assert heat.header == ("layer", "exits 1 and 4", "exits 2 and 4")
    assert heat.rows == (
        ("2", (None, Cell("0.75", 0.75, False))),
        ("1", (Cell("−0.50", -0.5, True), Cell("0.25", 0.25, False))),
    )


def test_conflict_shares_the_section_of_its_data(runs: Path) -> None:
    (section,) = load_contents(runs).sections
    assert [run.command for _, run in section.labelled("conflict")] == ["conflict"]


def test_histograms_of_models_and_attacks(tmp_path: Path) -> None:
    write_attack(tmp_path, [attack_row(0, 2, id=0), attack_row(1, 1, id=1)])
    (section,) = load_contents(tmp_path).sections
    (bars,) = leaving(section)
    assert bars.rows == (("layer 1", (50.0, 0.0)), ("layer 2", (50.0, 50.0)), ("layer 4", (0.0, 50.0)))


def test_exits_stand_at_their_layers(runs: Path) -> None:
    (section,) = load_contents(runs).sections
    chart = exits_chart(section, "accuracy")
    assert chart is not None
    assert [text for _, text in chart.x.ticks] == ["1", "2", "4"]
    assert [len(drawing.marks) for drawing in chart.drawings] == [3, 3]
