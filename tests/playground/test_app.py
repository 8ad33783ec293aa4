"""The server: what it shows, what it refuses, and the command that starts it."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from threading import Event
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest

from offramp._core.errors import ConfigError, CriterionError, ModelError
from offramp.cli.main import run
from offramp.cli.play import listen
from offramp.criteria import make_criterion
from offramp.engine.policy import Policy
from offramp.playground.state import MOST_CHARACTERS, read_state

httpx = pytest.importorskip("httpx")
TORCH_LIKE = ("torch", "transformers", "datasets", "safetensors")
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&amp;</textarea>"


def get(address: str, path: str = "/", headers: dict[str, str] | None = None, **query: Any) -> Any:
    return httpx.get(address + path, params=query, headers=headers, timeout=60)


def events(content: str) -> list[tuple[str, str]]:
    """Kinds and contents of server-sent events."""
    found = re.findall(r"event: (\w+)\ndata: (.*)\n\n", content)
    return [(kind, json.loads(data)) for kind, data in found]


def test_the_page_shows_the_way_of_a_text(address: str) -> None:
    answer = get(address, text="a good film", sides="1")
    assert answer.status_code == 200
    assert answer.text.count('class="ladder"') == 1
    assert "policy-entropy" in answer.text
    assert get(address, text=" ").text.count("appears here") == 2
    assert get(address, text="a", model="pairs", text_pair="b", sides="1").text.count('name="text_pair"') == 1
    assert get(address, text="a", sides="1").text.count('name="text_pair"') == 0


def test_regression_shows_values_without_bars(address: str) -> None:
    shown = get(address, text="a good film", model="numbers", sides="1").text
    assert "Patience" in shown
    assert 'class="bar probability' not in shown
    assert re.search(r"<strong>-?\d", shown)


@pytest.mark.parametrize(
    "name", ["text", "text_pair", "rule", "threshold", "recipe", "model", "words", "sides"]
)
def test_hostile_text_is_shown_literally(address: str, name: str) -> None:
    shown = get(address, **{"model": "pairs", "text": "a", name: HOSTILE}).text
    assert "<script>alert" not in shown
    assert "<img" not in shown
    assert "&lt;script&gt;alert(1)" in shown


def test_hostile_text_is_attacked_literally(address: str) -> None:
    query = {
        "text": HOSTILE,
        "rule": "confidence",
        "threshold": "0.55",
        "recipe": "random-char",
        "sides": "1",
    }
    steps = events(get(address, "/attack", **query).text)
    assert [kind for kind, _ in steps] == ["step"] * (len(steps) - 1) + ["end"]
    for _, content in steps:
        assert "<script>alert" not in content
        assert "<img" not in content


def test_invisible_characters_are_written_out_but_kept_in_the_box(address: str) -> None:
    query = {"text": "a \u202egood film", "recipe": "random-char", "sides": "1"}
    assert "a \u202egood film</textarea>" in get(address, **query).text
    assert "⟨U+202E⟩" in events(get(address, "/attack", **query).text)[0][1]


@pytest.mark.parametrize(
    "written",
    [
        "a%00b%20good%20film",
        "caf%E9",
        "a%ED%A0%80b",
        "e" + "%CC%81" * 3000,
        "%F3%A0%81%81%EF%BF%BF",
        "%FF%FE",
    ],
    ids=["NUL", "not UTF-8", "half a pair", "3,000 accents", "no characters", "no text"],
)
def test_a_link_may_name_any_text(address: str, written: str) -> None:
    with urlopen(f"{address}/?text={written}&model=trained&sides=1", timeout=60) as answer:
        assert answer.read().decode().count('class="ladder"') == 1


def test_a_link_to_a_longer_text_says_what_is_left_out(address: str) -> None:
    with urlopen(f"{address}/?text={'good%20' * 2000}&model=trained&sides=1", timeout=60) as answer:
        shown = answer.read().decode()
    assert "expected a text of at most 4,000 characters, got 10,000: the rest is left out" in shown
    assert shown.count('class="ladder"') == 1


def test_an_address_holds_two_long_texts(address: str) -> None:
    text = "映" * MOST_CHARACTERS
    query = urlencode({"text": text, "text_pair": text, "model": "trained", "sides": "1"})
    with urlopen(f"{address}/?{query}", timeout=60) as answer:  # httpx takes no address of this length
        shown = answer.read().decode()
    assert text in shown
    assert "reads; the rest is cut" in shown


@pytest.mark.parametrize("path", ["/", "/attack", "/static/play.js", "/nothing"])
def test_every_answer_has_the_headers_of_a_page_that_reaches_nothing_else(address: str, path: str) -> None:
    answer = get(address, path)
    assert "default-src 'none'; script-src 'self'" in answer.headers["content-security-policy"]
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_other_names_of_this_machine_and_other_sites_are_refused(address: str) -> None:
    port = address.rpartition(":")[2]
    for host in (f"localhost:{port}", "127.0.0.1", f"[::1]:{port}"):
        assert get(address, headers={"host": host}).status_code == 200
    assert get(address, headers={"host": f"evil.example:{port}"}).status_code == 400
    assert get(address, "/attack", headers={"sec-fetch-site": "cross-site"}).status_code == 403
    assert get(address, "/attack", headers={"sec-fetch-site": "same-origin"}).status_code == 200


def test_an_attack_that_cannot_run_says_why(address: str) -> None:
    (_, problem) = events(get(address, "/attack", text="?!").text)[-1]
    assert "expected a text with words to attack, got none" in problem
    query = {"text": "a good film", "rule": "cap", "recipe": "same-word", "sides": "1"}
    (kind, problem) = events(get(address, "/attack", **query).text)[-1]
    assert kind == "end"
    assert "the victim is a black box" in problem


def test_attacks_run_one_at_a_time(models: Any) -> None:
    from offramp.playground.app import Playground
    from offramp.playground.state import read_state

    playground = Playground(models, 60)
    state = read_state([("text", "a good film"), ("recipe", "random-char")], models)
    first = playground.attack(state)
    assert next(first).startswith("event: step")
    (refusal,) = playground.attack(state)
    assert "another attack is running: wait until it ends" in refusal
    first.close()
    assert next(playground.attack(state)).startswith("event: step"), "a stopped attack makes way"


def test_a_reader_that_leaves_ends_the_attack(address: str) -> None:
    query = {
        "text": "a good film " * 5,
        "rule": "confidence",
        "threshold": "0.56",
        "recipe": "same-word",
        "sides": "1",
    }
    with httpx.stream("GET", address + "/attack", params=query, timeout=60) as answer:
        next(answer.iter_lines())
    again = ""
    for _ in range(100):  # the step under way is finished first
        again = get(address, "/attack", text="a good film", recipe="random-char", sides="1").text
        if "another attack" not in again:
            break
    assert "another attack" not in again


def test_the_end_of_the_server_does_not_wait_for_a_step() -> None:
    from offramp.playground.app import stream

    started, released = Event(), Event()

    def events() -> Generator[str, None, None]:
        started.set()
        released.wait(20)
        yield "a step"

    async def read() -> None:
        async for _ in stream(events()):
            pass

    async def cancel() -> None:
        task = asyncio.create_task(read())
        await asyncio.to_thread(started.wait, 20)
        task.cancel()
        try:
            await task
        finally:
            released.set()

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(cancel())


def test_policies_of_other_folders_can_be_chosen(folders: dict[str, Path], tmp_path: Path) -> None:
    from offramp.playground.models import open_models

    Policy(make_criterion("margin", 0.4), (0, 1, 3)).save(tmp_path / "mine.json")
    (model,) = open_models([str(folders["exported"])], [tmp_path / "mine.json"], threads=1).values()
    assert list(model.rules)[:2] == [str(tmp_path / "mine.json"), "policy"]
    assert read_state([], {model.name: model}).sides[0].policy.criterion.threshold == 0.4
    assert model.tuned == 2
    Policy(make_criterion("margin", 0.4), (1, 3)).save(tmp_path / "foreign.json")
    with pytest.raises(CriterionError, match=r"foreign.json fits no model here \(exported: .*\[1, 3\]"):
        open_models([str(folders["exported"])], [tmp_path / "foreign.json"], threads=1)


def test_an_exported_folder_is_played_with_without_torch(folders: dict[str, Path]) -> None:
    """In a process of its own, where importing torch fails as it does where torch is not installed."""
    script = f"""
import sys

class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {TORCH_LIKE!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, NoTorch())
from offramp.playground.app import Playground
from offramp.playground.models import open_models
from offramp.playground.page import render_page
from offramp.playground.state import read_state

models = open_models([{str(folders["exported"])!r}], threads=1)
state = read_state([("text", "a good film")], models)
assert "leaves here" in render_page(state, list(models.values()))
*_, last = Playground(models, 60).attack(state)
assert "pip install &#39;offramp[torch]&#39;" in last, last
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


def test_models_need_names_of_their_own(folders: dict[str, Path], tmp_path: Path) -> None:
    from offramp.playground.models import open_models

    with pytest.raises(ConfigError, match="expected a model, got none"):
        open_models([])
    with pytest.raises(ConfigError, match="two models are called 'trained'"):
        open_models([str(folders["trained"])] * 2)
    with pytest.raises(ModelError, match="no model at"):
        open_models([str(tmp_path / "nothing")])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected a model, got none: give the folder of one, or of two to compare"),
        (
            ["x", "--host", "0.0.0.0"],
            "on 0.0.0.0 every machine that reaches this one could open the playground",
        ),
        (["x", "--port", "70000"], "port"),
        (["x", "--attack-seconds", "0"], "attack_seconds must be seconds above 0"),
        (["x", "--port", "0", "--policy", "nothing.json"], "no policy at nothing.json"),
        (
            ["x", "--host", "no.such.host.invalid", "--expose"],
            "cannot listen on no.such.host.invalid, port 7860",
        ),
    ],
)
def test_the_command_says_what_is_wrong(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if message.startswith("cannot"):

        def fail(*_: Any, **__: Any) -> Any:
            raise socket.gaierror(-2, "Name or service not known")

        monkeypatch.setattr(socket, "getaddrinfo", fail)
    assert run(["play", *arguments]) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert shown.count("\n") == 1


def test_a_port_in_use_is_said() -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            ConfigError, match=rf"^cannot listen on 127.0.0.1, port {port} \(Address already in use\)"
        ):
            listen("127.0.0.1", port)


def test_a_missing_package_gives_the_line_that_installs_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from offramp.cli import play

    monkeypatch.setattr(play, "REQUIRED", ("no_such_package",))
    assert run(["play", "x"]) == 2
    assert "pip install 'offramp[play]'" in capsys.readouterr().err
