"""Gradient products of real models against plain gradients, and what training leaves behind of them."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AlbertConfig

from offramp._core.errors import ConfigError, DataError
from offramp._core.run_files import read_gradients, write_gradients
from offramp.evaluation.conflict import conflict
from offramp.model import MultiExitForSequenceClassification, MultiModelForSequenceClassification
from offramp.model.base import SegmentedModel
from offramp.model.heads import exit_loss
from offramp.training.gradient_conflict.measure import (
    ConflictCallback,
    batches_of,
    gradient_products,
    measure_products,
)
from offramp.training.run import train
from offramp.training.strategies import STRATEGIES, Sweet
from offramp.training.strategies.base import Strategy
from tests.backbones.backbone_zoo import build, save

EXITS = [1, 2, 4]


@pytest.fixture
def model(tiny_encoder: Path) -> Any:
    return MultiExitForSequenceClassification.from_backbone(
        str(tiny_encoder), EXITS, labels=["no", "yes"], gates=True
    ).eval()


def batch_of(model: Any, data: Any) -> Any:
    return next(batches_of(model, data["train"], 1, 6, 0))


def plain_products(model: Any, inputs: Any, labels: torch.Tensor) -> np.ndarray:
    """The slow and obvious twin: each exit's whole gradient, then inner products layer by layer."""
    rows: list[list[torch.Tensor]] = []
    for k in range(len(EXITS)):
        model.zero_grad(set_to_none=True)
        exit_loss(model(**inputs).exit_logits[:, k], labels).backward()
        layers = [
            [p.grad if p.grad is not None else torch.zeros_like(p) for p in layer.parameters()]
            for layer in model.driver.layers
        ]
        rows.append([torch.cat([g.flatten() for g in layer]).clone() for layer in layers])
    model.zero_grad(set_to_none=True)
    return np.array(
        [[[float(one[layer] @ other[layer]) for other in rows] for one in rows] for layer in range(EXITS[-1])]
    )


def test_products_are_those_of_whole_gradients(model: Any, tiny_data: Any) -> None:
    inputs, labels = batch_of(model, tiny_data)
    found = gradient_products(model, inputs, labels)
    assert found.shape == (4, 3, 3)
    assert np.allclose(found, plain_products(model, inputs, labels), rtol=1e-4, atol=1e-7)
    assert (found[3, :2] == 0).all()  # exits 1 and 2 sit below layer 4
    assert (np.diagonal(found[0]) > 0).all()


def test_a_layer_that_is_reused_counts_one_passage_at_a_time(tmp_path: Path, tiny_data: Any) -> None:
    """Against the same encoder with a copy of the layer for each passage."""
    models = []
    for groups in (1, 4):
        config = AlbertConfig(
            vocab_size=50,
            hidden_size=32,
            embedding_size=16,
            num_hidden_layers=4,
            num_attention_heads=4,
            intermediate_size=37,
            num_hidden_groups=groups,
        )
        folder = save(build(config), tmp_path / str(groups))
        models.append(MultiExitForSequenceClassification.from_backbone(str(folder), EXITS).eval())
    tied, copied = models
    weights = tied.state_dict()
    copied.load_state_dict(
        {name: weights[re.sub(r"layer_groups\.\d", "layer_groups.0", name)] for name in copied.state_dict()}
    )
    inputs, labels = batch_of(tied, tiny_data)
    assert np.allclose(
        gradient_products(tied, inputs, labels), plain_products(copied, inputs, labels), rtol=1e-4, atol=1e-7
    )


def test_under_sweet_all_cross_terms_are_exactly_zero(model: Any, tiny_data: Any) -> None:
    inputs, labels = batch_of(model, tiny_data)
    cut, whole = gradient_products(model, inputs, labels, cut=True), gradient_products(model, inputs, labels)
    for layer in range(4):
        owner = next(k for k, last in enumerate(EXITS) if layer + 1 <= last)
        assert np.count_nonzero(cut[layer]) == 1
        assert cut[layer, owner, owner] == pytest.approx(whole[layer, owner, owner], rel=1e-5)
    found = conflict(cut[None], tuple(EXITS))
    assert set(found.pairs.cosine[np.isfinite(found.pairs.cosine)]) == {0.0}
    assert set(found.following.cosine[np.isfinite(found.following.cosine)]) == {0.0}


def test_the_cut_graph_is_that_of_the_strategy(tiny_encoder: Path, tiny_data: Any) -> None:
    """What SWEET's own step puts into `.grad` has the norms that the cut graph has."""
    model: Any = MultiExitForSequenceClassification.from_backbone(str(tiny_encoder), EXITS).eval()
    inputs, labels = batch_of(model, tiny_data)
    step: Strategy = Sweet()
    step.step(model, inputs, labels, torch.Tensor.backward)
    cut = gradient_products(model, inputs, labels, cut=True)
    for layer in range(4):
        squares = [float((p.grad**2).sum()) for p in model.driver.layers[layer].parameters()]
        assert cut[layer].sum() == pytest.approx(sum(squares), rel=1e-4)


def test_measuring_leaves_the_model_as_it_was(model: Any, tiny_data: Any) -> None:
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    found = measure_products(model, tiny_data["train"], batches=3, batch_size=5)
    assert found.shape == (3, 4, 3, 3)
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert np.array_equal(found, measure_products(model, tiny_data["train"], batches=3, batch_size=5))
    assert not np.array_equal(
        found, measure_products(model, tiny_data["train"], batches=3, batch_size=5, seed=1)
    )


def test_the_strategy_that_made_the_weights_decides_the_graph(model: Any, tiny_data: Any) -> None:
    model.config.strategy = "sweet"
    assert np.count_nonzero(measure_products(model, tiny_data["train"], batches=1)) == 4
    assert (
        np.count_nonzero(measure_products(model, tiny_data["train"], batches=1, cut=False)) == 9 + 4 + 1 + 1
    )


def test_what_cannot_be_measured(model: Any, tiny_encoder: Path, tiny_data: Any) -> None:
    rows = tiny_data["train"]
    with pytest.raises(ConfigError, match="share none"):
        measure_products(MultiModelForSequenceClassification.from_backbone(str(tiny_encoder), EXITS), rows)
    with pytest.raises(ConfigError, match="got 0 of 16"):
        measure_products(model, rows, batches=0)
    with pytest.raises(DataError, match="got 96 without labels"):
        measure_products(model, rows.remove_columns("label"))
    with pytest.raises(ConfigError, match=r"steps of at least 0,.* got \[-1\]"):
        ConflictCallback(model, rows, [-1], "nowhere")


@pytest.mark.parametrize(("strategy", "steps"), [("joint", [0, 3, 6, 99]), ("mixed", [0, 3, 6])])
def test_training_measures_at_chosen_steps_and_is_not_disturbed(
    strategy: str, steps: list[int], tiny_encoder: Path, tiny_data: Any, tmp_path: Path
) -> None:
    quick: dict[str, Any] = {"batch_size": 8, "max_steps": 6, "strategy": strategy, "progress": False}
    weights = []
    for name in ("plain", "measured"):
        model = MultiExitForSequenceClassification.from_backbone(
            str(tiny_encoder), EXITS, labels=["no", "yes"]
        )
        options = {"batches": 2, "batch_size": 4}
        watch = ConflictCallback(model, tiny_data["train"], steps, tmp_path / name / "conflict", **options)
        callbacks = [watch] if name == "measured" else []
        train(model, tiny_data, output_dir=tmp_path / name, callbacks=callbacks, **quick)
        weights.append(model.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(*(w.values() for w in weights), strict=True))
    found = read_gradients(tmp_path / "measured" / "conflict" / "products.npz")
    assert list(found) == [0, 3, 6]
    assert all(products.shape == (2, 4, 3, 3) for products in found.values())
    assert not np.allclose(found[0], found[6])
    assert np.array_equal(
        found[6], measure_products(model, tiny_data["train"], batches=2, batch_size=4, cut=False)
    )


def test_a_phase_that_ends_inside_an_epoch_is_measured_in_time_after_a_stop(
    tiny_encoder: Path, tiny_data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two phases of six steps, half an epoch each, stopped in the second."""
    quick: dict[str, Any] = {"batch_size": 8, "epochs": 1, "strategy": "mixed", "progress": False}
    taken, original = [0], STRATEGIES["mixed"].step

    def interrupted(self: Any, model: Any, *args: Any) -> Any:
        taken[0] += isinstance(model, SegmentedModel)
        if taken[0] == 9:
            os.kill(os.getpid(), signal.SIGINT)
        return original(self, model, *args)

    def run(folder: Path) -> Any:
        model = MultiExitForSequenceClassification.from_backbone(str(tiny_encoder), EXITS)
        watch = ConflictCallback(model, tiny_data["train"], [0, 6, 12], folder, batches=2, batch_size=4)
        return train(model, tiny_data, output_dir=folder / "run", callbacks=[watch], **quick)

    whole = run(tmp_path / "whole")
    with monkeypatch.context() as patched:
        patched.setattr(STRATEGIES["mixed"], "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "cut")
    resumed = run(tmp_path / "cut")
    assert all(
        torch.equal(a, b)
        for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True)
    )
    found = [read_gradients(tmp_path / name / "products.npz") for name in ("whole", "cut")]
    assert list(found[0]) == list(found[1]) == [0, 6, 12]
    assert all(np.array_equal(found[0][step], found[1][step]) for step in (0, 6, 12))


def test_products_are_read_as_written(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "products.npz"
    assert read_gradients(path) == {}
    write_gradients(path, {60: np.ones((1, 2, 2, 2)), 0: np.zeros((1, 2, 2, 2))})
    assert list(read_gradients(path)) == [0, 60]
    path.write_bytes(b"PK nonsense")
    with pytest.raises(DataError, match=r"products\.npz cannot be read"):
        read_gradients(path)
