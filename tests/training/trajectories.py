"""Losses of twenty steps under every strategy, on a tiny model whose weights and batches are made by numpy.

`python -m tests.training.trajectories` writes them anew to `trajectories.json`: run it after a change that is
meant to change training, and say why in the commit.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from transformers import BertConfig

from offramp.model import MultiExitConfig, MultiExitForSequenceClassification
from offramp.training.strategies import STRATEGIES, Moment, make_strategy

FILE = Path(__file__).with_suffix(".json")
STEPS, SEED = 20, 5
EXITS = [1, 2, 3]


def tiny_model() -> MultiExitForSequenceClassification:
    """Three layers of width 16 with learned gates, weights drawn by numpy: the same on every machine."""
    backbone = BertConfig(
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
    )
    model = MultiExitForSequenceClassification(
        MultiExitConfig(backbone_config=backbone, exits=EXITS, gates=True, id2label={0: "no", 1: "yes"})
    )
    random = np.random.default_rng(SEED)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            drawn = random.normal(0, 0.3, size=tuple(parameter.shape))
            flat = "LayerNorm" in name or name.endswith("bias")
            parameter.copy_(
                torch.full_like(parameter, float("weight" in name)) if flat else torch.tensor(drawn)
            )
    return model.eval()  # dropout draws differ between builds of torch


def losses(name: str) -> list[float]:
    """The strategy's loss at each of twenty steps of AdamW; strategies with phases change half-way."""
    model, strategy = tiny_model(), make_strategy(name)
    random = np.random.default_rng(SEED)
    phases, found = len(strategy.phases), []
    for step in range(STEPS):
        if step % (STEPS // phases) == 0:
            optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.01)
        ids = torch.tensor(random.integers(1, 40, size=(8, 6)))
        labels = (ids[:, 0] > 20).long()
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        length = STEPS // phases
        moment = Moment(step % length, step // length, SEED, length)
        optimizer.zero_grad(set_to_none=True)
        found.append(float(strategy.step(model, inputs, labels, torch.Tensor.backward, moment)))
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)  # as the trainer does
        optimizer.step()
    return found


def main() -> None:
    """Write the losses of every strategy."""
    found = {name: [round(loss, 5) for loss in losses(name)] for name in STRATEGIES}
    rows = ",\n".join(f'  "{name}": {json.dumps(values)}' for name, values in found.items())
    FILE.write_text("{\n" + rows + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
