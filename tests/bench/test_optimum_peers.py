"""Peers of another environment: what they are given, how they answer, and what happens to those that cannot."""

from __future__ import annotations

import json
import os
import sys
import time
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from offramp._core.errors import ConfigError
from offramp.bench import optimum_peers, optimum_worker, speed
from offramp.bench.baselines import Baseline, BenchArtifacts, find_baselines
from offramp.bench.optimum_peers import (
    PACKAGES,
    OptimumEnvironment,
    PeerError,
    RemotePeer,
    installed_versions,
    write_checkpoint,
)
from offramp.bench.optimum_worker import PEERS, Head, answer_lines
from offramp.bench.speed import BenchConfig, Entrant, check_baselines
from offramp.model import MultiExitForSequenceClassification

PYTHON = Path("ENV/bin/python")
RECENT = {name: "9999.1" for packages in PACKAGES.values() for name in packages}
# Stands in for the worker: it ends during the export or an answer where a text says so.
WORKER = """
import json, sys
task, name, folder, threads = sys.argv[1:]
if task == "export":
    sys.exit("Traceback\\nImportError: no runtime" if name == "broken" else 0)
print(json.dumps({"ready": True}), flush=True)
for line in sys.stdin:
    texts = json.loads(line)
    if ["stop"] in texts:
        sys.exit("ValueError: stopped")
    print(json.dumps({"answers": [len(t[0]) for t in texts], "seconds": 1e-4, "peak_mib": 7.5}), flush=True)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A prepared folder, and the stand-in for the worker."""
    (tmp_path / "worker.py").write_text(WORKER)
    monkeypatch.setattr(optimum_worker, "__file__", str(tmp_path / "worker.py"))
    for name in ("peer", "broken"):
        (tmp_path / name).mkdir()
    return tmp_path


def environment(**versions: str | None) -> OptimumEnvironment:
    """What an environment with these changes to recent packages can run."""
    return OptimumEnvironment.of(PYTHON, RECENT | {name.replace("_", "-"): v for name, v in versions.items()})


def test_both_sides_name_the_same_peers() -> None:
    assert list(PEERS) == list(PACKAGES)


def test_the_packages_of_an_interpreter_are_read() -> None:
    versions = installed_versions(Path(sys.executable))
    assert versions.keys() == RECENT.keys() | {"torch", "transformers"}
    assert versions["torch"] == version("torch")


@pytest.mark.parametrize("code", [None, "print('no json')", "raise SystemExit(3)"])
def test_an_interpreter_that_cannot_be_asked_is_refused(code: str | None, tmp_path: Path) -> None:
    python = tmp_path / "python"
    if code is not None:
        python.write_text(f"#!{sys.executable}\n{code}\n")
        python.chmod(0o755)
    with pytest.raises(
        ConfigError, match=r"expected the Python of .* got .*python: make an environment with `python -m venv"
    ):
        installed_versions(python)


@pytest.mark.parametrize(
    ("versions", "left", "reason"),
    [
        ({}, list(PACKAGES), None),
        (
            {"optimum_onnx": None},
            ["optimum-openvino-full", "sbert-openvino-full"],
            "ENV/bin/python has no optimum-onnx: ",
        ),
        (
            {"nncf": "2.7.0"},
            ["optimum-onnx-full", "sbert-onnx-full"],
            "has nncf 2.7.0, older than 2.19",
        ),
        (
            {"sentence_transformers": "4.9"},
            list(PACKAGES)[:2],
            "has sentence-transformers 4.9, older than 5.0",
        ),
    ],
)
def test_peers_without_their_packages_are_left_out(
    versions: dict[str, str | None], left: list[str], reason: str | None
) -> None:
    given = environment(**versions)
    assert given.peers == left
    assert all(reason in problem for problem in given.lacking.values()) if reason else not given.lacking


def test_an_environment_for_no_peer_is_refused() -> None:
    with pytest.raises(
        ConfigError,
        match="ENV/bin/python lacks packages of every peer that it would run: make an environment with",
    ):
        environment(optimum_onnx=None, datasets=None)


def test_pairs_and_norms_of_heads() -> None:
    norm: Any = SimpleNamespace(
        driver=SimpleNamespace(final_norm="norm"), backbone=object(), named_children=list, pair=None
    )
    with pytest.raises(ConfigError, match="object leaves its last norm to the heads.* leave --optimum out"):
        environment().fitting(norm)
    pairs: Any = SimpleNamespace(
        driver=SimpleNamespace(final_norm=None), named_children=list, pair="sentences"
    )
    assert environment().fitting(pairs).peers == ["optimum-onnx-full", "optimum-openvino-full"]
    pairs.pair = None
    assert environment().fitting(pairs).peers == list(PACKAGES)


@pytest.mark.parametrize("pooling", ["mean", "first", "pooler"])
def test_the_checkpoint_answers_as_the_model(
    pooling: str, tiny_encoder: Path, tmp_path: Path, tiny_data: Any
) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    options: dict[str, Any] = {"labels": 5, "pooling": pooling, "max_length": 12}
    model = MultiExitForSequenceClassification.from_backbone(str(tiny_encoder), [1, 4], **options).eval()
    texts = tiny_data["validation"]["text"][:8]
    write_checkpoint(model, tmp_path, [(text,) for text in texts])
    given = json.loads((tmp_path / optimum_worker.CALIBRATION).read_text())
    assert given == [[text] for text in texts]
    head, checkpoint = Head(tmp_path), tmp_path / optimum_worker.CHECKPOINT
    tokens = AutoTokenizer.from_pretrained(checkpoint)(
        texts, padding=True, truncation=True, max_length=head.max_length, return_tensors="pt"
    )
    with torch.no_grad():
        hidden = AutoModel.from_pretrained(checkpoint).eval()(**tokens).last_hidden_state.numpy()
        logits = model(**tokens).logits.numpy()
    mask = tokens["attention_mask"].numpy()
    np.testing.assert_array_equal(head.of_tokens(hidden, mask), logits.argmax(axis=1))
    head.weight, head.bias = head.weight[:1], head.bias[:1]  # as for a regression
    np.testing.assert_allclose(head.of_tokens(hidden, mask), logits[:, 0], atol=1e-5)


def test_the_worker_answers_line_by_line() -> None:
    written: list[Any] = []
    lines = [json.dumps([["a", "b"], ["c", "d"]])]
    answer_lines(
        lambda texts: np.array([len(texts), 7]), lines, lambda line: written.append(json.loads(line))
    )
    assert written[0] == {"ready": True}
    assert written[1]["answers"] == [2, 7]
    assert 0 <= written[1]["seconds"] < 1 < written[1]["peak_mib"]


def test_a_peer_answers_from_its_process(folder: Path) -> None:
    peer = RemotePeer(Path(sys.executable), "peer", folder, 1)
    before = time.perf_counter()
    np.testing.assert_array_equal(peer([("abc",), ("d",)]), [3, 1])
    assert peer.overhead == pytest.approx(time.perf_counter() - before - 1e-4, abs=5e-4)
    assert peer.peak_mib == 7.5
    with pytest.raises(
        PeerError, match=r"^peer is left out: it ended with 'ValueError: stopped' \(see .*peer.log\)$"
    ):
        peer([("stop",)])
    with pytest.raises(PeerError, match="stopped"):
        peer([("abc",)])


def test_a_failed_export_is_made_again(folder: Path) -> None:
    for _ in range(2):
        with pytest.raises(PeerError, match="^broken is left out: it ended with 'ImportError: no runtime'"):
            RemotePeer(Path(sys.executable), "broken", folder, 1)
    RemotePeer(Path(sys.executable), "peer", folder, 1)
    (folder / "worker.py").write_text(WORKER.replace('name == "broken"', "True"))
    RemotePeer(Path(sys.executable), "peer", folder, 1)  # exported already


def test_a_peer_that_ends_is_taken_out_and_its_way_is_not_counted(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speed, "BATCH", (0.0, 0))
    peer = RemotePeer(Path(sys.executable), "peer", folder, 1)
    calls: list[int] = []

    def ends(texts: Any) -> Any:
        calls.append(len(texts))
        if len(calls) == 6:
            raise PeerError("second", "it ended")
        return np.zeros(len(texts))

    texts, lines = [("a",), ("bc",)], []
    entrants = {
        "peer": Entrant(peer, texts, None, 0.5, None),
        "second": Entrant(ends, texts, None, 0.5, None),
    }
    batches = [np.array([0]), np.array([1])]
    _, timings = speed._time(entrants, batches, 2, show=False, on_peer_error=lines.append)
    assert list(timings) == ["peer"] == list(entrants)
    assert [str(line) for line in lines] == ["second is left out: it ended"]
    assert np.median(timings["peer"].seconds) == pytest.approx(1e-4, abs=5e-5), "what the worker reports"


def test_their_names_need_their_environment(tmp_path: Path) -> None:
    alone = BenchArtifacts(tmp_path, tmp_path, 1, (2, 4))
    with pytest.raises(
        ConfigError, match="optimum-onnx-full runs in an environment of its own: add --optimum"
    ):
        check_baselines(alone, BenchConfig((1,), peers=("optimum-onnx-full",)), 4)
    with pytest.raises(ConfigError, match="Did you mean 'ours-int8'"):
        check_baselines(alone, BenchConfig((1,), peers=("our-int8",)), 4)
    beside = BenchArtifacts(tmp_path, tmp_path, 1, (2, 4), optimum=environment(nncf=None))
    assert set(find_baselines(beside)) - set(find_baselines(alone)) == {
        "optimum-onnx-full",
        "sbert-onnx-full",
    }
    chosen = check_baselines(beside, BenchConfig((1,), peers=("sbert-onnx-full",)), 4)
    assert chosen["sbert-onnx-full"].kind == "full", "it is a peer to full depth"
    with pytest.raises(ConfigError, match="sbert-onnx-full reads words"):
        check_baselines(beside, BenchConfig((1,), 128, peers=("sbert-onnx-full",)), 4)
    with pytest.raises(ConfigError, match="a peer to full depth to compare with, got a: add eager-full"):
        speed.check_full(["a"], {"a": Baseline(lambda _: lambda texts: np.zeros(1), "cut")})


def test_the_command_asks_the_interpreter_first(capsys: pytest.CaptureFixture[str]) -> None:
    from offramp.cli.main import run

    assert run(["bench", "no-model", "movies", "--optimum", "no-such-python"]) != 0
    assert "expected the Python of an environment with optimum" in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
@pytest.mark.skipif(
    not os.environ.get("OFFRAMP_OPTIMUM"), reason="OFFRAMP_OPTIMUM names no Python with optimum"
)
@pytest.mark.parametrize("name", PACKAGES)
def test_their_packages_export_and_answer(
    name: str, tiny_models: dict[str, Any], tiny_data: Any, tmp_path: Path
) -> None:
    model, texts = tiny_models["multi_exit"], [(text,) for text in tiny_data["validation"]["text"]]
    write_checkpoint(model, tmp_path, texts)
    peer = optimum_peers.RemotePeer(Path(os.environ["OFFRAMP_OPTIMUM"]), name, tmp_path, 1)
    answers = np.concatenate([peer(texts[:32]), peer(texts[32:])])
    encoded = model.tokenizer([text for (text,) in texts], padding=True, return_tensors="pt")
    assert (answers == model(**encoded).logits.argmax(dim=-1).numpy()).mean() > 0.8, "int8 moves few answers"
    assert peer.peak_mib > 20
