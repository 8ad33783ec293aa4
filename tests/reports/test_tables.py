from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.console import Console

from offramp._core.markdown import plain_markdown
from offramp._core.records import write_record
from offramp._core.text import one_line
from offramp.evaluation import robustness
from offramp.reports import TextTable, all_tables, load_contents
from offramp.reports.tables import exit_scores
from offramp.reports.text_table import change, interval, number, signed
from tests.evaluation.made_up import LAYERS
from tests.reports.made_up_runs import attack_rows, write_attack, write_evaluation, write_study


@pytest.fixture(scope="module")
def tables(runs: Path) -> dict[str, TextTable]:
    return all_tables(load_contents(runs))


def test_numbers_are_written_for_reading() -> None:
    assert number(0.12345) == "0.123"
    assert number(-2.5, 1) == "−2.5"
    assert number(12) == "12"
    assert number(None) == number(float("nan")) == "–"
    assert signed(0.05) == "+0.050"
    assert interval(0.5, 0.4, 0.6, 1) == "0.5 [0.4, 0.6]"
    assert interval(0.5, np.nan, np.nan) == interval(0.5, None, None) == "0.500"
    assert interval(np.nan, 0.1, 0.2) == "–"
    assert interval(-0.01, -0.02, 0.03, 2, sign=True) == "−0.01 [−0.02, +0.03]"
    assert change(1.5, 3.0, 1) == "1.5 → 3.0"


def test_markdown_by_hand() -> None:
    table = TextTable(
        "Scores",
        ("model", "score"),
        (("a|b\n<i>", "0.5 [0.4, 0.6]"), ("![x](http://e.example)", "1")),
        "Note.",
    )
    assert table.markdown() == (
        "**Scores**\n\n"
        "| model | score |\n| :-- | --: |\n"
        "| a\\|b &lt;i> | 0.5 [0.4, 0.6] |\n"
        "| ![x]\\(http://e.example) | 1 |\n\n"
        "Note.\n"
    )


def cells_of(markdown: str) -> list[str]:
    """The texts of a Markdown table's cells as a reader sees them; what is no text is in angle brackets."""
    inline = [
        t for t in MarkdownIt().enable(["table", "strikethrough"]).parse(markdown) if t.type == "inline"
    ]
    return [
        "".join(t.content if t.type == "text" else f"<{t.type}>" for t in token.children or ())
        for token in inline
        if token.level == 4
    ]


@given(
    st.lists(
        st.text(alphabet=st.sampled_from("a1_*`[](){}<>&|\\\\~$#+-.!:=@ \n\r\té中"), max_size=12), max_size=4
    )
)
@example(
    [
        "__init__",
        "[x](http://e.example)",
        "![x](y)",
        "<b>&amp;",
        r"\|",
        "a_b_",
        "**a**",
        "~~a~~",
        "# a",
        "1. a",
    ]
)
def test_markdown_shows_names_as_they_are(names: list[str]) -> None:
    table = TextTable("T", ("name", "n"), tuple((name, "1") for name in names))
    shown = cells_of(table.markdown())
    assert shown == ["name", "n", *(cell for name in names for cell in (one_line(name), "1"))]


@given(st.text(alphabet=st.sampled_from("a1_*`[]()<>&|\\\\~#+-.!>:= \n"), max_size=12))
def test_a_paragraph_shows_names_as_they_are(name: str) -> None:
    tokens = MarkdownIt().parse(f"> {plain_markdown(name)}, evaluate: few")
    assert [t.type for t in tokens if t.nesting == 1] == ["blockquote_open", "paragraph_open"]
    (inline,) = [t for t in tokens if t.type == "inline"]
    assert "".join(t.content for t in inline.children or ()) == f"{one_line(name)}, evaluate: few"


def test_rich_shows_names_as_they_are() -> None:
    console = Console(width=60, record=True, file=io.StringIO())
    console.print(TextTable("T [red]", ("model", "score"), (("[bold]a[/bold]", "0.5"),), "note").rich())
    shown = console.export_text()
    assert "T [red]" in shown
    assert "[bold]a[/bold]" in shown


def test_rich_cuts_no_name_on_a_narrow_terminal() -> None:
    console = Console(width=24, record=True, file=io.StringIO())
    table = TextTable("T", ("model", "score", "cost"), (("x" * 60, "0.123 [0.100, 0.150]", "0.5"),))
    console.print(table.rich())
    shown = console.export_text()
    assert shown.count("x") == 60
    assert "…" not in shown


def test_all_tables_of_a_study(tables: dict[str, TextTable]) -> None:
    assert list(tables) == [
        "runs",
        "policies",
        "exits",
        "areas",
        "comparison",
        "winners",
        "robustness",
        "attacks",
        "timing",
    ]
    for table in tables.values():
        assert all(len(row) == len(table.header) for row in table.rows)


def test_what_was_run(tables: dict[str, TextTable]) -> None:
    rows = {(row[0], row[1]): row for row in tables["runs"].rows}
    assert rows["SWEET", "evaluate"][2:4] == ("movies", "2")
    assert ("runs", "compare") in rows


def test_policies_and_exits(tables: dict[str, TextTable]) -> None:
    (joint, _) = tables["policies"].rows
    assert joint[:2] == ("Early-Exit", "confidence, 0.8")
    assert "[" in joint[2]
    assert tables["exits"].header == ("model", "metric", "layer 1", "layer 2", "layer 4")
    assert [row[:2] for row in tables["exits"].rows] == [
        ("Early-Exit", "accuracy"),
        ("Early-Exit", "f1"),
        ("Early-Exit", "auroc"),
        ("SWEET", "accuracy"),
        ("SWEET", "f1"),
        ("SWEET", "auroc"),
    ]


def test_comparison_has_a_line_a_place(tables: dict[str, TextTable]) -> None:
    table = tables["comparison"]
    assert table.header == ("where", "Early-Exit", "SWEET", "SWEET − Early-Exit")
    assert [row[0] for row in table.rows][:2] == ["layer 1", "layer 2"]
    assert all(row[3][0] in "+−" for row in table.rows)
    assert {row[3] for row in tables["winners"].rows} <= {"yes", "no"}


def test_robustness_carries_all_that_it_must(tables: dict[str, TextTable]) -> None:
    found = robustness(attack_rows(), LAYERS)
    (row,) = tables["robustness"].rows
    cells = dict(zip(tables["robustness"].header, row, strict=True))
    assert cells["attack"] == "same-word"
    assert cells["examples"] == "12"
    assert cells["depth"] == f"{found['clean_depth']:.2f} → {found['adversarial_depth']:.2f}"
    assert cells["cost"] == f"{found['clean_cost']:.3f} → {found['adversarial_cost']:.3f}"
    assert cells["score"] == f"{found['clean_accuracy']:.3f} → {found['adversarial_accuracy']:.3f}"
    assert cells["efficiency drop"].startswith(f"{found['efficiency_drop']:.3f} [")
    assert (cells["words changed"], cells["similarity"], cells["forward queries"]) == ("1.0", "0.900", "50.0")
    assert (cells["gradient queries"], cells["seconds"]) == ("2.0", "0.5")
    assert tables["timing"].rows == (("runs", "0.800", "1.000", "2.000", "2.00 [1.90, 2.10]"),)


def test_undefined_numbers_are_dashes_with_a_reason(tmp_path: Path) -> None:
    write_attack(tmp_path, [{**row, "label": None} for row in attack_rows()])
    table = all_tables(load_contents(tmp_path))["robustness"]
    assert dict(zip(table.header, table.rows[0], strict=True))["score"] == "– → –"
    assert table.note.endswith("same-word: some attacked examples have no label.")


def test_models_of_the_same_name_are_told_apart(tmp_path: Path) -> None:
    write_evaluation(tmp_path / "a", "SWEET", 1)
    write_evaluation(tmp_path / "b", "SWEET", 2)
    study = load_contents(tmp_path)
    (section,) = study.sections
    assert [row[0] for row in all_tables(study)["policies"].rows] == ["SWEET, seed 1", "SWEET, seed 2"]
    assert [len(curves) for curves in section.curves["accuracy"].values()] == [2]
    assert all_tables(study)["areas"].rows[0][:3] == ("SWEET", "accuracy", "2")
    assert list(exit_scores(section, "accuracy")) == ["SWEET, seed 1", "SWEET, seed 2"]


def test_a_comparison_comes_before_single_models(runs: Path) -> None:
    (section,) = load_contents(runs).sections
    assert {name: len(curves) for name, curves in section.curves["accuracy"].items()} == {
        "Early-Exit": 1,
        "SWEET": 1,
    }
    assert section.covered == {"joint/evaluate.json", "sweet/evaluate.json"}
    compared = exit_scores(section, "accuracy")
    assert list(compared) == ["Early-Exit", "SWEET"]
    assert compared["SWEET"]["layer"].to_pylist() == list(LAYERS)
    assert list(exit_scores(section, "f1")) == ["Early-Exit", "SWEET"]
    assert exit_scores(section, "matthews") == {}


def test_a_model_outside_the_comparison_is_drawn_beside_it(tmp_path: Path) -> None:
    write_study(tmp_path)
    write_evaluation(tmp_path / "late", "Later", 5)
    (section,) = load_contents(tmp_path).sections
    assert set(section.curves["accuracy"]) == {"Early-Exit", "SWEET", "Later"}
    assert set(exit_scores(section, "accuracy")) == {"Early-Exit", "SWEET", "Later"}


def test_doubts_are_told_once(runs: Path, tmp_path: Path) -> None:
    assert load_contents(runs).doubts == [
        "Early-Exit, evaluate: 2 examples were cut",
        "SWEET, evaluate: 2 examples were cut",
        "same-word: only 12 examples: intervals are wide [few]",
    ]
    write_attack(tmp_path / "idle", [])
    assert load_contents(tmp_path).doubts == ["idle, attack: no example was attacked"]


def test_benches_of_training_and_attacks_have_tables(tmp_path: Path) -> None:
    step = {
        "seconds": 0.2,
        "lowest": 0.1,
        "highest": 0.4,
        "examples_per_second": 80.0,
        "activation_mib": 64.0,
    }
    passes = {
        "forward": 90.0,
        "gradient": 2.0,
        "prepared": 1000,
        "examples_per_second": 0.5,
        "model_share": 0.8,
    }
    depths = {"clean_depth": 2.0, "depth": 5.5, "words_changed": 2.1, "cpu_seconds": 30.0}
    ratios = {"times_faster": 12.0, "lowest": 9.0, "highest": 15.0, "median_times_faster": 11.0}
    risks = {"mean_risk": 0.011, "high_risk": 0.019, "cost": 0.4, "held": 0.995, "kept": True}
    counts = {"calibration": 500, "measured": 500, "splits": 200}
    stated = {"criterion": "entropy", "guarantee": "accuracy_drop", "alpha": 0.02, "delta": 0.1}
    alarms = {"drift_alarmed": 1.0, "drift_delay": 12.0, "audit_alarmed": 0.25, "audit_delay": None}
    retuned = {"retuned_disagreement": 0.02, "retuned_cost": 0.9}
    shifted = {
        "stage": "tweets",
        "depth": 3.5,
        "cost": 0.6,
        "disagreement": 0.07,
        "promise": 0.05,
        "texts": 100,
    }
    times = {"p50": 2.0, "p95": 4.0, "p99": 6.0, "ratio": 1.1}
    attacked = {"p50_before": 1.5, "p99_before": 5.0, "rise": 0.05, "rise_low": -0.01, "rise_high": 0.1}
    speed = {"texts_per_second": 800.4, "accuracy": 0.9, "start_seconds": 1.2}
    for name, row in {
        "service": {"peer": "infinity", "rows": 16, **times, **speed},
        "service_latency": {"way": "in process", "rate": 400.0, "reached": 399.0, **times},
        "service_attack": {"service": "budget", "attacked_share": 0.2, **times, **attacked, "cost": None},
        "drift": {**shifted, **alarms, **retuned},
        "promises": {**stated, **counts, **risks},
        "bench_train": {"name": "multi_model", **step, "times_plain": 2.5},
        "bench_attack": {"name": "same-plus", "examples": 20, "seconds": 40.0, **passes, **depths, **ratios},
    }.items():
        write_record(tmp_path / name, command=name, config={}, metrics={}, seed=0, tables={name: [row]})
    tables = all_tables(load_contents(tmp_path))
    assert tables["bench-train"].rows == (
        ("bench_train", "multi model", "0.200 [0.100, 0.400]", "80", "2.50", "64"),
    )
    assert tables["bench-attack"].rows == (
        (
            *("bench_attack", "same-plus", "20", "2.00 → 5.50", "30.0", "40.0", "90", "2.0", "1000", "2.1"),
            *("12.0 [9.0, 15.0]", "11.0"),
        ),
    )
    measured = ("3.50", "0.600", "0.070", "1.00", "12", "0.25", "–", "0.020", "0.900")
    assert tables["drift"].rows == (("drift", "tweets", "0.050", *measured),)
    assert tables["service"].rows == (("service", "infinity", "16", "800", "1.10", "6.0", "0.900", "1.20"),)
    latency = ("service_latency", "in process", "400", "399", "2.00", "4.00", "6.00", "1.10")
    assert tables["service-latency"].rows == (latency,)
    under_attack = ("1.50 → 2.00", "5.00 → 6.00", "0.050 [−0.010, 0.100]", "–")
    assert tables["service-attack"].rows == (("service_attack", "budget", "0.20", *under_attack),)
    names = ("promises", "entropy", "accuracy drop", "0.02, with probability 0.9", "199 of 200")
    assert tables["promises"].rows == ((*names, "0.011", "0.019", "0.400", "yes"),)


def race_row(peer: str, kind: str, mean: float, cost: float, share: float = 0.0) -> dict[str, object]:
    found = dict.fromkeys(("p50", "p95", "p99", "throughput", "speedup", "faster", "score", "peak_mib"), 1.0)
    return {"peer": peer, "kind": kind, "batch_size": 1, "length": 0, **found} | {
        "mean": mean,
        "cost": cost,
        "share": share,
    }


def test_a_bench_tells_how_far_exits_could_get(tmp_path: Path) -> None:
    """Static models take 1 ms and 6 ms more for all layers, the fastest peer 6: at half the cost 4 ms are in reach."""
    rows = [
        race_row("openvino-nncf-full", "full", 6.0, 1.0),
        race_row("ort-static-int8-full", "full", 7.0, 1.0),
        race_row("cut-2", "cut", 3.0, 1 / 3),
        race_row("cut-4", "cut", 5.0, 2 / 3),
        race_row("ours-int8", "ours", 5.0, 0.5, 0.6),
    ]
    write_record(tmp_path / "race", command="bench", config={}, metrics={}, seed=0, tables={"bench": rows})
    few = [row for row in rows if row["kind"] != "cut"]
    write_record(tmp_path / "few", command="bench", config={}, metrics={}, seed=0, tables={"bench": few})
    table = all_tables(load_contents(tmp_path))["bench-limits"]
    numbers = ("1.00", "6.00", "6.00", "0.500", "4.00", "5.00", "0.750", "0.600")
    assert table.rows == (("race", "1", "data", *numbers),)
