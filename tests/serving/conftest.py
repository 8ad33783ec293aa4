"""A tiny model with a policy, as a saved folder and as an exported one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from offramp.exporting.run import export_model
from offramp.inference.engine import Engine
from offramp.inference.tracing import trace
from offramp.model import MultiExitForSequenceClassification
from tests.exporting.conftest import halfway


@pytest.fixture(scope="session")
def tiny_model(tiny_encoder: Path, tiny_data: Any) -> Any:
    """A multi-exit model, random, with a policy under which half of the texts leave at the first exit."""
    labels = ["no", "so so", "yes"]
    model = MultiExitForSequenceClassification.from_backbone(str(tiny_encoder), [1, 3], labels=labels)
    model.eval()
    model.policy = halfway(trace(model, tiny_data["validation"]))
    return model


@pytest.fixture(scope="session")
def saved(tiny_model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model as a folder that runs in torch."""
    folder = tmp_path_factory.mktemp("serving") / "saved"
    tiny_model.save_pretrained(folder, policy=tiny_model.policy)
    return folder


@pytest.fixture(scope="session")
def exported(tiny_model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model as a folder that runs without torch."""
    folder = tmp_path_factory.mktemp("serving") / "exported"
    export_model(tiny_model, folder, policy=tiny_model.policy)
    return folder


@pytest.fixture(scope="session")
def engine(saved: Path) -> Engine:
    return Engine(saved, batch_size=4)
