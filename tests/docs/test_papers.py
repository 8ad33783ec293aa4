"""The tables in docs/papers.md are those of the reports."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from cogapp import Cog

ROOT = Path(__file__).parents[2]
PAPERS = ROOT / "docs" / "papers.md"


def test_tables_are_those_of_the_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert Cog().main(["cog", "--check", str(PAPERS)]) == 0, "docs/papers.md is behind its reports: make docs"


def test_every_file_it_links_is_there() -> None:
    links = re.findall(r"\]\((?!https?://)([^)#]+)\)", PAPERS.read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if not (PAPERS.parent / link).exists()] == []
