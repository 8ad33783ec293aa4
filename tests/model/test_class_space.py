"""The share of features outside a classifier's space, against the projection written out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from offramp._core.errors import CriterionError
from offramp._core.trace import Trace
from offramp.attacks.victims.white_box import WhiteBoxVictim
from offramp.criteria import make_criterion
from offramp.engine.policy import Policy
from offramp.inference.tracing import trace
from offramp.model import MultiExitForSequenceClassification
from offramp.model.class_space import ClassSpace


def classifier(weight: Any, bias: Any) -> nn.Linear:
    layer = nn.Linear(len(weight[0]), len(weight))
    with torch.no_grad():
        layer.weight.copy_(torch.as_tensor(weight))
        layer.bias.copy_(torch.as_tensor(bias))
    return layer


def written_out(features: Any, weight: Any, bias: Any) -> Any:
    """The paper's formula in float64: shift, project, compare."""
    shifted = features + bias @ np.linalg.pinv(weight).T
    projected = shifted @ (np.linalg.pinv(weight) @ weight).T
    return np.sqrt(np.clip(1 - (projected**2).sum(1) / (shifted**2).sum(1), 0, 1))


def test_shares_by_hand() -> None:
    # The classifier reads the first of three features, doubled; its bias of 2 shifts that feature by 1.
    layer = classifier([[2.0, 0.0, 0.0]], [2.0])
    features = torch.tensor([[2.0, 4.0, 0.0], [2.0, 0.0, 0.0], [-1.0, 0.0, 7.0], [-1.0, 0.0, 0.0]])
    shares = ClassSpace(layer)(features, layer(features))
    assert shares.tolist() == pytest.approx([0.8, 0.0, 1.0, 1.0])


@given(seed=st.integers(0, 10**6), classes=st.integers(2, 6), repeated=st.booleans())
@settings(max_examples=30, deadline=None)
def test_logits_give_the_projection(seed: int, classes: int, repeated: bool) -> None:
    rng = np.random.default_rng(seed)
    weight, bias = rng.normal(size=(classes, 8)), rng.normal(size=classes)
    if repeated:  # rows that depend on each other
        weight[-1] = -weight[0]
    features = rng.normal(size=(5, 8))
    layer = classifier(weight, bias)
    read = torch.as_tensor(features, dtype=torch.float32)
    with torch.no_grad():
        shares = ClassSpace(layer)(read, layer(read)).numpy()
    np.testing.assert_allclose(shares, written_out(features, weight, bias), atol=2e-3)


def test_features_of_zero_have_a_share() -> None:
    layer = classifier([[1.0, 0.0], [0.0, 0.0]], [0.0, 0.0])
    assert ClassSpace(layer)(torch.zeros(1, 2), torch.zeros(1, 2)).tolist() == [1.0]


def test_a_trace_keeps_the_shares_of_every_exit(tiny_encoder: Path, tiny_data: Any, tmp_path: Path) -> None:
    model = MultiExitForSequenceClassification.from_backbone(str(tiny_encoder), [1, 3], labels=["no", "yes"])
    run = trace(model.eval(), tiny_data["validation"])
    assert run.residuals is not None
    texts = model.tokenizer(list(tiny_data["validation"]["text"]), padding=True, return_tensors="pt")
    with torch.no_grad():
        state = model.start(texts)
        for k in range(2):
            state = model.segment(k, state)
            head = model.exit_head(k)
            pooled = head.pool(state.hidden, state.attention_mask).double().numpy()
            expected = written_out(
                pooled, head.classifier.weight.double().numpy(), head.classifier.bias.double().numpy()
            )
            np.testing.assert_allclose(run.residuals[:, k], expected, atol=1e-4)
    run.save(tmp_path / "trace.npz")
    assert (Trace.load(tmp_path / "trace.npz").residuals == run.residuals).all()
    assert (run.take(np.array([2])).evidence(1).residual == run.residuals[[2], 1]).all()


def test_regression_has_no_residuals(tiny_encoder: Path, tiny_data: Any) -> None:
    model = MultiExitForSequenceClassification.from_backbone(str(tiny_encoder), [1, 3], kind="regression")
    rows = tiny_data["validation"].remove_columns("label")
    assert trace(model.eval(), rows).residuals is None


def test_attacks_with_gradients_refuse_a_rule_that_needs_them(tiny_encoder: Path) -> None:
    model = MultiExitForSequenceClassification.from_backbone(str(tiny_encoder), [1, 3], labels=["no", "yes"])
    with pytest.raises(CriterionError, match="know no residuals, which 'cap' needs: attack another rule"):
        WhiteBoxVictim(model, Policy(make_criterion("cap"), (1, 3)))
