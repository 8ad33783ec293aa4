"""One small export of each kind, made once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from offramp._core.trace import Trace
from offramp.criteria import make_criterion, scores, with_threshold
from offramp.engine.manifest import Manifest
from offramp.engine.policy import Policy
from offramp.exporting.folder import write_int8
from offramp.exporting.run import Texts, export_model
from offramp.inference.tracing import trace
from offramp.model import MultiExitForSequenceClassification, MultiModelForSequenceClassification
from offramp.model.encoding import TextEncoder

CLASSES = {
    "multi_exit": MultiExitForSequenceClassification,
    "cascade": MultiModelForSequenceClassification,
}


@pytest.fixture(scope="session")
def tiny_models(tiny_encoder: Path) -> dict[str, Any]:
    """A multi-exit model with gates and a cascade, random, three classes."""
    options: dict[str, Any] = {"labels": ["no", "so so", "yes"], "gates": True, "max_length": 24}
    return {
        name: cls.from_backbone(str(tiny_encoder), [1, 3], **options).eval() for name, cls in CLASSES.items()
    }


@pytest.fixture(scope="session")
def exports(
    tiny_models: dict[str, Any], tiny_data: Any, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Folders by name: the two models in float32, and the first in int8."""
    calibration, validation = tiny_data["calibration"], tiny_data["validation"]
    folders = {}
    for name, model in tiny_models.items():
        policy = halfway(trace(model, validation))
        folders[name] = tmp_path_factory.mktemp("export") / name
        export_model(model, folders[name], policy=policy, texts=Texts(comparison=validation))
    encoder = TextEncoder.of(tiny_models["multi_exit"])
    encodings = [encoder.dataset(rows)[0] for rows in (calibration, validation)]
    folders["int8"] = tmp_path_factory.mktemp("export") / "int8"
    source = folders["multi_exit"]  # the exporter is slow: its graphs serve twice
    write_int8(tiny_models["multi_exit"], Manifest.load(source), source, folders["int8"], *encodings)
    return folders


def halfway(run: Trace) -> Policy:
    """Confidence at which half of the examples leave at the first exit."""
    rule = make_criterion("confidence")
    ordered = np.sort(scores(rule, run)[:, 0])
    middle = len(ordered) // 2
    threshold = float(ordered[middle - 1 : middle + 1].mean())
    return Policy(with_threshold(rule, threshold), run.exit_layers)
