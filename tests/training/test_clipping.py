"""Clipping: over all exits together, by segment, or not at all; and what "as if trained alone" means to the bit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import TrainerCallback, get_linear_schedule_with_warmup

from offramp._core.errors import ConfigError
from offramp.model import MultiExitForSequenceClassification
from offramp.training.run import train
from offramp.training.strategies import Sweet, make_strategy
from offramp.training.strategies.losses import head_loss
from offramp.training.trainer import EpochSampler

EXITS = [1, 2, 4]
STEPS, RATE, LIMIT, DECAY, WARMUP = 8, 3e-3, 0.3, 0.1, 0.25
QUICK: dict[str, Any] = {
    "batch_size": 8,
    "max_steps": STEPS,
    "learning_rate": RATE,
    "max_grad_norm": LIMIT,
    "weight_decay": DECAY,
    "warmup": WARMUP,
    "progress": False,
}
Weights = dict[str, torch.Tensor]


class Recorder(TrainerCallback):
    """The weights before each step."""

    def __init__(self, model: Any) -> None:
        self.model, self.weights = model, list[Weights]()

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.weights.append({name: value.clone() for name, value in self.model.state_dict().items()})


def fresh(encoder: Path, exits: list[int]) -> Any:
    """Without dropout, whose random numbers are one stream for all layers."""
    model = MultiExitForSequenceClassification.from_backbone(str(encoder), exits, labels=["no", "yes"])
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


@pytest.fixture(scope="module")
def runs(tiny_encoder: Path, tiny_data: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The batches of the steps; and, by what is clipped, the weights before each step and after the last."""
    original, given, trajectories = Sweet.step, [], {}

    def noting(self: Any, model: Any, inputs: Any, labels: Any, *args: Any) -> Any:
        if isinstance(
            model, MultiExitForSequenceClassification
        ):  # the audit of shared layers has its own batch
            given.append((inputs, labels))
        return original(self, model, inputs, labels, *args)

    for clip in ("all", "segment"):
        model, folder = fresh(tiny_encoder, EXITS), tmp_path_factory.mktemp(clip)
        recorder = Recorder(model)
        options = {"strategy_options": {"clip": clip}, "callbacks": [recorder], **QUICK}
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(Sweet, "step", noting)
            train(model, tiny_data, strategy="sweet", output_dir=folder, **options)
        trajectories[clip] = [*recorder.weights, model.state_dict()]
    return given[:STEPS], trajectories


def alone(model: Any, k: int, trajectory: list[Weights], given: list[Any]) -> Iterator[Weights]:
    """Segment `k` trained by a plain loop of its own, on the segments below it as they are at each step.

    It sees no other exit's loss, gradient or parameters above it. AdamW decays no norms and no biases.
    """
    own = [{n for n, p in model.named_parameters() if p in {*s}} for s in model.parameters_by_segment()][k]
    parameters = {n: p for n, p in model.named_parameters() if n in own}
    plain = {n for n in own if n.endswith("bias") or "LayerNorm" in n}
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for n, p in parameters.items() if n not in plain], "weight_decay": DECAY},
            {"params": [p for n, p in parameters.items() if n in plain], "weight_decay": 0.0},
        ],
        lr=RATE,
        fused=True,  # as the library's trainer
    )
    schedule = get_linear_schedule_with_warmup(optimizer, round(WARMUP * STEPS), STEPS)
    for weights, (inputs, labels) in zip(trajectory, given, strict=False):
        model.load_state_dict({n: v for n, v in weights.items() if n not in own}, strict=False)
        with torch.no_grad():
            state = model.start(inputs) if k else None
            for below in range(k):
                state = model.segment(below, state)
        head_loss(model, k, model.segment(k, state if k else model.start(inputs)), labels).backward()
        torch.nn.utils.clip_grad_norm_(parameters.values(), LIMIT)
        optimizer.step()
        schedule.step()
        model.zero_grad()
        yield {n: p.detach().clone() for n, p in parameters.items()}


@pytest.mark.parametrize("k", range(len(EXITS)))
def test_a_segment_is_trained_as_if_it_were_alone(k: int, runs: Any, tiny_encoder: Path) -> None:
    """Every weight of every segment after every step, to the bit; with the released code's clipping, it is not."""
    given, trajectories = runs
    for clip, trajectory in trajectories.items():
        by_itself = alone(fresh(tiny_encoder, EXITS), k, trajectory, given)
        same = [
            torch.equal(weights[name], value)
            for weights, own in zip(trajectory[1:], by_itself, strict=True)
            for name, value in own.items()
        ]
        assert all(same) == (clip == "segment"), clip


def test_the_first_segment_is_a_model_of_its_own(
    runs: Any, tiny_encoder: Path, tiny_data: Any, tmp_path: Path
) -> None:
    """A run of the library's on the first layer alone ends in the same weights to the bit."""
    trajectory = runs[1]["segment"]
    short = fresh(tiny_encoder, EXITS[:1])
    short.load_state_dict({n: v for n, v in trajectory[0].items() if n in short.state_dict()})
    train(short, tiny_data, strategy="joint", output_dir=tmp_path, **QUICK)
    for name, value in short.state_dict().items():
        assert torch.equal(value, trajectory[-1][name]), name


def test_clipping_can_be_left_out(tiny_encoder: Path, tiny_data: Any, tmp_path: Path) -> None:
    """Then both ways of clipping are the same, and equal to a limit that nothing reaches."""
    weights = []
    for clip, limit in (("all", 0.0), ("segment", 1e9), ("all", LIMIT)):
        model = fresh(tiny_encoder, EXITS)
        options = {**QUICK, "max_grad_norm": limit, "max_steps": 2, "strategy_options": {"clip": clip}}
        train(model, tiny_data, strategy="sweet", output_dir=tmp_path / f"{clip}-{limit}", **options)
        weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_groups_are_all_parameters_once(tiny_encoder: Path) -> None:
    model = fresh(tiny_encoder, EXITS)
    for name, options, count in (("joint", {}, 1), ("sweet", {}, 1), ("sweet", {"clip": "segment"}, 3)):
        groups = make_strategy(name, **options).clip_groups(model)
        assert len(groups) == count
        assert sorted(map(id, (p for group in groups for p in group))) == sorted(map(id, model.parameters()))
    with pytest.raises(ConfigError, match="unknown clip of sweet 'segments'. Did you mean 'segment'"):
        make_strategy("sweet", clip="segments")


def test_random_order_does_not_look_at_lengths() -> None:
    lengths = [1 + i % 7 for i in range(40)]

    def order(seed: int, epoch: int, *kind: Any) -> list[int]:
        sampler = EpochSampler(4, lengths, seed, *kind)
        sampler.set_epoch(epoch)
        return [*sampler]

    drawn = [order(seed, epoch, "random") for seed in (0, 1) for epoch in (0, 1)]
    assert all(sorted(rows) == list(range(40)) for rows in drawn)
    assert len({tuple(rows) for rows in drawn}) == 4
    assert order(1, 1, "random") == drawn[-1]
    assert order(0, 0) == order(0, 0, "length") != drawn[0]
    grouped, free = (
        sum(max(batch) - min(batch) for batch in np.array(lengths)[rows].reshape(10, 4).tolist())
        for rows in (order(0, 0), drawn[0])
    )
    assert grouped < free / 2


def test_a_run_from_before_the_options_had_their_defaults(
    tiny_encoder: Path, tiny_data: Any, tmp_path: Path
) -> None:
    """Its folder is read by the same call, and refused with options that it cannot have had."""
    quick = {"strategy": "joint", "batch_size": 8, "max_steps": 1, "progress": False}
    train(fresh(tiny_encoder, [1]), tiny_data, output_dir=tmp_path, **quick)
    file = tmp_path / "settings.json"
    settings = json.loads(file.read_text())
    for key in ("order", "max_grad_norm"):
        del settings[key]
    file.write_text(json.dumps(settings))
    train(fresh(tiny_encoder, [1]), tiny_data, output_dir=tmp_path, **quick)
    for change, message in (
        ({"order": "random"}, "order None there, 'random' here"),
        ({"max_grad_norm": 0.0}, "max_grad_norm None there, 0.0 here"),
    ):
        with pytest.raises(ConfigError, match=rf"another run \({message}\)"):
            train(fresh(tiny_encoder, [1]), tiny_data, output_dir=tmp_path, **quick, **change)
