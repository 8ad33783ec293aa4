"""Exports for a rule that needs the residuals of the exits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from offramp.criteria import make_criterion, scores
from offramp.engine.agreement import check_agreement
from offramp.engine.manifest import Manifest
from offramp.engine.onnx import OnnxSegments
from offramp.engine.policy import Policy
from offramp.engine.segments import trace_segments
from offramp.exporting.folder import write_int8
from offramp.exporting.run import Texts, export_model
from offramp.inference.engine import Engine
from offramp.inference.tracing import trace
from offramp.model.encoding import TextEncoder
from tests.exporting.conftest import CLASSES

EXITS = [0, 1, 3]


def cap_policy(run: Any) -> Policy:
    """Half of the examples leave at the first exit."""
    ordered = np.sort(scores(make_criterion("cap", alpha=2.0), run)[:, 0])
    middle = len(ordered) // 2
    threshold = float(ordered[middle - 1 : middle + 1].mean())
    return Policy(make_criterion("cap", threshold, alpha=2.0), run.exit_layers)


@pytest.mark.parametrize("kind", ["multi_exit", pytest.param("cascade", marks=pytest.mark.slow)])
def test_an_export_gives_the_residuals_of_its_model(
    kind: str, tiny_encoder: Path, tiny_data: Any, tmp_path: Path
) -> None:
    rows = tiny_data["validation"]
    model = CLASSES[kind].from_backbone(str(tiny_encoder), EXITS, labels=["no", "yes"]).eval()
    model.fit_linear(TextEncoder.of(model).dataset(rows)[0], rows["label"])
    run = trace(model, rows)
    assert (run.residuals[:, 0] == 0).all()
    policy = cap_policy(run)
    manifest = export_model(model, tmp_path / "fp32", policy=policy, texts=Texts(comparison=rows))
    assert not manifest.fused_graph
    assert manifest.checks["changed_exits"] == 0
    encodings = TextEncoder.of(model).dataset(rows)[0]
    segments = OnnxSegments(tmp_path / "fp32", threads=1)
    exported = trace_segments(segments, encodings, manifest.pad_values)
    np.testing.assert_allclose(exported.residuals, run.residuals, atol=1e-4)
    for batch_size in (1, 7):
        decisions = Engine(tmp_path / "fp32", batch_size=batch_size).decide(rows)
        assert check_agreement(decisions, run, policy).holds
    assert len(np.unique(decisions.exit)) > 1
    if kind == "multi_exit":  # the exporter is slow: its graphs serve twice
        source = tmp_path / "fp32"
        write_int8(model, Manifest.load(source), source, tmp_path / "int8", encodings, encodings)
        narrow = trace_segments(OnnxSegments(tmp_path / "int8", threads=1), encodings, manifest.pad_values)
        assert narrow.residuals is not None
        assert np.abs(narrow.residuals - run.residuals).max() < 0.05
        assert len(Engine(tmp_path / "int8").decide(rows)) == len(rows)
