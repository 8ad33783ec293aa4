"""FLOPs are counted on the real modules of an architecture, and counting leaves the model as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from offramp.model import MultiExitForSequenceClassification, MultiModelForSequenceClassification
from tests.backbones.backbone_zoo import make, save


@pytest.mark.parametrize("cls", [MultiExitForSequenceClassification, MultiModelForSequenceClassification])
@pytest.mark.parametrize("name", ["albert", "bert", "deberta", "deberta-v2", "modernbert", "mpnet"])
def test_every_kind_of_architecture_can_be_costed(name: str, cls: Any, tmp_path: Path) -> None:
    model = cls.from_backbone(save(make(name), tmp_path), [1, 3])
    model.embedding_tables()[0].requires_grad_(False)
    before = [parameter.requires_grad for parameter in model.parameters()]
    costs, full = model.flops(np.array([8, 16]))
    assert (costs[:, 0] > 0).all()
    assert (costs[:, 1] > 2 * costs[:, 0]).all()
    assert (full < costs[:, 1]).all()
    assert [parameter.requires_grad for parameter in model.parameters()] == before


@pytest.mark.parametrize("name", ["bert", "mpnet", "roberta"])
def test_a_text_of_the_longest_length_fits(name: str, tmp_path: Path) -> None:
    # The tokenizer knows no limit, so that the encoder's positions decide; some count them from behind the
    # padding token.
    model = MultiExitForSequenceClassification.from_backbone(save(make(name), tmp_path), [1]).eval()
    ids = torch.full((1, model.max_length + 1), 5)
    with torch.no_grad():
        assert model(input_ids=ids[:, 1:]).exit_logits.isfinite().all()
    with pytest.raises((IndexError, RuntimeError)):
        model(input_ids=ids)
