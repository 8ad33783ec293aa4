"""The page in a real Chromium: typing, thresholds, links, attacks, both colour schemes, a phone."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from offramp.playground.attack import AttackStep, attack_steps

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")

HOSTILE = "<script>document.title = 'hacked'</script><b>good</b> film"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    """A page that must neither report errors nor reach anything but the playground."""
    problems: list[str] = []
    context = browser.new_context(base_url=address, viewport={"width": 1280, "height": 900})
    context.set_default_timeout(30_000)
    opened = context.new_page()
    opened.on("console", lambda message: problems.append(message.text))
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.on("request", lambda r: r.url.startswith((address, "data:")) or problems.append(r.url))
    yield opened
    context.close()
    assert problems == []


def answers(page: Any) -> list[str]:
    return page.locator(".answer").all_inner_texts()  # type: ignore[no-any-return]


def open_at(page: Any, **query: Any) -> None:
    page.goto("/?" + urlencode({"model": "trained", "sides": "1", **query}, doseq=True))


def test_the_ladder_follows_the_typing(page: Any) -> None:
    open_at(page)
    assert page.locator(".empty").count() == 1
    page.locator("[name=text]").press_sequentially("a good film")
    whole = page.context.new_page()
    whole.goto("/?" + urlencode({"model": "trained", "sides": "1", "text": "a good film"}))
    sync_api.expect(page.locator(".answer")).to_have_text(answers(whole)[0])
    assert page.locator(".ladder tbody tr").count() == 3
    assert page.locator("tr.left").count() == 1
    sync_api.expect(page.locator("#status")).to_contain_text(
        "Leaves"
    )  # for screen readers, once the typing pauses


def test_the_threshold_decides_where_the_text_leaves(page: Any) -> None:
    open_at(page, text="a good film", rule="confidence")
    number, slider = page.locator("[name=threshold]"), page.locator("[type=range]")
    number.fill("0")
    sync_api.expect(page.locator(".answer")).to_contain_text("before the first layer")
    assert slider.input_value() == "0"
    slider.fill("1")
    sync_api.expect(page.locator(".answer")).to_contain_text("after layer 3 of 3")
    assert number.input_value() == "1"
    assert page.locator("tr.passed").count() == 2
    number.fill("2.5")
    sync_api.expect(page.locator(".problem")).to_contain_text(
        "expected a number from 0 to 2 as threshold, got 2.5"
    )


def test_another_rule_brings_its_own_threshold_and_keeps_the_focus(page: Any) -> None:
    open_at(page, text="a good film", rule="confidence", threshold="0.7")
    page.locator("[name=rule]").focus()
    page.locator("[name=rule]").select_option("patience")
    sync_api.expect(page.locator("[type=range]")).to_have_attribute("max", "3.0")
    assert page.locator("[name=threshold]").input_value() == ""
    assert page.evaluate("document.activeElement.name") == "rule"


def test_two_models_stand_side_by_side(page: Any) -> None:
    open_at(page, text="a good film")
    page.locator("[name=sides]").select_option("2")
    page.locator("[name=model]").nth(1).select_option("exported")
    sync_api.expect(page.locator("section h2").nth(1)).to_contain_text("exported")
    left, right = answers(page)
    assert left == right, "an export answers as its model does"
    boxes = [page.locator(".ladder").nth(side).bounding_box() for side in range(2)]
    assert boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"]
    page.locator("[name=threshold]").nth(1).fill("0")
    sync_api.expect(page.locator(".answer").nth(1)).to_contain_text("before the first layer")
    assert answers(page)[0] == left


def test_the_address_restores_the_page(page: Any) -> None:
    open_at(page, rule="margin")
    page.locator("[name=text]").fill("a good & <funny> film\nof 100 % charm")
    page.locator("[name=threshold]").fill("0.05")
    page.locator("[name=words]").fill("2")
    page.wait_for_url("**words=2*")
    assert parse_qs(urlsplit(page.url).query)["text"] == ["a good & <funny> film\nof 100 % charm"]
    sync_api.expect(page.locator(".answer")).to_contain_text("Cost")
    before = answers(page)
    other = page.context.new_page()
    other.goto(page.url)
    assert answers(other) == before
    assert other.locator("[name=text]").input_value() == "a good & <funny> film\nof 100 % charm"
    for name, value in {"rule": "margin", "threshold": "0.05", "words": "2"}.items():
        assert other.locator(f"[name={name}]").input_value() == value


def test_the_link_is_copied(page: Any) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    open_at(page, text="a good film")
    page.locator("#copy").click()
    sync_api.expect(page.locator("#copy")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == page.url


def test_hostile_text_is_shown_literally(page: Any) -> None:
    open_at(page, rule="confidence", threshold="0.5", recipe="random-char")
    page.locator("[name=text]").fill(HOSTILE)
    page.locator("#attack").click()
    sync_api.expect(page.locator(".attack .note")).to_contain_text("Over")
    assert "<b>" in page.locator(".attacked").inner_text()
    assert page.title() == "offramp playground"
    assert page.locator("#result b, #result script").count() == 0


def test_an_attack_changes_words_and_its_text_can_be_used(page: Any) -> None:
    text = "the film is a good story, but the plot is slow"
    open_at(page, text=text, rule="confidence", threshold="0.2")
    threshold = page.locator("tr.left .score + .value").inner_text()
    open_at(page, text=text, rule="confidence", threshold=threshold, recipe="same-word")
    page.locator("#attack").click()
    sync_api.expect(page.locator("#stop")).to_be_visible()
    sync_api.expect(page.locator(".attack .note")).to_contain_text("Over", timeout=60_000)
    sync_api.expect(page.locator("#attack")).to_be_visible()
    assert page.locator("ins").count() >= 1
    assert page.locator("[name=text]").input_value() == text, "the text itself stays"
    attacked = page.locator("#use").get_attribute("data-text")
    shown = answers(page)
    page.locator("#use").click()
    sync_api.expect(page.locator(".attack")).to_have_count(0)
    assert page.locator("[name=text]").input_value() == attacked != text
    assert answers(page) == shown


@pytest.fixture
def long_attacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attacks that last long enough to be stopped, however fast the machine is."""

    def attack_slowly(*arguments: Any, **options: Any) -> Iterator[AttackStep]:
        for step in attack_steps(*arguments, **options):
            yield step
            time.sleep(0.1)

    monkeypatch.setattr("offramp.playground.app.attack_steps", attack_slowly)


@pytest.mark.usefixtures("long_attacks")
def test_an_attack_stops(page: Any) -> None:
    open_at(page, text="the film is a good story " * 2, rule="confidence", threshold="0", words="9")
    page.locator("#attack").click()
    page.locator(".attack").wait_for()
    page.locator("#stop").click()
    sync_api.expect(page.locator("#progress")).to_have_text(", stopped")
    sync_api.expect(page.locator("#attack")).to_be_visible()


def test_typing_ends_an_attack(page: Any) -> None:
    open_at(page, text="the film is a good story " * 2, rule="confidence", threshold="0", words="9")
    page.locator("#attack").click()
    page.locator(".attack").wait_for()
    page.locator("[name=text]").press_sequentially("x")
    sync_api.expect(page.locator(".attack")).to_have_count(0)
    sync_api.expect(page.locator("#stop")).to_be_hidden()


def test_pairs_have_two_boxes(page: Any) -> None:
    open_at(page, model="pairs", text="a good film")
    before = page.locator(".class .value").all_inner_texts()
    page.locator("[name=text_pair]").fill("the plot is a mess")
    sync_api.expect(page.locator(".class .value").first).not_to_have_text(before[0])


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_window(page: Any, width: int, scheme: str) -> None:
    page.set_viewport_size({"width": width, "height": 844})
    page.emulate_media(color_scheme=scheme)
    open_at(page, text="a good film " + "x" * 400, sides="2", model=["pairs", "trained"])
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    colours = page.evaluate(
        "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
    )
    dark_ink = colours[0] == "rgb(34, 34, 34)"
    assert dark_ink == (scheme == "light")


def test_the_page_works_with_the_keyboard_and_names_its_controls(page: Any) -> None:
    open_at(page, text="a good film")
    assert page.evaluate("document.activeElement.name") == "text"
    names = []
    for _ in range(9):
        page.keyboard.press("Tab")
        names.append(page.evaluate("document.activeElement.name || document.activeElement.id"))
    assert names == ["model", "rule", "", "threshold", "temperatures", "sides", "recipe", "words", "attack"]
    for name, role in {
        "Text": "textbox",
        "Model": "combobox",
        "Exit rule": "combobox",
        "Recipe": "combobox",
    }.items():
        assert page.get_by_role(role, name=name, exact=True).count() == 1
