"""Tables for people: at every width each row says which it is, and no cell is cut."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from offramp._core.text import one_line
from offramp.cli import common
from offramp.cli.bench import show_benchmark
from offramp.cli.tables import print_table

PEERS = ["ort-static-int8-full", "ours-fp32", "cut-layer-4"]
HEADER = ["peer", *(f"number {k}" for k in range(12))]
ROWS = [[peer, *(f"{k}.25" for k in range(12))] for peer in PEERS]


def printed(header: list[str], rows: list[list[str]], width: int | None, *, names: int = 1) -> str:
    """What a terminal of a width shows; None is a pipe."""
    terminal = {"width": width, "force_terminal": True} if width else {}
    console = Console(file=io.StringIO(), markup=False, color_system=None, **terminal)
    print_table(console, "Title", header, rows, names=names)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [40, 80, 200])
def test_columns_that_do_not_fit_follow_below_with_the_names_again(width: int) -> None:
    shown = printed(HEADER, ROWS, width)
    assert max(map(len, shown.splitlines())) <= width
    tables = shown.count("┏")
    for peer in PEERS:
        assert shown.count(peer) == tables
    for cell in (*HEADER[1:], *ROWS[0][1:]):
        assert cell in shown
    assert "…" not in shown


def test_a_pipe_gets_one_table_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    shown = printed(HEADER, ROWS, None)
    assert shown.count("┏") == 1
    assert max(map(len, shown.splitlines())) > 80
    monkeypatch.setenv("COLUMNS", "80")
    assert max(map(len, printed(HEADER, ROWS, None).splitlines())) <= 80


def test_names_too_wide_for_a_table_stand_above_their_numbers() -> None:
    name = "a very long name " * 8
    lines = printed(["model", "score", "cost"], [[name, "0.5", "0.25"]], 40).splitlines()
    assert " ".join(lines[1:-2]).split() == name.split()
    assert lines[-2:] == ["  score: 0.5", "  cost: 0.25"]


@given(
    names=st.lists(st.text(max_size=30), min_size=1, max_size=3),
    columns=st.integers(0, 6),
    width=st.integers(20, 120),
)
def test_no_name_is_cut_or_interpreted(names: list[str], columns: int, width: int) -> None:
    shown = printed(["name", *"abcdef"[:columns]], [[name, *"123456"[:columns]] for name in names], width)
    assert "\x1b[" not in shown.replace("\x1b[1m", "").replace("\x1b[0m", "")
    unwrapped = "".join(shown.split())
    for name in names:
        assert "".join(one_line(name).split()) in unwrapped


def test_what_comes_from_data_is_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    names = [
        "[/quote]",
        "[spam]",
        "[link=http://a.example]x[/link]",
        ":smile:",
        "\x1b[31mred",
        "a\r\nb",
        "نص\u202e",
    ]
    common.show("[bold]title", [{"name": name, "n": 1} for name in names])
    common.note("; ".join(names))
    shown = capsys.readouterr().err
    for name in ("[bold]title", *names[:4], "⟨U+001B⟩[31mred", "a b", "نص⟨U+202E⟩"):
        assert shown.count(name) == 2 if name != "[bold]title" else 1
    assert "\x1b" not in shown


def test_one_row_stands_upright_with_units(capsys: pytest.CaptureFixture[str]) -> None:
    common.show("policy", [{"rule": "confidence", "cost": 0.5, "depth": 2.0, "p95": 1.5, "examples": 32}])
    shown = capsys.readouterr().err
    for heading in ("cost (share of FLOPs)", "depth (layers)", "p95, ms", "examples"):
        assert heading in shown


@pytest.mark.parametrize("columns", ["40", "80", "200"])
def test_the_peers_of_a_benchmark_are_named_in_full(
    columns: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setattr(common.console, "_width", None)  # it keeps the COLUMNS of the moment when it was made
    numbers = ("p50", "p95", "p99", "throughput", "speedup", "faster", "cost", "share", "score", "peak_mib")
    table = [
        {"peer": peer, "batch_size": 1, "joules": None, **dict.fromkeys(numbers, 123.456)} for peer in PEERS
    ]
    show_benchmark(table)
    shown = capsys.readouterr().err
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= int(columns)
    for text in (*PEERS, "p50, ms", "texts/s", "× best full depth", "cost (share of FLOPs)", "peak MiB"):
        assert text in shown
