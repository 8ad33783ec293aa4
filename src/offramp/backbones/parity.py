"""Check the description of an encoder: the driver against the library's own forward."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from transformers import PreTrainedModel

from offramp.backbones.backbone import Backbone


def check_parity(model: PreTrainedModel, *, batch: int = 4, length: int = 12, seed: int = 0) -> float:
    """The largest difference between the hidden states here and in the library's own forward.

    Args:
        model: a bare encoder whose architecture `SPECS` describes.
        batch: rows of random token ids.
        length: tokens a row; some rows are padded on the right, some on the left, some not at all.
        seed: for the ids.

    Returns:
        The largest absolute difference over embeddings, all layers and the final norm: below 1e-5 in float32 for a
        right description, NaN where either side has one.

    Raises:
        ModelError: an architecture that `SPECS` does not describe.
    """
    backbone = Backbone(model)
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            differences = [
                difference
                for padding in ("right", "left", "none")
                for difference in _differences(backbone, random_inputs(model, padding, batch, length, seed))
            ]
    finally:
        model.train(training)
    return float(torch.stack(differences).max())


def random_inputs(
    model: PreTrainedModel, padding: str, batch: int = 4, length: int = 12, seed: int = 0
) -> dict[str, Tensor]:
    """Random ids and their mask, (batch, length); each row has more padding than the row before.

    Args:
        model: has the number of ids and the id of padding.
        padding: "right", "left" or "none".
        batch: rows.
        length: tokens a row.
        seed: for the ids.

    Returns:
        `input_ids` and `attention_mask`.
    """
    generator = torch.Generator().manual_seed(seed)
    pad = model.config.pad_token_id or 0
    ids = torch.randint(model.config.vocab_size, (batch, length), generator=generator)
    ids[ids == pad] = (pad + 1) % model.config.vocab_size
    kept = length - torch.arange(batch)[:, None] % length if padding != "none" else torch.tensor([[length]])
    positions = torch.arange(length)
    mask = (positions.flip(0) if padding == "left" else positions) < kept
    ids = torch.where(mask, ids, pad)
    return {"input_ids": ids.to(model.device), "attention_mask": mask.long().expand_as(ids).to(model.device)}


def _differences(backbone: Backbone, inputs: dict[str, Tensor]) -> Iterator[Tensor]:
    """The largest difference after the embeddings, after each layer, and after the final norm."""
    output = backbone.model(**inputs, output_hidden_states=True)
    expected = output.hidden_states
    # ALBERT may run several inner layers for one layer of its config, and reports each.
    stride = (len(expected) - 1) // backbone.depth
    state = backbone.embed(inputs)
    yield (state.hidden - expected[0]).abs().max()
    for i in range(1, backbone.depth + 1):
        state = backbone.layer(i, state)
        if i < backbone.depth:  # the library's last hidden state comes after the final norm
            yield (state.hidden - expected[i * stride]).abs().max()
    norm = backbone.final_norm or torch.nn.Identity()
    yield (norm(state.hidden) - output.last_hidden_state).abs().max()
