"""`offramp runs`: list, filter and compare the records of runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from cyclopts import Parameter

from offramp._core.errors import ConfigError
from offramp._core.progress import console
from offramp.cli.common import JsonFlag, emit, format_cell, note, show
from offramp.cli.paths import PathOption
from offramp.cli.tables import print_table
from offramp.reports.run_list import RunFilter, as_text, differences, list_runs

T = TypeVar("T")
COLUMNS = ("command", "data", "strategy", "started", "score", "cost", "gain_drop")
LONGEST = 40  # characters of a cell


def runs(
    folders: Annotated[tuple[PathOption, ...], Parameter(help="folders of runs.")] = (Path("runs"),),
    *,
    where: Annotated[tuple[str, ...], Parameter(help="NAME=VALUE, with * for any characters.")] = (),
    min: Annotated[tuple[str, ...], Parameter(help="NAME=NUMBER: at least that.")] = (),
    max: Annotated[tuple[str, ...], Parameter(help="NAME=NUMBER: at most that.")] = (),
    since: str | None = None,
    until: str | None = None,
    columns: tuple[str, ...] = (),
    compare: bool = False,
    json: JsonFlag = False,
) -> None:
    """List the runs below some folders, choose among them, and compare them.

    For example `offramp runs`, or the evaluations of models trained by SWEET that lose little:

        offramp runs --where command=evaluate strategy=sweet --max drop=0.01

    What differs between two runs, `offramp runs runs/joint runs/sweet --where command=evaluate --compare`. A name is
    that of an option or a metric in a record, such as `data`, `recipe`, `seed` or `accuracy`; or of a version or the
    hardware, such as `versions.torch`. All conditions must hold.

    Args:
        since: the earliest start: a date such as 2026-11-22, or a time, in UTC.
        until: the latest start; a date includes its day.
        columns: the names to list, instead of the usual ones.
        compare: show the values that differ, a column for each run.
    """
    chosen = RunFilter(
        named_values("where", where, str),
        named_values("min", min, float),
        named_values("max", max, float),
        since,
        until,
    )
    listed, left_out = list_runs(folders, chosen, columns)
    for sentence in left_out:
        note(sentence)
    if not listed:
        note("no run meets all conditions")
    if compare:
        show_differences(listed, json)
        return
    shown = columns or [name for name in COLUMNS if any(name in run for run in listed)]
    rows = [{name: _cell(name, run.get(name)) for name in ("run", *shown)} for run in listed]
    show("1 run" if len(listed) == 1 else f"{len(listed)} runs", rows)
    emit(json, {"runs": listed, "left_out": left_out})


def show_differences(listed: Sequence[dict[str, Any]], json: bool) -> None:
    """What differs between runs, a column for each; the columns have numbers, since names of runs are long."""
    if len(listed) == 1:
        raise ConfigError(f"only {listed[0]['run']} meets the conditions: two runs are needed to compare")
    names = [run["run"] for run in listed]
    table = {name: values for name, values in differences(listed).items() if name != "run"}
    for column, name in enumerate(names, start=1):
        note(f"{column}: {name}")
    if table:
        rows = [[name, *(_cell(name, value) for value in values)] for name, values in table.items()]
        print_table(console, "what differs", ["", *map(str, range(1, len(names) + 1))], rows)
    elif names:
        note("nothing differs but the time")
    emit(json, {"runs": names, "differences": table})


def named_values(option: str, pairs: Sequence[str], convert: Callable[[str], T]) -> dict[str, T]:
    """The values of an option that is written NAME=VALUE."""
    values = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        try:
            if not name or not equals:
                raise ValueError
            values[name] = convert(text)
        except ValueError as error:
            example = "data=movies" if option == "where" else "accuracy=0.8"
            raise ConfigError(f"--{option} takes NAME=VALUE, such as {example}, got {pair!r:.60}") from error
    return values


def _cell(name: str, value: Any) -> str:
    if name == "started" and isinstance(value, str):
        return value.partition("T")[0]
    text = as_text(value) if isinstance(value, list) else format_cell(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
