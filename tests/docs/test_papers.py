"""The tables in the docs are those of the reports."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from cogapp import Cog

from offramp._core.errors import ConfigError
from offramp.reports.write import read_report_table

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "docs" / name
    for name in (
        *("papers.md", "performance.md", "scoreboard.md"),
        *("should-i-exit.md", "comparison.md", "operating.md"),
    )
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tables_are_those_of_the_reports(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert Cog().main(["cog", "--check", str(page)]) == 0, f"{page.name} is behind its reports: make docs"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_it_links_is_there(page: Path) -> None:
    links = re.findall(r"\]\((?!https?://)([^)#]+)\)", page.read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_table_it_links_is_in_its_report(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+report\.md)#([^)]+)\)", page.read_text(encoding="utf-8"))
    for report, name in links:
        assert read_report_table(page.parent / report, name).startswith("**")
    assert links or page.name != "papers.md"


def test_a_table_that_a_report_lacks() -> None:
    with pytest.raises(ConfigError, match="unknown table of .*report.md 'winner'. Did you mean 'winners'"):
        read_report_table(ROOT / "results" / "sweet-minilm" / "report" / "report.md", "winner")
