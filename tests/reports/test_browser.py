"""The report's page in a real Chromium: what a reader sees and can do."""

from __future__ import annotations

import csv
import io
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from offramp.reports import report
from offramp.studies.training.report import study_report
from tests.evaluation.made_up import attack_row
from tests.reports.made_up_runs import laddered, write_attack
from tests.studies.made_up_trials import SWEEP, record_all

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: make install")
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = os.environ.get("OFFRAMP_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium is installed: install one, or name its program in OFFRAMP_CHROMIUM"
)

Open = Callable[..., Any]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def opened(browser: Any) -> Iterator[Open]:
    """A function that opens a page; after the test, no page may have complained."""
    pages, complaints = [], []

    def open_page(path: Path, **options: Any) -> Any:
        page = browser.new_page(**options)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.append(message.text))
        page.on(
            "request", lambda request: complaints.append(request.url) if "http" in request.url[:5] else None
        )
        page.goto(path.as_uri())
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        page.close()
    assert complaints == []


@pytest.fixture(scope="module")
def path(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report(runs, tmp_path_factory.mktemp("page"))["index.html"]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of an attack on 10,000 texts."""
    root = tmp_path_factory.mktemp("large")
    rows = [
        attack_row(
            i % 3, min(i % 3 + i % 2, 2), id=i, text=f"a good film {i}", adversarial_text=f"a fine film {i}"
        )
        for i in range(10_000)
    ]
    write_attack(root / "runs", laddered(rows))
    return report(root / "runs", root / "out")["index.html"]


def shown(page: Any, *names: str) -> list[str]:
    return [page.locator(f'.panel [data-show="{name}"]').inner_text() for name in names]


def test_the_slider_moves_all_numbers_together(opened: Open, path: Path) -> None:
    page = opened(path)
    numbers = ("score", "cost", "depth", "shares")
    page.locator(".panel select").select_option(label="SWEET")
    slider, marker = page.locator('.panel input[type="range"]'), page.locator(".explorer .marker circle")
    seen = []
    for key in ("Home", "End"):
        slider.press(key)
        seen.append(
            [*shown(page, *numbers), marker.get_attribute("cx"), slider.get_attribute("aria-valuetext")]
        )
    assert all(before != after for before, after in zip(*seen, strict=True))
    assert seen[0][1:3] == ["25 %", "1.00"]  # everything leaves at the first of the layers 1, 2, 4
    assert seen[1][1:3] == ["100 %", "4.00"]
    page.get_by_role("button", name="Back to the policy").click()
    assert shown(page, "cost") not in ([seen[0][1]], [seen[1][1]])


def test_a_click_in_the_chart_goes_to_the_nearest_point(opened: Open, path: Path) -> None:
    page = opened(path)
    page.locator(".panel select").select_option(label="SWEET")
    page.locator('.panel input[type="range"]').press("Home")
    before = shown(page, "cost")
    page.locator(".explorer svg").click(position={"x": 500, "y": 200})
    assert shown(page, "cost") != before


def test_latency_without_timing_is_not_made_up(opened: Open, path: Path) -> None:
    assert shown(opened(path), "latency") == ["not timed"]


def test_ten_thousand_examples_stay_responsive(opened: Open, large: Path) -> None:
    page = opened(large)
    count, examples = page.locator('[data-show="count"]'), page.locator("article.example")
    assert count.inner_text() == "1 to 20 of 3,334"  # of those slowed down
    assert page.locator("body *").count() < 2500
    page.get_by_label("Show").select_option("all")
    assert count.inner_text() == "1 to 20 of 10,000"
    page.get_by_role("button", name="Next").click()
    assert count.inner_text() == "21 to 40 of 10,000"
    page.get_by_label("Sort by").select_option("id")
    page.get_by_label("Search the texts").fill("FILM 77")
    assert count.inner_text() == "1 to 20 of 111"  # 77, 770 to 779, 7700 to 7799
    assert examples.count() == 20
    assert examples.first.locator(".text").inner_text() == "a good fine film 77"
    assert (examples.first.locator("del").inner_text(), examples.first.locator("ins").inner_text()) == (
        "good",
        "fine",
    )
    page.get_by_label("Search the texts").fill("no such words")
    assert (count.inner_text(), examples.count()) == ("No example fits.", 0)
    assert page.get_by_role("button", name="Next").is_disabled()


def test_the_ladder_shows_every_exit_before_and_after(opened: Open, path: Path) -> None:
    page = opened(path)
    first = page.locator("article.example").first
    assert "label good" in first.locator(".facts").inner_text()
    assert first.locator("h3").inner_text() == "Leaves after layer 1 → 4"
    bars = first.locator(".stack")
    labels = [bars.nth(i).get_attribute("aria-label") for i in range(bars.count())]
    sides = [" bad 40 %, good 60 %", " bad 90 %, good 10 %", " bad 25 %, good 75 %"]
    clean, attacked = ("leaves here", "not run", "not run"), ("passes", "passes", "leaves here")
    expected = [
        f"{word}:{side}" for side, *words in zip(sides, clean, attacked, strict=True) for word in words
    ]
    assert labels == expected
    widths = [bars.first.locator("span").nth(i).bounding_box()["width"] for i in range(2)]
    assert widths[0] / sum(widths) == pytest.approx(0.4, abs=0.02)


def test_hostile_texts_are_shown_as_texts(opened: Open, path: Path) -> None:
    page = opened(path)
    page.get_by_label("Search the texts").fill("<script>alert")
    assert '<script>alert("x")</script>' in page.locator("article.example .text").inner_text()
    assert page.locator('img[src^="http"]').count() == 0


@pytest.mark.parametrize("mode", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_both_modes_fit_every_screen(opened: Open, path: Path, mode: str, width: int) -> None:
    page = opened(path, viewport={"width": width, "height": 844}, color_scheme=mode)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    dark = "rgb(21, 24, 29)"
    paper = "getComputedStyle(document.body).backgroundColor"
    assert (page.evaluate(paper) == dark) == (mode == "dark")
    page.get_by_role("button", name="Switch between light and dark").click()
    assert (page.evaluate(paper) == dark) == (mode == "light")


def test_the_first_screen_has_question_answer_doubts_and_figure(opened: Open, path: Path) -> None:
    page = opened(path, viewport={"width": 1280, "height": 860})
    for selector in ("h1", ".answer p >> nth=1", ".doubts li >> nth=0", ".explorer svg"):
        box = page.locator(selector).bounding_box()
        assert box["y"] < 700, selector
    doubts = page.locator(".doubts li").all_inner_texts()
    assert sum("2 examples were cut" in doubt for doubt in doubts) == 1
    assert any("2 runs: Early-Exit, evaluate; SWEET, evaluate" in doubt for doubt in doubts)


def test_keyboard_and_screen_reader_find_their_way(opened: Open, path: Path) -> None:
    page = opened(path)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the results"
    for role in ("main", "navigation", "banner", "complementary", "search"):
        assert page.get_by_role(role).count() == 1, role
    nameless = """[...document.querySelectorAll("button, select, input, svg, img, summary")].filter(
        (e) => !(e.labels?.length || e.getAttribute("aria-label") || e.getAttribute("alt") || e.textContent.trim()))"""
    assert page.evaluate(f"{nameless}.length") == 0
    assert page.evaluate("[...document.querySelectorAll('.table table')].every((t) => t.caption.textContent)")
    assert page.evaluate(
        "new Set([...document.querySelectorAll('[id]')].map((e) => e.id)).size"
    ) == page.evaluate("document.querySelectorAll('[id]').length")


def saved(page: Any, name: str) -> bytes:
    with page.expect_download() as download:
        page.get_by_role("button", name=name, exact=True).click()
    return Path(download.value.path()).read_bytes()


def test_tables_and_charts_are_saved_as_files(opened: Open, path: Path) -> None:
    page = opened(path)
    rows = list(csv.reader(io.StringIO(saved(page, "Save Under attack as CSV").decode())))
    assert rows[0][:3] == ["attack", "examples", "depth"]
    assert rows[1][:2] == ["same-word", "12"]
    assert len(rows) == 2
    latex = saved(page, "Save Models under their policies as LaTeX").decode()
    assert "\\begin{tabular}{llrrrrrr}" in latex
    assert "Early-Exit & confidence, 0.8 & " in latex
    chart = saved(page, "Save Accuracy against cost on movies as SVG")
    assert chart.startswith(b"<svg")
    assert b"var(" not in chart
    assert b"SWEET" in chart
    assert saved(page, "Save Accuracy against cost on movies as PNG").startswith(b"\x89PNG")


def test_in_print_nothing_is_cut_off(opened: Open, path: Path) -> None:
    page = opened(path, color_scheme="dark")
    page.emulate_media(media="print")
    assert not page.locator(".theme").is_visible()
    assert page.evaluate("getComputedStyle(document.querySelector('.scroll')).overflowX") == "visible"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


def test_the_page_of_a_study_at_every_width(opened: Open, tmp_path: Path) -> None:
    record_all(tmp_path / "toy", {**SWEEP, "seeds": [0]})
    path = study_report(tmp_path / "toy", tmp_path / "report", resamples=10)["index.html"]
    page = opened(path, viewport={"width": 1280, "height": 900})
    chart = page.locator("#main figure.chart").first
    assert chart.locator("circle.mark").count() == 6  # two methods on two tasks, and their mean
    assert chart.bounding_box()["y"] < 900, "it begins on the first screen"
    panel = page.locator(".panel").first
    seen = []
    for key in ("Home", "End"):
        panel.locator('input[type="range"]').press(key)
        seen.append(panel.locator('[data-show="cost"]').inner_text())
    assert seen[0] != seen[1]
    page.locator("details summary", has_text="sst2").first.click()
    narrow = opened(path, viewport={"width": 390, "height": 844}, color_scheme="dark")
    assert narrow.evaluate("document.documentElement.scrollWidth <= innerWidth")
