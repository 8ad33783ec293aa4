"""docs/architecture.md draws the rooms as they are, and every name on it exists."""

from __future__ import annotations

import importlib
import re
from functools import reduce
from pathlib import Path

import pytest

from tests.test_architecture import LEVELS, PACKAGE

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "architecture.md").read_text(encoding="utf-8")
LINK = re.compile(r"\[(?P<text>[^\]]+)\]\((?!https?://|#)(?P<path>[^)#]+)(?:#[^)]*)?\)")
NAME = re.compile(r"`(\w+(?:\.\w+)*)`")
ROWS = re.findall(r"^\| (\d+) \| `(\w+)` \| (.+) \|$", PAGE, flags=re.MULTILINE)


def rooms_by_level(pairs: list[tuple[str, str]]) -> list[set[str]]:
    """Sets of rooms, from level 0 up; a level without rooms is empty, and a room that comes twice is an error."""
    assert len({room for _, room in pairs}) == len(pairs)
    highest = max(int(level) for level, _ in pairs)
    return [{room for level, room in pairs if int(level) == number} for number in range(highest + 1)]


def linked_names() -> list[tuple[str, str]]:
    """Every name in code style that links to a module of the package, with the path of the module."""
    links = {(m["text"], m["path"]) for m in LINK.finditer(PAGE)}
    return sorted((text.strip("`"), path) for text, path in links if NAME.fullmatch(text) and "/src/" in path)


def test_the_table_of_rooms_is_that_of_the_tests() -> None:
    assert rooms_by_level([(level, room) for level, room, _ in ROWS]) == [set(rooms) for rooms in LEVELS]


def test_the_drawing_is_that_of_the_tests() -> None:
    (drawing,) = re.findall(r"```mermaid\n(.*?)```", PAGE, flags=re.DOTALL)
    blocks = re.findall(
        r'subgraph level(\d+) \["level (\d+):[^"]*"\]\n(.*?)\n  end', drawing, flags=re.DOTALL
    )
    assert all(identifier == label for identifier, label, _ in blocks)
    pairs = [(level, room) for level, _, body in blocks for room in re.findall(r'\["(\w+)"\]', body)]
    assert rooms_by_level(pairs) == [set(rooms) for rooms in LEVELS]
    arrows = " --> ".join(f"level{number}" for number in reversed(range(len(LEVELS))))
    assert f"  {arrows}\n" in drawing


@pytest.mark.parametrize(("room", "content"), [(room, content) for _, room, content in ROWS])
def test_a_room_that_is_only_planned_says_so(room: str, content: str) -> None:
    exists = (PACKAGE / room).is_dir() or (PACKAGE / f"{room}.py").is_file()
    assert exists != content.startswith("planned:")


def test_every_link_leads_somewhere() -> None:
    paths = {m["path"] for m in LINK.finditer(PAGE)}
    assert paths
    assert [path for path in sorted(paths) if not (DOCS / path).exists()] == []


@pytest.mark.parametrize(("name", "path"), linked_names())
def test_every_name_is_in_the_module_that_it_links(name: str, path: str) -> None:
    file = Path(path.removeprefix("../src/offramp/"))
    if file.name == name:  # the link names the module itself
        return
    inner = file.with_suffix("").parts
    module = importlib.import_module(".".join(["offramp", *inner]).removesuffix(".__init__"))
    value = reduce(getattr, name.split("."), module)
    home = getattr(value, "__module__", module.__name__)
    assert home == module.__name__, f"{name} is defined in {home}"


def test_names_of_code_are_links_or_rooms() -> None:
    """A name without a link would not be tested."""
    rooms = {room for rooms in LEVELS for room in rooms}
    assert {name for name in NAME.findall(LINK.sub("", PAGE)) if name not in rooms} == set()
