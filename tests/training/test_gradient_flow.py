"""Which exit's loss reaches which parameter under every strategy, with and without learned gates."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from offramp.bench.training_steps import peak_activation_bytes
from offramp.model import MultiExitForSequenceClassification
from offramp.training.audit import gradient_reach
from offramp.training.strategies import STRATEGIES, Moment, TwoStage, make_strategy

EXITS = [1, 2, 4]
ODD, SECOND = Moment(step=1), Moment(phase=1)
Reach = Callable[[int], tuple[int, ...]]


def every_exit_above(layer: int) -> tuple[int, ...]:
    return tuple(k for k, last in enumerate(EXITS) if layer <= last)


def the_next_exit(layer: int) -> tuple[int, ...]:
    return every_exit_above(layer)[:1]


def the_last_exit(layer: int) -> tuple[int, ...]:
    return (len(EXITS) - 1,)


def no_exit(layer: int) -> tuple[int, ...]:
    return ()


# Strategy, moment, exits that reach a layer (0: the embeddings), exits whose heads are trained.
FLOWS: list[tuple[str, Moment, Reach, tuple[int, ...]]] = [
    ("joint", Moment(), every_exit_above, (0, 1, 2)),
    ("multi_model", Moment(), every_exit_above, (0, 1, 2)),
    ("sweet", Moment(), the_next_exit, (0, 1, 2)),
    ("two_stage", Moment(), the_last_exit, (2,)),
    ("two_stage", SECOND, no_exit, (0, 1)),
    ("alternating", Moment(), the_last_exit, (2,)),
    ("alternating", ODD, every_exit_above, (0, 1, 2)),
    ("self_distill", Moment(), every_exit_above, (0, 1, 2)),
    ("mixed", Moment(), the_last_exit, (2,)),
    ("mixed", SECOND, every_exit_above, (0, 1, 2)),
    ("gradient_equilibrium", Moment(), every_exit_above, (0, 1, 2)),
    ("pcgrad", Moment(), every_exit_above, (0, 1, 2)),
    ("equal_norm", Moment(), every_exit_above, (0, 1, 2)),
    ("cosee", Moment(), every_exit_above, (0, 1, 2)),
]


@pytest.mark.parametrize("gates", [False, True])
@pytest.mark.parametrize(("name", "moment", "reach", "heads"), FLOWS)
def test_gradients_reach_what_they_should(
    name: str, moment: Moment, reach: Reach, heads: tuple[int, ...], gates: bool, tiny_encoder: Path
) -> None:
    model = MultiExitForSequenceClassification.from_backbone(str(tiny_encoder), EXITS, gates=gates)
    seen = set()
    for parameter, exits in gradient_reach(model, make_strategy(name), moment).items():
        if "heads." in parameter:
            owner = int(parameter.split("heads.")[1][0])
            assert exits == ((owner,) if owner in heads else ()), parameter
            seen.add(parameter.split(".")[2])
        elif "encoder.layer." in parameter:
            layer = int(parameter.split("layer.")[1].split(".")[0]) + 1
            # The key bias shifts all attention scores of a query alike: softmax does not see it.
            assert exits == reach(layer) or parameter.endswith("key.bias"), parameter
        else:  # rows of the embeddings that the batch has not
            assert exits in (reach(0), ()), parameter
    assert seen == ({"classifier", "gate"} if gates else {"classifier"})


def test_every_strategy_is_audited() -> None:
    assert {name for name, *_ in FLOWS} == set(STRATEGIES)


def test_a_frozen_backbone_keeps_no_activations(tiny_encoder: Path) -> None:
    model = MultiExitForSequenceClassification.from_backbone(str(tiny_encoder), EXITS)
    ids = torch.randint(5, 40, (8, 32), generator=torch.Generator().manual_seed(0))
    inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    class Second(TwoStage):
        def step(self, *args: Any) -> torch.Tensor:
            return super().step(*args, SECOND)

    first = peak_activation_bytes(model, TwoStage(), inputs, torch.arange(8) % 2)
    assert peak_activation_bytes(model, Second(), inputs, torch.arange(8) % 2) < first / 20


@pytest.mark.parametrize(("name", "moment", "reach", "heads"), FLOWS)
def test_gradients_flow_under_autocast(
    name: str, moment: Moment, reach: Reach, heads: tuple[int, ...], tiny_encoder: Path
) -> None:
    """Autocast keeps weights it has cast: what runs without gradients must not spoil what runs with them."""
    model = MultiExitForSequenceClassification.from_backbone(str(tiny_encoder), EXITS).eval()
    ids = torch.randint(5, 40, (4, 8), generator=torch.Generator().manual_seed(0))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with torch.autocast("cpu", torch.bfloat16):
        make_strategy(name).step(model, inputs, torch.arange(4) % 2, torch.Tensor.backward, moment)
    for parameter, value in model.named_parameters():
        if "classifier.weight" in parameter:
            wanted = int(parameter.split("heads.")[1][0]) in heads
        elif "encoder.layer." in parameter and parameter.endswith("dense.weight"):
            wanted = bool(reach(int(parameter.split("layer.")[1].split(".")[0]) + 1))
        else:
            continue
        assert (value.grad is not None) == wanted, parameter
        assert value.grad is None or bool(value.grad.isfinite().all() and value.grad.any()), parameter
