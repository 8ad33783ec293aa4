"""Clients of other services, unmodified, and each endpoint's shapes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from fastapi import FastAPI

from offramp.inference.engine import Engine
from offramp.serving.service import Limits, Service

from .running import Running, running

TEXTS = ["a good film", "bad", "the plot is slow and dull and very boring of the mess", "an acting gem"]


@pytest.fixture(scope="module")
def server(exported: Any, engine: Engine) -> Iterator[Running]:
    engines = {"tiny": Engine(exported, batch_size=4, threads=1), "torch": engine}
    with running(Service(engines, Limits(request_rows=8))) as server:
        yield server


@pytest.fixture(scope="module")
def expected(exported: Any) -> Any:
    engine = Engine(exported, threads=1)
    decisions = engine.decide(TEXTS)
    shares = engine.compacting.policy.probabilities(decisions.exit, decisions.logits)
    return engine, engine.predict(TEXTS), shares, decisions


def check_scores(scores: Any, row: int, expected: Any) -> None:
    """Labels with probabilities of one text, the highest first."""
    engine, answers, shares, _ = expected
    assert [entry["label"] for entry in scores] == [engine.labels[k] for k in np.argsort(-shares[row])]
    np.testing.assert_allclose([entry["score"] for entry in scores], np.sort(shares[row])[::-1], rtol=1e-5)
    assert scores[0]["label"] == answers[row].label


def test_the_inference_client_of_hugging_face(
    server: Running, expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)  # this server is no hub
    client = hub.InferenceClient(base_url=server.url)
    for row, text in enumerate(TEXTS):
        answer = client.text_classification(text)
        check_scores([{"label": entry.label, "score": entry.score} for entry in answer], row, expected)
    assert len(client.text_classification(TEXTS[0], top_k=2)) == 2
    raw = client.text_classification(TEXTS[0], function_to_apply="none")
    np.testing.assert_allclose(raw[0].score, expected[3].logits[0].max(), rtol=1e-5)


@pytest.mark.filterwarnings("default")  # the client's own
def test_the_client_of_infinity(server: Running, expected: Any) -> None:
    client_of = pytest.importorskip("infinity_client")
    from infinity_client.api.default import classify, health, models
    from infinity_client.models import ClassifyInput, HTTPValidationError

    with client_of.Client(base_url=server.url) as client:
        listed = models.sync(client=client)
        assert [model.id for model in listed.data] == ["tiny", "torch"]
        result = classify.sync(client=client, body=ClassifyInput(input_=TEXTS))
        for row, scores in enumerate(result.data):
            check_scores([{"label": entry.label, "score": entry.score} for entry in scores], row, expected)
        assert result.model == "tiny"
        other = classify.sync(client=client, body=ClassifyInput(input_=TEXTS[:1], model="torch"))
        assert other.model == "torch"
        refused = classify.sync_detailed(client=client, body=ClassifyInput(input_=[]))
        assert refused.status_code == 422
        assert isinstance(refused.parsed, HTTPValidationError)
        assert refused.parsed.detail[0].msg == "expected at least one text, got none"
        assert health.sync_detailed(client=client).status_code == 200


def test_predict_of_text_embeddings_inference(server: Running, expected: Any) -> None:
    for row, text in enumerate(TEXTS):
        for inputs in (text, [text]):
            status, answer = server.post("/predict", {"inputs": inputs})
            assert status == 200
            check_scores(answer, row, expected)
    for inputs in ([[text] for text in TEXTS], TEXTS):
        status, answer = server.post("/predict", {"inputs": inputs, "truncate": True})
        assert status == 200
        for row, scores in enumerate(answer):
            check_scores(scores, row, expected)
    _, raw = server.post("/predict", {"inputs": TEXTS[1], "raw_scores": True})
    np.testing.assert_allclose(raw[0]["score"], expected[3].logits[1].max(), rtol=1e-5)
    status, pair = server.post("/predict", {"inputs": ["a film", "a plot"]})  # a pair, as there
    assert (status, len(pair), set(pair[0])) == (200, 3, {"score", "label"})
    assert server.post("/predict", {"inputs": [["a", "b"], ["c", "d"]]})[0] == 200


@pytest.mark.parametrize(
    ("body", "status", "kind", "message"),
    [
        ({"inputs": [["a"], ["b", "c"]]}, 422, "Validation", "must be a single string or a pair of strings"),
        ({"inputs": [["a", "b", "c"]]}, 422, "Validation", "must be a single string or a pair of strings"),
        ({"inputs": []}, 422, "Validation", "at least one text"),
        ({"inputs": [["a"]] * 9}, 413, "Validation", "batch size 9 > maximum allowed batch size 8"),
        ({"inputs": "x" * 100_001}, 413, "Validation", "at most 100000 characters, got 100001"),
        (
            {"inputs": "film " * 200, "truncate": False},
            413,
            "Validation",
            "must have less than 64 tokens. Given: 64",
        ),
        ({"inputs": 1}, 422, "Validation", "Input should be a valid string"),
        ({}, 422, "Validation", "inputs: Field required"),
        ({"inputs": "a", "truncation_direction": "Left"}, 422, "Validation", "must be 'Right'"),
        (b"{", 400, "Validation", "the body is not JSON"),
        (b"", 422, "Validation", "Field required"),
        (b'{"inputs": "' + b"\xff" + b'"}', 400, "Validation", "body"),
        (b"x" * 4_000_001, 413, "Validation", "at most 4000000 bytes"),
    ],
)
def test_errors_of_text_embeddings_inference(
    body: Any, status: int, kind: str, message: str, server: Running
) -> None:
    code, content = server.post("/predict", body)
    assert code == status
    assert content["error_type"] == kind
    assert message in content["error"]
    assert set(content) == {"error", "error_type"}


def test_classify_of_vllm(server: Running, expected: Any) -> None:
    status, answer = server.post("/classify", {"model": "tiny", "input": TEXTS})
    assert status == 200
    assert answer["object"] == "list"
    for row, entry in enumerate(answer["data"]):
        assert (entry["index"], entry["num_classes"]) == (row, 3)
        assert entry["label"] == expected[1][row].label
        np.testing.assert_allclose(entry["probs"], expected[2][row], rtol=1e-5)
    assert answer["usage"]["prompt_tokens"] == answer["usage"]["total_tokens"] > 0
    assert len(server.post("/classify", {"input": TEXTS[0]})[1]["data"]) == 1
    status, answer = server.post("/classify", {"model": "tinny", "input": "a"})
    assert status == 404
    assert answer["error"]["message"] == "unknown model 'tinny'. Did you mean 'tiny'? Known: tiny, torch"
    assert (answer["error"]["type"], answer["error"]["code"]) == ("NotFoundError", 404)


def test_our_own_endpoint(server: Running, expected: Any) -> None:
    engine, answers, shares, _ = expected
    status, reply = server.post("/v1/classify", {"texts": TEXTS, "probabilities": True})
    assert status == 200
    for row, (answer, said) in enumerate(zip(reply["answers"], answers, strict=True)):
        assert (answer["label"], answer["exit_layer"], answer["cost"]) == (
            said.label,
            said.exit_layer,
            said.cost,
        )
        assert answer["probability"] == pytest.approx(said.probability)
        assert [*answer["probabilities"]] == [*engine.labels]
        assert answer["probabilities"][said.label] == pytest.approx(shares[row].max())
        assert answer["budgeted"] is False
    assert {answer["exit_layer"] for answer in reply["answers"]} == {1, 3}
    for limit in ({"max_layer": 1}, {"max_layer": 2}, {"max_cost": 0.5}, {"max_cost": 0.001}):
        _, reply = server.post("/v1/classify", {"texts": TEXTS, **limit})
        assert {answer["exit_layer"] for answer in reply["answers"]} == {1}
    status, reply = server.post("/v1/classify", {"pairs": [["a film", "a plot"]], "model": "torch"})
    assert (status, reply["model"]) == (200, "torch")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "either texts or pairs"),
        ({"texts": ["a"], "pairs": [["a", "b"]]}, "either texts or pairs"),
        ({"texts": []}, "at least one text"),
        ({"texts": ["a"], "max_layer": 0}, "max_layer is 0, but the first exit is after layer 1"),
        ({"texts": ["a"], "max_cost": 5}, "max_cost: Input should be less than or equal to 1"),
        ({"texts": ["a"], "max_cost": float("nan")}, "max_cost: Input should be a finite number"),
        ({"texts": ["a"], "deadline_ms": 0}, "deadline_ms: Input should be greater than 0"),
        ({"texts": "a"}, "texts: Input should be a valid list"),
        ({"texts": [1]}, "texts.0: Input should be a valid string"),
        ({"texts": ["a"], "max_lyaer": 1}, "max_lyaer: Extra inputs are not permitted"),
        ({"pairs": [["a"]]}, "pairs.0.1: Field required"),
    ],
)
def test_wrong_values_are_named(body: Any, message: str, server: Running) -> None:
    status, content = server.post("/v1/classify", body)
    assert status == 422
    assert message in content["error"]


def test_facts_about_the_service(server: Running) -> None:
    status, info, _ = server.send("GET", "/info")
    assert (status, info["model_id"], info["max_client_batch_size"]) == (200, "tiny", 8)
    assert info["model_type"]["classifier"]["id2label"] == {"0": "no", "1": "so so", "2": "yes"}
    _, listed, _ = server.send("GET", "/models")
    assert [model["id"] for model in listed["data"]] == ["tiny", "torch"]
    assert server.send("GET", "/health")[0] == 200
    assert server.send("GET", "/metrics")[:2] == (200, b"")
    assert server.send("GET", "/openapi.json")[0] == 200
    status, content, _ = server.send("GET", "/nothing")
    assert (status, content["error"]) == (404, "Not Found: see /docs for the endpoints")
    assert server.send("GET", "/predict")[0] == 405


def test_keys_and_hidden_exits(engine: Engine) -> None:
    service = Service({"m": engine}, show_exits=False)
    with running(service, {"anna": "secret-1", "ben": "secret-2"}) as server:
        for headers in ({}, {"authorization": "Bearer secret"}, {"authorization": "Basic secret-1"}):
            status, content, fields = server.send("POST", "/predict", {"inputs": "a"}, **headers)
            assert (status, content["error_type"]) == (401, "Unauthorized")
            assert fields["www-authenticate"] == "Bearer"
        assert server.send("GET", "/health")[0] == 200
        assert server.send("GET", "/metrics")[0] == 401
        key = {"authorization": "Bearer secret-2"}
        status, reply = server.post("/v1/classify", {"texts": ["a"]}, **key)
        assert status == 200
        assert set(reply["answers"][0]) == {"label", "probability"}
        status, content = server.post("/v1/classify", {"texts": ["a"], "max_layer": 1}, **key)
        assert status == 422
        assert "does not show its exits" in content["error"]


BODIES = {
    "/predict": [
        {"inputs": TEXTS[0]},
        {"inputs": TEXTS, "raw_scores": True},
        {"inputs": [[TEXTS[0]], [TEXTS[1]]]},
        {"inputs": [TEXTS[:2], TEXTS[:1]]},
        {"inputs": 1},
        {"inputs": "a", "truncation_direction": "left"},
    ],
    "/": [{"inputs": TEXTS}, {"inputs": TEXTS[0], "parameters": {"top_k": 1}}, {}],
    "/classify": [{"input": TEXTS}, {"input": TEXTS, "raw_scores": False}, {"input": "a", "model": "no"}],
    "/v1/classify": [
        {"texts": TEXTS},
        {"texts": TEXTS, "probabilities": True, "max_layer": 1},
        {"texts": []},
        {"texts": ["a"] * 9},
        {"texts": ["a"], "other": 1},
        b'{"texts": ["a"]',
        b'{"texts": ["\\ud800"]}',
        b"\xff",
        b"[" * 100_000,
        b"",
    ],
}


@pytest.mark.parametrize("path", BODIES)
def test_the_short_way_answers_as_fastapi_does(
    path: str, server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, whole = [], FastAPI.__call__

    async def note(app: Any, scope: Any, *channels: Any) -> None:
        asked.append(scope["path"])
        await whole(app, scope, *channels)

    monkeypatch.setattr(FastAPI, "__call__", note)
    for body in BODIES[path]:
        short = server.send("POST", path, body)
        invalid = len(asked)
        long = server.send("POST", path, body, content_type="application/json; charset=utf-8")
        assert asked == [path] * (invalid + 1)
        assert invalid == 0 or short[0] in (400, 422)
        asked.clear()
        for _, content, fields in (short, long):
            del fields["date"]
            for changing in ("id", "created") if isinstance(content, dict) else ():
                content.pop(changing, None)
        assert short == long
