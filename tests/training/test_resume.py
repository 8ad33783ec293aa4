"""A run stopped anywhere and called again ends in the same weights to the bit, under every strategy."""

from __future__ import annotations

import functools
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from offramp.model import MultiExitForSequenceClassification
from offramp.model.base import SegmentedModel
from offramp.training.run import train
from offramp.training.strategies import STRATEGIES

EPOCH = 12  # steps: 96 examples in batches of 8
QUICK: dict[str, Any] = {"batch_size": 8, "learning_rate": 3e-3, "epochs": 2, "progress": False}

# Strategy, steps at which Ctrl-C comes (counted over the whole run), steps in all.
STOPS: list[tuple[str, tuple[int, ...], int]] = [
    ("alternating", (17,), 2 * EPOCH),
    ("self_distill", (17,), 2 * EPOCH),
    ("gradient_equilibrium", (17,), 2 * EPOCH),
    ("pcgrad", (17,), 2 * EPOCH),
    ("equal_norm", (17,), 2 * EPOCH),
    ("cosee", (17,), 2 * EPOCH),
    # Inside the first phase; at its last step; inside the second, and there once more.
    ("two_stage", (5,), 4 * EPOCH),
    ("two_stage", (2 * EPOCH,), 4 * EPOCH),
    ("two_stage", (2 * EPOCH + 3, 3 * EPOCH + 1), 4 * EPOCH),
    ("mixed", (5,), 2 * EPOCH),
    ("mixed", (EPOCH,), 2 * EPOCH),
    ("mixed", (EPOCH + 3, EPOCH + 9), 2 * EPOCH),
]


def fresh(encoder: Path) -> Any:
    return MultiExitForSequenceClassification.from_backbone(
        str(encoder), [1, 2, 4], labels=["no", "yes"], gates=True
    )


@pytest.fixture(scope="module")
def whole_run(tiny_encoder: Path, tiny_data: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """By strategy, the weights of a run that nothing stopped."""

    @functools.cache
    def run(name: str) -> dict[str, torch.Tensor]:
        folder = tmp_path_factory.mktemp(name)
        return train(fresh(tiny_encoder), tiny_data, strategy=name, output_dir=folder, **QUICK).state_dict()

    return run


@pytest.mark.parametrize(("name", "stops", "total"), STOPS)
def test_resumed_run_equals_an_uninterrupted_one(
    name: str,
    stops: tuple[int, ...],
    total: int,
    whole_run: Any,
    tiny_encoder: Path,
    tiny_data: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = {"strategy": name, **QUICK}
    whole = whole_run(name)
    steps, original = 0, STRATEGIES[name].step

    def interrupted(self: Any, model: Any, *args: Any) -> Any:
        nonlocal steps
        training = isinstance(model, SegmentedModel)
        steps += training
        if training and steps in stops:
            os.kill(os.getpid(), signal.SIGINT)
        return original(self, model, *args)

    monkeypatch.setattr(STRATEGIES[name], "step", interrupted)
    for stop in stops:
        with pytest.raises(KeyboardInterrupt, match="run the same again"):
            train(fresh(tiny_encoder), tiny_data, output_dir=tmp_path / "cut", **options)
        assert steps == stop
    resumed = train(fresh(tiny_encoder), tiny_data, output_dir=tmp_path / "cut", **options)
    assert steps == total  # no step was taken twice
    for (parameter, a), b in zip(whole.items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b), parameter


def test_a_run_in_random_order_resumes(
    tiny_encoder: Path, tiny_data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C inside the second epoch; clipped by segment, too."""
    options: dict[str, Any] = {
        **QUICK,
        "strategy": "sweet",
        "order": "random",
        "max_grad_norm": 0.5,
        "strategy_options": {"clip": "segment"},
    }
    grouped = train(
        fresh(tiny_encoder), tiny_data, output_dir=tmp_path / "grouped", **{**options, "order": "length"}
    )
    whole = train(fresh(tiny_encoder), tiny_data, output_dir=tmp_path / "whole", **options)
    taken, original = [0], STRATEGIES["sweet"].step

    def interrupted(self: Any, model: Any, *args: Any) -> Any:
        taken[0] += isinstance(model, SegmentedModel)  # the audit of shared layers has steps of its own
        if taken[0] == 17:
            os.kill(os.getpid(), signal.SIGINT)
        return original(self, model, *args)

    with monkeypatch.context() as patched:
        patched.setattr(STRATEGIES["sweet"], "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(fresh(tiny_encoder), tiny_data, output_dir=tmp_path / "cut", **options)
    resumed = train(fresh(tiny_encoder), tiny_data, output_dir=tmp_path / "cut", **options)
    for (name, a), b in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert not all(torch.equal(a, b) for a, b in zip(whole.parameters(), grouped.parameters(), strict=True))


def test_every_strategy_is_stopped_here_or_in_the_test_of_a_run() -> None:
    assert {name for name, *_ in STOPS} | {"joint", "sweet", "multi_model"} == set(STRATEGIES)


def test_the_second_stage_leaves_the_backbone_alone(
    tiny_encoder: Path, tiny_data: Any, tmp_path: Path
) -> None:
    """Neither gradients nor weight decay move what is frozen; the early heads move in that stage alone."""
    start = {name: value.clone() for name, value in fresh(tiny_encoder).state_dict().items()}
    models = [
        train(
            fresh(tiny_encoder),
            tiny_data,
            strategy="two_stage",
            output_dir=tmp_path / str(share),
            strategy_options={"heads_share": share},
            **{**QUICK, "epochs": 0.5},
        ).state_dict()
        for share in (1.0, 2.0)
    ]
    for name, value in models[0].items():
        same = torch.equal(value, models[1][name])
        early = "heads.0" in name or "heads.1" in name
        assert same != early, name
        if "position_ids" not in name and "token_type" not in name:
            assert not torch.equal(value, start[name]), name
