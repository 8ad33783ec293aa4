"""Lists of runs: chosen by what their records hold, and compared by what differs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Any

from offramp._core.arguments import number
from offramp._core.errors import ConfigError, unknown_name
from offramp._core.numbers import is_number
from offramp._core.paths import UserPath, user_path
from offramp.reports.conditions import flat, run_facts, run_numbers
from offramp.reports.records import Run, load_runs

# The training record has them.
OF_THE_MODEL = ("strategy", "backbone", "encoder", "layers", "exits", "pooling")
ALWAYS_DIFFERENT = ("path", "started", "seconds")
DAY = "2026-11-22"


@dataclass(frozen=True)
class RunFilter:
    """Which runs to list: those that meet everything.

    Args:
        where: texts of values by name, with `*` for any characters.
        min: least numbers by name.
        max: largest numbers by name.
        since: the earliest start, a date or a time in ISO 8601, in UTC where it names no zone.
        until: the latest start; a date includes its day.

    Raises:
        ConfigError: a bound that is no number, or a time that is none.
    """

    where: Mapping[str, str] = field(default_factory=dict)
    min: Mapping[str, float] = field(default_factory=dict)
    max: Mapping[str, float] = field(default_factory=dict)
    since: str | None = None
    until: str | None = None

    def __post_init__(self) -> None:
        for bounds in (self.min, self.max):
            for name, bound in bounds.items():
                number(f"the bound of {name}", bound, "a finite number", lambda _: True)
        for name in ("since", "until"):
            if (text := getattr(self, name)) is not None:
                _moment(name, text)

    def accepts(self, facts: Mapping[str, Any]) -> bool:
        """Whether a run meets everything; a run without a value does not meet what is asked of it."""
        started = _moment("started", facts["started"])
        return (
            all(
                name in facts and fnmatchcase(as_text(facts[name]), text) for name, text in self.where.items()
            )
            and all(is_number(facts.get(name)) and facts[name] >= low for name, low in self.min.items())
            and all(is_number(facts.get(name)) and facts[name] <= high for name, high in self.max.items())
            and (self.since is None or started >= _moment("since", self.since))
            and (self.until is None or started <= _moment("until", self.until))
        )


def _moment(name: str, text: str) -> datetime:
    """A date or time; the date of an `until` is the end of its day."""
    try:
        moment = datetime.fromisoformat(text)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{name} must be a date or a time, such as {DAY}, got {text!r:.40}") from error
    if name == "until" and len(text) == len(DAY):
        moment += timedelta(days=1, microseconds=-1)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def list_runs(
    folders: Sequence[UserPath], chosen: RunFilter | None = None, columns: Iterable[str] = ()
) -> tuple[list[dict[str, Any]], list[str]]:
    """The values of all runs below some folders, in order of their start.

    Args:
        folders: of runs, or of packed ones.
        chosen: which runs to list; by default all.
        columns: names that will be shown of them.

    Returns:
        For each run its values by name: `run`, the folder of its record; its options, metrics, versions and hardware,
        nested ones with dots; and, for what was done with a model, the strategy and the encoder of its training. Then
        a sentence for each record that cannot be read.

    Raises:
        DataError: there is no record below a folder.
        ConfigError: a filter or a column asks for a name or a value that no run has, listed or not.
    """
    listed: list[dict[str, Any]] = []
    left_out: list[str] = []
    for folder in folders:
        runs, unread = load_runs(folder, tables=False)
        prefix = PurePosixPath(user_path(folder).as_posix() if len(folders) > 1 else "")
        trained = {_folder(run): run for run in runs if run.command == "train"}
        listed += [_values(run, prefix, trained) for run in runs]
        left_out += unread
    chosen = chosen or RunFilter()
    _check_names(chosen, columns, listed)
    accepted = [values for values in listed if chosen.accepts(values)]
    return sorted(accepted, key=lambda values: (values["started"], values["run"])), left_out


def _folder(run: Run) -> PurePosixPath:
    return PurePosixPath(run.record["path"]).parent


def _values(run: Run, prefix: PurePosixPath, trained: Mapping[PurePosixPath, Run]) -> dict[str, Any]:
    record, folder = run.record, _folder(run)
    model = next((trained[path] for path in (folder, *folder.parents) if path in trained), None)
    inherited = {} if model is None else {name: model.get(name) for name in OF_THE_MODEL}
    machine = {name: record[name] or {} for name in ("versions", "hardware", "git")}
    label = (prefix / folder).as_posix()
    return {
        "run": run.name if label == "." else label,
        **{name: value for name, value in inherited.items() if value is not None},
        **run_numbers(run),
        **run_facts(run),
        "data": run.get("data"),  # without the split, which has a name of its own
        "started": record["started"],
        "seconds": record["seconds"],
        **dict(flat(machine)),
    }


def _check_names(chosen: RunFilter, columns: Iterable[str], listed: Sequence[Mapping[str, Any]]) -> None:
    """Raise `ConfigError` for a name or a value that no run has: it is misspelt."""
    present = {name for run in listed for name in run}
    for name in (*chosen.where, *chosen.min, *chosen.max, *columns):
        if name not in present:
            near = get_close_matches(name, present)
            plain = [other for other in present if "." not in other]
            raise ConfigError(unknown_name("name of a value", name, {*plain, *near}))
    for name, text in chosen.where.items():
        values = {as_text(run[name]) for run in listed if name in run}
        if not any(fnmatchcase(value, text) for value in values):
            raise ConfigError(unknown_name(name, text, values))
    for name in (*chosen.min, *chosen.max):
        if not any(is_number(run.get(name)) for run in listed):
            raise ConfigError(f"{name} is no number in any of these runs: ask for its text with where")


def differences(listed: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The values that differ among runs, by name, one for each run; None where a run has none."""
    names = dict.fromkeys(name for run in listed for name in run)
    table = {name: [run.get(name) for run in listed] for name in names if name not in ALWAYS_DIFFERENT}
    return {name: values for name, values in table.items() if any(value != values[0] for value in values)}


def as_text(value: Any) -> str:
    """A value as a filter compares it."""
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
