from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from offramp._core.errors import ConfigError, DataError
from offramp._core.text import visible
from offramp.reports import ALL_FIGURES, load_contents, report
from offramp.reports.html import environment
from offramp.reports.page_sections import SECTIONS
from offramp.reports.text_table import TextTable
from tests.reports.made_up_runs import HOSTILE, attack_rows, write_attack, write_evaluation


class Elements(HTMLParser):
    """What a browser would see: elements with their attributes, and the code of scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.data: list[str] = []
        self.feed(page)

    def handle_starttag(self, name, attributes) -> None:
        self.found.append((name, dict(attributes)))
        if name == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.found and self.found[-1][0] == "script" and self.cdata_elem == "script":
            self.scripts[-1] += data
        else:
            self.data.append(data)


def island(page: str, mark: str) -> Any:
    """The data of the first element with an attribute."""
    start = page.index('<script type="application/json">', page.index(f" {mark}>"))
    return json.loads(page[page.index(">", start) + 1 : page.index("</script>", start)])


@pytest.fixture(scope="module")
def written(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return report(runs, tmp_path_factory.mktemp("report"), figures=ALL_FIGURES)


@pytest.fixture(scope="module")
def page(written: dict[str, Path]) -> str:
    return written["index.html"].read_text(encoding="utf-8")


def test_everything_is_written(written: dict[str, Path]) -> None:
    exits = ("exits-accuracy", "exits-f1", "exits-auroc")
    figures = ("curves-accuracy", *exits, "histogram-1", "histogram-attack-1", "depth")
    expected = {f"figures/{name}.{end}" for name in figures for end in ("svg", "png")}
    names = ("runs", "policies", "exits", "areas", "comparison", "winners", "robustness", "attacks", "timing")
    assert set(written) == expected | {f"tables/{name}.md" for name in names} | {"report.md", "index.html"}
    assert all(path.stat().st_size > 0 for path in written.values())
    markdown = written["report.md"].read_text(encoding="utf-8")
    assert "![curves accuracy](figures/curves-accuracy.svg)" in markdown
    assert '\n\n<a id="robustness"></a>\n\n**Under attack**\n\n| attack' in markdown
    targets = re.findall(r'^<a id="(.*)"></a>$', markdown, flags=re.MULTILINE)
    assert targets == [Path(name).stem for name in written if name.startswith("tables/")]
    assert "> SWEET, evaluate: 2 examples were cut" in markdown


def test_the_page_has_every_section(page: str) -> None:
    elements = Elements(page)
    sections = [attributes["id"] for name, attributes in elements.found if name == "section"]
    assert sections == [*(name for name in SECTIONS if name != "bench"), "provenance"]
    links = [attributes["href"] for name, attributes in elements.found if name == "a"]
    assert links == ["#main", *(f"#{section}" for section in sections)]


def test_hostile_texts_stay_texts(page: str) -> None:
    assert "<script>alert" not in page
    assert "\u202e" not in page
    (attack,) = island(page, "data-browser")
    shown = "".join(words for words, kind in attack["rows"][0]["segments"][0] if kind != 1)
    assert shown == HOSTILE.replace("\u202e", "⟨U+202E⟩").replace("\u200b", "⟨U+200B⟩")
    for name, attributes in Elements(page).found:
        assert not any(key.startswith("on") for key in attributes), (name, attributes)


def test_the_page_loads_nothing(page: str) -> None:
    elements = Elements(page)
    for name, attributes in elements.found:
        for key in ("src", "href", "data", "action", "srcset"):
            value = attributes.get(key) or ""
            assert value.startswith(("#", "data:image/svg+xml;base64,")) or not value, (name, key, value[:80])
        assert name not in ("link", "iframe", "object", "embed", "base", "form")
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style


def test_only_our_own_scripts_may_run(page: str) -> None:
    elements = Elements(page)
    (policy,) = [a["content"] for n, a in elements.found if n == "meta" and a.get("http-equiv")]
    kinds = [a.get("type") for n, a in elements.found if n == "script"]
    code = [script for script, kind in zip(elements.scripts, kinds, strict=True) if kind is None]
    hashes = [base64.b64encode(hashlib.sha256(c.encode()).digest()).decode() for c in code]
    allowed = re.findall(r"'sha256-([^']+)'", policy or "")
    assert allowed == hashes
    assert len(code) == 1
    assert (policy or "").startswith("default-src 'none'; script-src 'sha256-")
    assert "'unsafe-inline'" not in (policy or "").split("style-src")[0]


def test_the_same_runs_give_the_same_report(runs: Path, tmp_path: Path) -> None:
    first, second = (report(runs, tmp_path / name, figures=ALL_FIGURES) for name in ("a", "b"))
    assert list(first) == list(second)
    for name in first:
        assert first[name].read_bytes() == second[name].read_bytes(), name


def test_a_run_by_itself_has_only_its_sections(tmp_path: Path) -> None:
    write_attack(tmp_path / "run", attack_rows(), name='"><script>')
    page = report(tmp_path / "run", tmp_path / "out")["index.html"].read_text(encoding="utf-8")
    sections = [a["id"] for n, a in Elements(page).found if n == "section"]
    assert sections == ["leaving", "robustness", "examples", "provenance"]
    assert '"><script>' not in page


def test_data_sets_stay_apart(tmp_path: Path) -> None:
    write_evaluation(tmp_path / "runs" / "a", "SWEET", 1, data="SST 2")
    write_evaluation(tmp_path / "runs" / "b", "SWEET", 2, data="movies")
    written = report(tmp_path / "runs", tmp_path / "out", figures=["*-curves-*"])
    assert {"figures/sst-2-curves-accuracy.svg", "figures/movies-curves-accuracy.svg"} <= set(written)
    assert "**Every exit by itself: SST 2**" in written["tables/sst-2-exits.md"].read_text(encoding="utf-8")
    page = written["index.html"].read_text(encoding="utf-8")
    sections = [a["id"] for n, a in Elements(page).found if n == "section"]
    kinds = ("curves", "exits", "leaving", "comparison")
    assert sections == [*(f"{p}-{k}" for p in ("sst-2", "movies") for k in kinds), "provenance"]
    assert "SST 2: Every exit" in page


def test_empty_and_broken_folders_are_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no run records"):
        report(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    write_evaluation(tmp_path, "SWEET")
    (tmp_path / "curves.parquet").write_bytes(b"")
    with pytest.raises(DataError, match=r"'curves' of evaluate.json cannot be read"):
        report(tmp_path, tmp_path / "out")


def rendered(source: str, **values: object) -> str:
    return environment().from_string(source).render(values)


def test_templates_escape_every_value() -> None:
    assert rendered("{{ x }}", x='<a href="x">&') == "&lt;a href=&#34;x&#34;&gt;&amp;"
    assert rendered('<p class="{{ x }}">', x='"x') == '<p class="&#34;x">'
    assert rendered("{{ x }}", x="a\u200bb") == "a⟨U+200B⟩b"
    assert visible("a\x00b\ud800\tc\n") == "a⟨U+0000⟩b⟨U+D800⟩\tc\n"


def test_html_escapes_every_cell() -> None:
    made = TextTable("<t>", ("<h>",), (("<c>\u200b",),), "<n>")
    content = environment().get_template("macros.html.j2").module.table(made)  # type: ignore[attr-defined]
    assert [f"&lt;{c}&gt;" in content for c in "thcn"] == [True] * 4
    assert "⟨U+200B⟩" in content
    assert "<c>" not in content


def test_json_in_a_script_cannot_end_it() -> None:
    written = rendered("{{ x | tojson }}", x={"name": "</script><!--&"})
    assert not set("<>&") & set(written)
    assert json.loads(written) == {"name": "</script><!--&"}
    with pytest.raises(ValueError, match="JSON"):
        rendered("{{ x | tojson }}", x=float("nan"))


def test_figures_are_written_on_demand(runs: Path, tmp_path: Path) -> None:
    bare = report(runs, tmp_path / "bare")
    assert not [name for name in bare if name.startswith("figures/")]
    assert "](figures/" not in bare["report.md"].read_text(encoding="utf-8")
    some = report(runs, tmp_path / "some", figures=["exits-*", "depth"])
    figures = sorted(name for name in some if name.startswith("figures/") and name.endswith(".svg"))
    assert figures == [
        f"figures/{name}.svg" for name in ("depth", "exits-accuracy", "exits-auroc", "exits-f1")
    ]
    with pytest.raises(ConfigError, match="name of a figure, got 'exit-f1': this report has curves-accuracy"):
        report(runs, tmp_path / "none", figures=["exit-f1"])
    assert not (tmp_path / "none").exists()


def test_tables_need_no_files_of_their_own(runs: Path, tmp_path: Path) -> None:
    whole = report(runs, tmp_path / "whole")
    bare = report(runs, tmp_path / "bare", table_files=False)
    assert set(bare) == {"report.md", "index.html"}
    assert bare["report.md"].read_bytes() == whole["report.md"].read_bytes()
    assert not (tmp_path / "bare" / "tables").exists()


def test_two_data_sets_with_one_name_in_files_get_files_of_their_own(tmp_path: Path) -> None:
    for i, data in enumerate(["a b", "a-b", "中", "文", "x" * 300]):
        write_evaluation(tmp_path / f"run-{i}", f"run-{i}", data=data)
    sections = load_contents(tmp_path).sections
    prefixes = {section.data: section.prefix for section in sections}
    assert (prefixes["a b"], prefixes["a-b"]) == ("a-b-", "a-b-2-")
    assert (prefixes["中"], prefixes["文"]) == ("other-", "other-2-")
    assert len(prefixes["x" * 300]) <= 101


def test_reports_import_nothing_heavy() -> None:
    heavy = (
        "torch",
        "transformers",
        "datasets",
        "matplotlib",
        "sklearn",
        "pyarrow",
        "pandas",
        "jinja2",
    )
    code = f"import sys, offramp.reports; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
