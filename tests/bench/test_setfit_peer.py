"""SetFit as a baseline, where its package is installed."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from offramp.bench import setfit_peer
from offramp.bench.text_peers import SETFIT, read_text_peer

pytest.importorskip("setfit")


@pytest.mark.filterwarnings("ignore")  # of the package and what it imports
def test_it_is_trained_written_and_read(
    tiny_encoder: Path, tiny_data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setfit_peer, "STEPS", 2)
    rows = tiny_data["train"].select(range(24))
    model: Any = SimpleNamespace(config=SimpleNamespace(backbone_config={"_name_or_path": str(tiny_encoder)}))
    setfit_peer.SetFitClassifier.train(model, rows["text"], np.array(rows["label"]), tmp_path / SETFIT)
    peer = read_text_peer(tmp_path, SETFIT, lambda layer: pytest.fail("no second model"))
    answers = peer([(text,) for text in rows["text"]])
    assert answers.shape == (24,)
    assert set(answers.tolist()) <= {0, 1}
    assert not peer.passes([("a film",)]).any()
