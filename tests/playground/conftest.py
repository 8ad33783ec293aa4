"""Tiny models of every kind, open in a playground that a real server answers for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from time import monotonic, sleep
from typing import Any

import numpy as np
import pytest

from offramp.calibration import tune
from offramp.cli.play import ADDRESS_BYTES
from offramp.criteria import make_criterion, scores
from offramp.engine.policy import Policy
from offramp.exporting.run import export_model
from offramp.inference.tracing import trace
from offramp.model import MultiExitForSequenceClassification
from offramp.training.run import train

ATTACK_SECONDS = 30.0


def half_leave(model: Any, data: Any) -> Policy:
    """Confidence at which half of the texts leave at the first exit, with temperatures."""
    middle = float(np.median(scores(make_criterion("confidence"), trace(model, data))[:, 0]))
    return Policy(make_criterion("confidence", middle), model.exit_layers, (1.0,) * len(model.exit_layers))


@pytest.fixture(scope="session")
def folders(tiny_encoder: Path, tiny_data: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders by name: a trained model with layer 0, gates and two policies; its export; and three random models."""
    root = tmp_path_factory.mktemp("play")
    options: dict[str, Any] = {"max_length": 24, "labels": ["no", "yes"]}
    make = MultiExitForSequenceClassification.from_backbone
    model = train(
        make(str(tiny_encoder), [0, 1, 3], gates=True, **options),
        tiny_data,
        "joint",
        output_dir=root / "run",
        max_steps=12,
        progress=False,
    )
    policy = half_leave(model, tiny_data["validation"])
    model.save_pretrained(root / "trained", policy=policy)
    tune(trace(model, tiny_data["calibration"]), "entropy", max_cost=0.7).save(
        root / "trained/policy-entropy.json"
    )
    export_model(model, root / "exported", policy=policy)
    make(str(tiny_encoder), [1, 2, 4], **options, seed=1).save_pretrained(root / "other")
    many = [f"class {k}" for k in range(7)]
    pairs = make(str(tiny_encoder), [1, 4], **{**options, "labels": many})
    pairs.config.pair = True
    pairs.save_pretrained(root / "pairs")
    make(str(tiny_encoder), [1, 2, 4], kind="regression", max_length=24).save_pretrained(root / "numbers")
    return {name: root / name for name in ("trained", "exported", "other", "pairs", "numbers")}


@pytest.fixture(scope="session")
def models(folders: dict[str, Path]) -> Any:
    """All models, open."""
    pytest.importorskip("uvicorn")
    from offramp.playground.models import open_models

    return open_models([str(path) for path in folders.values()], threads=1)


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """The address of an application that a server answers for."""
    from offramp.serving.server import make_server

    server = make_server(app, "127.0.0.1", 0, 1, head_bytes=ADDRESS_BYTES)
    thread = Thread(target=server.run)
    thread.start()
    try:
        deadline = monotonic() + 20
        while not server.started and thread.is_alive() and monotonic() < deadline:
            sleep(0.005)
        assert server.started
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="session")
def address(models: Any) -> Iterator[str]:
    """A playground of all models."""
    from offramp.playground.app import make_app

    with serving(make_app(models, attack_seconds=ATTACK_SECONDS)) as url:
        yield url
