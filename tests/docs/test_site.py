"""The documentation site: every page has a place in it, and it builds without a warning."""

import re
import shutil
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

import offramp

ROOT = Path(__file__).parents[2]


def test_every_page_is_in_the_navigation():
    config = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))
    listed = set(pages_of(config["project"]["nav"]))
    pages = {path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert pages <= listed
    assert {page for page in listed if not page.startswith("docs/reference/")} <= pages | {
        path.name for path in ROOT.glob("*.md")
    }


def pages_of(entries):
    for entry in entries:
        for value in entry.values():
            yield from pages_of(value) if isinstance(value, list) else [value]


@pytest.mark.slow
def test_the_site_builds_without_warnings_and_documents_every_public_name():
    pytest.importorskip("zensical")
    pytest.importorskip("mkdocstrings")
    built = subprocess.run(
        [sys.executable, "docs/build_site.py"], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert built.returncode == 0, built.stdout + built.stderr
    reference = ROOT / "build" / "site" / "docs" / "reference"
    config = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))
    pages = {Path(page) for page in pages_of(config["project"]["nav"]) if page.startswith("docs/reference/")}
    assert {path.stem for path in reference.glob("*.html")} == {page.stem for page in pages}
    for page in pages - {Path("docs/reference/commands.md")}:
        html = (reference / f"{page.stem}.html").read_text(encoding="utf-8")
        module = offramp if page.stem == "offramp" else import_module(f"offramp.{page.stem}")
        missing = [name for name in module.__all__ if f'id="{module.__name__}.{name}"' not in html]
        assert not missing, f"{page.stem}: {missing}"
    built_pages = (ROOT / "build" / "site").rglob("*.html")
    drawings = [page for page in built_pages if '<pre class="mermaid">' in page.read_text(encoding="utf-8")]
    assert drawings
    for page in drawings if shutil.which("npm") else ():
        (script,) = re.findall(r'<script src="([./]*mermaid.min.js)">', page.read_text(encoding="utf-8"))
        assert (page.parent / script).is_file()
