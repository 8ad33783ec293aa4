"""The bench of services: what is sent, what is measured, and that every peer answers as the model does."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from offramp._core.errors import ConfigError, OfframpError
from offramp.bench import service, service_load
from offramp.bench.plain_server import Batches, Classifier
from offramp.bench.service_load import Load, Texts
from offramp.bench.service_peers import (
    OURS,
    PLAIN,
    PLAIN_BATCHES,
    Running,
    ServerSpec,
    find_wrk,
    infinity_versions,
    running,
    write_full_depth,
)
from offramp.cli import bench_service
from offramp.cli.common import RuleOptions
from offramp.cli.main import run
from offramp.engine.manifest import Manifest
from offramp.exporting.joining import write_cut
from offramp.inference.tracing import trace

TEXTS = Texts([f"text {i}" for i in range(40)], ["a", "b"] * 20, ["bad"] * 4)
MEASURED = {"requests": 100, "seconds": 2.0, "failed": 0, "p50": 1.0, "p95": 2.0, "p99": 4.0}


class Answering(Running):
    """A service without a process: it answers `a`, at the cost of the length of its name."""

    def ask(self, texts: Any) -> Any:
        return {"answers": [{"label": "a", "cost": 0.5, "text": text} for text in texts]}

    def get(self, path: str) -> str:
        assert path == "/metrics"
        return "\n".join(
            f'offramp_{name}_total{{client="{client}",model="m"}} {value}'
            for client, scale in (("attacker", 1), ("honest", 7))
            for name, value in (("flops", scale * next(COUNTER)), ("full_flops", scale * 4 * next(COUNTER)))
        ).join(["# TYPE offramp_flops counter\n# TYPE offramp_full_flops counter\n", "\n"])


COUNTER = iter(range(1, 10_000))


def server(name: str = OURS, keys: tuple[str, ...] = ("k0", "k1", "k2")) -> Running:
    peer = ServerSpec(
        name, (), "/v1/classify", "texts", lambda c: [row["label"] for row in c["answers"]], keys=keys
    )
    return Answering(peer, 1, 0.5)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What wrk was asked to send; it measures more requests of ours than of the others."""
    calls: list[dict[str, Any]] = []

    class Done:
        def __init__(self, result: dict[str, float]) -> None:
            self.result = result

        def communicate(self) -> tuple[str, None]:
            return f"Running\n{json.dumps(self.result)}\n", None

    def start(server: Running, bodies: Path, seconds: int, connections: int, **options: Any) -> Done:
        lines = [json.loads(line) for line in bodies.read_text().splitlines()]
        calls.append({"name": server.peer.name, "bodies": lines, "connections": connections, **options})
        faster = {"requests": 300} if server.peer.name == OURS else {}
        return Done({**MEASURED, **faster, "p99": 4.0 + len(calls)})

    monkeypatch.setattr(service, "wrk", start)
    return calls


def test_services_take_turns_at_saturation(sent: list[dict[str, Any]], tmp_path: Path) -> None:
    load = Load(rounds=3, rows=(1, 8))
    table = service.saturate([server(), server("other")], TEXTS, load, tmp_path, seed=5)
    assert [call["name"] for call in sent] == [OURS, "other"] * 6
    assert [call["connections"] for call in sent[:4]] == [32, 32, 4, 4]
    assert [call["seed"] for call in sent] == [5] * 4 + [6] * 4 + [7] * 4
    assert [len(body["texts"]) for call in sent[2:3] for body in call["bodies"]] == [8] * 5
    assert [(row["peer"], row["rows"]) for row in table] == [(OURS, 1), ("other", 1), (OURS, 8), ("other", 8)]
    own, other = table[2:]
    assert (own["texts_per_second"], other["texts_per_second"]) == (8 * 150, 8 * 50)
    assert (own["ratio"], other["ratio"]) == (1, 3)
    assert (own["accuracy"], own["start_seconds"]) == (0.5, 0.5)


def test_honest_clients_and_the_attacker_share_the_traffic(
    sent: list[dict[str, Any]], tmp_path: Path
) -> None:
    load = Load(rounds=1, shares=(0.2, 0.5))
    table = service.time_under_attack([server("off"), server("on")], TEXTS, 100.0, load, tmp_path, seed=0)
    assert [(row["attacked_share"], row["service"]) for row in table] == [
        (share, name) for share in (0.2, 0.5) for name in ("off", "on")
    ]
    measured, others = sent[::2], sent[1::2]
    assert [call["rate"] for call in measured] == [80] * 4 + [50] * 4
    assert [call["rate"] for call in others] == [20] * 4 + [50] * 4
    assert {tuple(call["keys"]) for call in [*measured, *others[::2]]} == {("k0", "k1")}
    assert {tuple(call["keys"]) for call in others[1::2]} == {("k2",)}
    bad = [call["bodies"][0] == {"texts": ["bad"]} for call in sent]
    assert bad == [False, False, False, True] * 4
    at_half = table[2]
    rise = pytest.approx(at_half["p99"] / at_half["p99_before"] - 1)
    assert at_half["rise"] == at_half["rise_low"] == at_half["rise_high"] == rise
    assert all(row["cost"] == pytest.approx(0.25) for row in table)


def test_the_rise_is_the_median_of_the_rounds(sent: list[dict[str, Any]], tmp_path: Path) -> None:
    load = Load(rounds=3, shares=(0.5,))
    (row,) = service.time_under_attack([server()], TEXTS, 100.0, load, tmp_path, seed=0)
    # The p99 of the calls are 5, 6, 7, ...; the first and third of each four are the honest clients'.
    rises = [7 / 5 - 1, 11 / 9 - 1, 15 / 13 - 1]
    assert [row[name] for name in ("rise_high", "rise", "rise_low")] == pytest.approx(rises)
    assert (row["p99_before"], row["p99"]) == (9, 11)


def test_answers_that_depend_on_their_batch_are_counted() -> None:
    class Unsteady(Answering):
        def ask(self, texts: Any) -> Any:
            content = super().ask(texts)
            if len(texts) > 1:
                for answer in content["answers"]:
                    answer["cost"] += answer["text"] in ("text 3", "text 7")
            return content

    assert service.changed_answers(server(), TEXTS.texts, seed=0) == 0
    assert service.changed_answers(Unsteady(server().peer, 1, 0.5), TEXTS.texts, seed=0) == 2


def test_an_engine_answers_arrivals_in_their_order() -> None:
    class Engine:
        def __init__(self) -> None:
            self.sizes: list[int] = []

        def predict(self, texts: list[str]) -> None:
            self.sizes.append(len(texts))
            time.sleep(0.002)

    engine: Any = Engine()
    measured = service_load.answer_arrivals(engine, TEXTS.texts, rate=2000, seconds=0.1, seed=0)
    assert sum(engine.sizes) == measured["requests"] == 200
    assert max(engine.sizes) > 1  # what arrived meanwhile runs together
    assert 2 <= measured["p50"] <= measured["p95"] <= measured["p99"]
    assert measured["seconds"] > 0.05


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("", "wrk ended with 1: "),
        ("unable to connect", "wrk ended with 1: unable to connect"),
        (json.dumps({**MEASURED, "failed": 3}), "3 requests of 100 failed: measure with less load"),
        (json.dumps({**MEASURED, "requests": 0}), "0 requests of 0 failed: measure with less load"),
    ],
)
def test_a_load_that_fails_is_no_measurement(output: str, message: str) -> None:
    class Ended:
        returncode = 1

        def communicate(self) -> tuple[str, None]:
            return output, None

    process: Any = Ended()
    with pytest.raises(OfframpError) as caught:
        service_load.finish(process)
    assert str(caught.value) == message


def test_what_is_no_load_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for options, message in (
        ({"seconds": 0}, "seconds must be a whole number of at least 1, got 0"),
        ({"rounds": 0}, "rounds must be a whole number of at least 1, got 0"),
        ({"connections": 1}, "connections must be a whole number of at least 2, got 1"),
        ({"rows": ()}, "rows must be whole numbers of at least 1, got (): give 1 16"),
        ({"shares": (0.0, 0.2)}, "shares must be above 0 and below 1, got (0.0, 0.2): give 0.2 0.5"),
    ):
        with pytest.raises(ConfigError) as caught:
            Load(**options)  # type: ignore[arg-type]
        assert str(caught.value) == message
    with pytest.raises(
        ConfigError, match="expected at least 41 texts for a request, got 40: give more examples"
    ):
        service_load.write_bodies(tmp_path, server(), TEXTS.texts, 41)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        ConfigError, match="wrk, which drives the load, is not installed: apt-get install wrk"
    ):
        find_wrk()


def test_a_service_that_ends_or_says_no_is_named(tmp_path: Path) -> None:
    def peer(code: str) -> ServerSpec:
        command = (shutil.which("python3") or "python3", "-c", code, "{port}")
        return ServerSpec("other", command, "/x", "texts", list)

    with (
        pytest.raises(OfframpError, match=f"other did not answer: {tmp_path / 'log'} has its output"),
        running(peer("print('no model')"), ["a"], tmp_path / "log"),
    ):
        pass
    assert (tmp_path / "log").read_text() == "no model\n"
    code = (
        "import sys\nfrom http.server import *\nclass H(BaseHTTPRequestHandler):\n n = 0\n def do_POST(self):\n"
        "  H.n += 1\n  self.send_response(200 if H.n == 1 else 418)\n  self.end_headers()\n"
        "HTTPServer(('127.0.0.1', int(sys.argv[1])), H).serve_forever()"
    )
    with running(peer(code), ["a"], tmp_path / "log") as started:
        assert started.seconds > 0
        with pytest.raises(OfframpError, match="other answered 418: b''"):
            started.ask(["a"])


class Doubling:
    """A classifier of texts, which notes its batches."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []

    def __call__(self, texts: list[str]) -> list[dict[str, Any]]:
        self.batches.append(texts)
        return [{"label": text * 2} for text in texts]


def test_the_versions_of_infinity_are_those_of_its_environment(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho infinity-emb 0.0.78\n")
    python.chmod(0o755)
    assert infinity_versions(tmp_path / "infinity_emb") == "infinity-emb 0.0.78"
    with pytest.raises(ConfigError, match="expected the command infinity_emb beside its python, got"):
        infinity_versions(tmp_path / "nowhere" / "infinity_emb")


def test_the_plain_server_batches_what_comes_together() -> None:
    import asyncio

    classify: Any = Doubling()

    async def ask() -> list[Any]:
        batches = Batches(classify)
        task = asyncio.create_task(batches.run())
        answers = await asyncio.gather(*(batches([f"{i}", "x"]) for i in range(20)))
        task.cancel()
        return answers

    answers = asyncio.run(ask())
    assert answers == [[{"label": f"{i}{i}"}, {"label": "xx"}] for i in range(20)]
    assert [len(batch) for batch in classify.batches] == [32, 8]


def test_the_whole_model_answers_as_its_last_exit(
    tiny_models: Any, exports: Any, tiny_data: Any, tmp_path: Path
) -> None:
    model, rows = tiny_models["multi_exit"], tiny_data["validation"]
    write_cut(exports["multi_exit"], Manifest.load(exports["multi_exit"]), 1, tmp_path / "graph.onnx")
    write_full_depth(model, tmp_path / "graph.onnx", tmp_path / "whole")
    config = json.loads((tmp_path / "whole" / "config.json").read_text())
    assert config["architectures"] == ["BertForSequenceClassification"]
    classify = Classifier(tmp_path / "whole", threads=1)
    answers = classify(list(rows["text"]))
    best = trace(model, rows).logits[:, -1].argmax(axis=1)
    assert [answer["label"] for answer in answers] == [model.labels[k] for k in best]
    assert all(1 / 3 <= answer["score"] <= 1 for answer in answers)


def test_the_command_refuses_what_it_cannot_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, pair in (("regression", False), ("classification", True)):
        model = SimpleNamespace(kind=kind, pair=pair)
        monkeypatch.setattr(bench_service, "load_for", lambda *_, model=model: model)
        with pytest.raises(ConfigError, match="bench service sends single texts to a classifier"):
            bench_service._export(tmp_path, None, RuleOptions(), "validation", 10, 0, tmp_path)
    with pytest.raises(OfframpError, match="nowhere"):
        bench_service._read_attacked(tmp_path / "nowhere")


def test_what_is_left_out_is_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert bench_service._find_infinity() is None
    assert bench_service._read_attacked(None) == []
    notes = capsys.readouterr().err
    assert "infinity is left out: pip install 'infinity-emb[server,optimum]'" in notes
    assert "no attack: give --attacked FOLDER" in notes


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")
def test_the_whole_command(tiny_models: Any, tiny_data: Any, tmp_path: Path) -> None:
    tiny_models["multi_exit"].save_pretrained(tmp_path / "model")
    data = tmp_path / "data.jsonl"
    names = tiny_models["multi_exit"].labels
    rows = [{"text": text, "label": names[i % 3]} for i, text in enumerate(tiny_data["train"]["text"])]
    data.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    load = "--rounds 1 --seconds 1 --connections 4 --rows 1 2 --half 20 --examples 20 --threads 1"
    assert run(["bench", "service", str(tmp_path / "model"), str(data), *load.split()]) == 0
    record = json.loads((tmp_path / "model" / "bench-service" / "record.json").read_text())
    assert [row["peer"] for row in record["tables"]["service"]] == [OURS, PLAIN, PLAIN_BATCHES] * 2
    assert record["metrics"]["changed_answers"] == 0
    assert record["metrics"]["start_seconds"] > 0


def test_the_load_script_sends_random_bodies(tmp_path: Path) -> None:
    if shutil.which("wrk") is None:
        pytest.skip("wrk is not installed")
    bodies = tmp_path / "bodies"
    bodies.write_text('{"texts": ["a"]}\n{"texts": ["b"]}\n')
    log = tmp_path / "log"
    code = (
        "import sys, http.server\nclass H(http.server.BaseHTTPRequestHandler):\n"
        " protocol_version = 'HTTP/1.1'\n def do_POST(self):\n"
        "  body = self.rfile.read(int(self.headers['content-length'])).decode()\n"
        f"  open({str(log)!r}, 'a').write(self.headers['authorization'] + body + chr(10))\n"
        "  self.send_response(200)\n  self.send_header('content-length', '0')\n  self.end_headers()\n"
        " def log_message(self, *a): pass\n"
        "http.server.ThreadingHTTPServer(('127.0.0.1', int(sys.argv[1])), H).serve_forever()"
    )
    peer = ServerSpec(
        "x", (shutil.which("python3") or "", "-c", code, "{port}"), "/x", "texts", list, keys=("k1", "k2")
    )
    with running(peer, ["a"], tmp_path / "output") as server:
        measured = service_load.finish(
            service_load.wrk(server, bodies, 1, 16, seed=3, rate=100, keys=["k1", "k2"])
        )
    lines = log.read_text().splitlines()[1:]
    assert 5 < measured["requests"] < 200  # as fast as it can, it sends thousands
    assert {line[:9] for line in lines} == {"Bearer k1", "Bearer k2"}
    assert {line[9:] for line in lines} == {'{"texts": ["a"]}', '{"texts": ["b"]}'}
    assert 0 < measured["p50"] <= measured["p95"] <= measured["p99"]
