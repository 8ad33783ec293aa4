"""Exit 0 as a part of a model: the linear stage's arrays as buffers, and the state before the first layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from offramp.layer_zero import PAIR_FEATURES, LinearStage, fit_linear_stage


@dataclass(frozen=True)
class Unread:
    """A batch that no layer has read yet."""

    inputs: dict[str, Any]

    def take(self, rows: Tensor) -> Self:
        return replace(self, inputs=take_inputs(self.inputs, rows))

    def join(self, others: Sequence[Self]) -> Self:
        """These texts followed by others of the same padded length."""
        return replace(self, inputs=join_inputs([state.inputs for state in (self, *others)]))

    def detach(self) -> Self:
        return self


def take_inputs(inputs: Mapping[str, Any], rows: Tensor) -> dict[str, Any]:
    """Some rows of a batch; `inputs_embeds` is a list of tensors."""
    return {
        name: [table[rows] for table in value] if isinstance(value, list) else value[rows]
        for name, value in inputs.items()
    }


def join_inputs(batches: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The rows of several batches of one padded length."""
    return {
        name: [torch.cat(tables) for tables in zip(*(batch[name] for batch in batches), strict=True)]
        if isinstance(value, list)
        else torch.cat([batch[name] for batch in batches])
        for name, value in batches[0].items()
    }


class LinearExit(nn.Module):
    """The linear stage before the first layer. It is fitted, not trained: it has buffers and no parameters.

    Args:
        vocabulary: number of token ids.
        classes: number of logits.
        features: number of n-grams; 0 before fitting.
        special: number of special tokens.
        separator: 1 if the two texts of a pair are compared.
    """

    tokens: Tensor
    ngrams: Tensor
    weights: Tensor
    idf: Tensor
    bias: Tensor
    special: Tensor

    def __init__(
        self, vocabulary: int, classes: int, features: int = 0, special: int = 0, separator: int = 0
    ) -> None:
        super().__init__()
        self.register_buffer("tokens", torch.zeros(vocabulary, classes))
        self.register_buffer("ngrams", torch.zeros(features, dtype=torch.int64))
        self.register_buffer("weights", torch.zeros(features, classes))
        self.register_buffer("idf", torch.zeros(features))
        self.register_buffer("bias", torch.zeros(classes))
        self.register_buffer("special", torch.zeros(special, dtype=torch.int64))
        if separator:
            self.register_buffer("pairs", torch.zeros(PAIR_FEATURES, classes))
            self.register_buffer("separator", torch.zeros(separator, dtype=torch.int64))

    @property
    def stage(self) -> LinearStage:
        """The fitted stage; it shares the buffers' memory on the CPU."""
        return LinearStage(**{name: _numpy(buffer) for name, buffer in self.named_buffers()})

    @stage.setter
    def stage(self, stage: LinearStage) -> None:
        like, arrays = self.tokens, stage.arrays()
        for name in self._buffers.keys() - arrays.keys():
            delattr(self, name)
        for name, array in arrays.items():
            buffer = torch.from_numpy(np.ascontiguousarray(array)).to(like.device)
            self.register_buffer(name, buffer.to(like.dtype) if buffer.is_floating_point() else buffer)

    def forward(
        self, inputs: Mapping[str, Any], embeds: Tensor | None = None, *, gate: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Logits `(batch, classes)` and, if asked for, gate logits `(batch,)`: the log-odds of the answer.

        Args:
            inputs: `input_ids` and `attention_mask`, `(batch, length)`.
            embeds: rows of `table()` for these ids, on which the logits then depend.
            gate: whether to give the gate.
        """
        ids, mask = (_numpy(inputs[name]) for name in ("input_ids", "attention_mask"))
        stage, device = self.stage, inputs["input_ids"].device
        logits = torch.from_numpy(stage.logits(ids, mask)).to(device)
        if embeds is not None:
            change = self._first_order(embeds, stage, ids, mask)
            logits = logits + change - change.detach()
        if not gate:
            return logits, None
        return logits, torch.logit(logits.softmax(dim=-1).amax(dim=-1), eps=1e-6)

    def _first_order(
        self, embeds: Tensor, stage: LinearStage, ids: NDArray[np.int64], mask: NDArray[np.int64]
    ) -> Tensor:
        """What tokens contribute to the logits `(batch, classes)`, for fixed bigrams, norm and pair features."""
        valid = stage.valid(ids, mask)
        norms = stage.ngram_logits(ids, valid)[1]
        tokens, classes = np.maximum(valid.sum(axis=1), 1), len(stage.bias)
        shares = np.stack(
            [1 / tokens, np.divide(1, norms, out=np.zeros_like(norms), where=norms > 0)], axis=1
        )
        weights = torch.as_tensor(
            valid[..., None] * shares[:, None], dtype=embeds.dtype, device=embeds.device
        )
        static, ngrams = embeds[..., :classes], embeds[..., classes:]
        return (static * weights[..., :1] + ngrams * weights[..., 1:]).sum(dim=1)

    def table(self) -> nn.Embedding:
        """The contribution of each token, `(vocabulary, 2 · classes)`: through the mean, and as an n-gram.

        An attack that follows the gradients of token embeddings reads it beside the encoder's table.
        """
        vocabulary, classes = self.tokens.shape
        rows = torch.zeros(vocabulary, 2 * classes, device=self.tokens.device)
        rows[:, :classes] = self.tokens
        single = self.ngrams < vocabulary
        rows[self.ngrams[single], classes:] = (self.idf[:, None] * self.weights)[single].float()
        return nn.Embedding.from_pretrained(rows)


class LayerZero:
    """What layer 0 adds to a segmented model. `linear` is None for a model without it."""

    config: Any
    tokenizer: Any
    linear: LinearExit | None

    def embedding_tables(self) -> list[nn.Embedding]:
        raise NotImplementedError

    def make_linear(self) -> LinearExit | None:
        """Layer 0 of the sizes in the config, if the model has one."""
        if self.config.exits[0] != 0:
            return None
        classes = 1 if self.config.kind == "regression" else len(self.config.id2label)
        return LinearExit(int(self.config.backbone.vocab_size), classes, *self.config.linear_sizes)

    def fit_linear(self, encodings: Sequence[dict[str, list[int]]], labels: Sequence[int | float]) -> None:
        """Fit layer 0, if there is one, with the token embeddings as they are now; see `fit_linear_stage`."""
        if self.linear is None:
            return
        vocabulary, classes = self.linear.tokens.shape
        stage = fit_linear_stage(
            encodings,
            np.asarray(labels),
            classes=classes,
            kind=self.config.kind,
            embeddings=_numpy(self.embedding_tables()[0].weight)[:vocabulary],
            special=self.tokenizer.all_special_ids,
            separator=self.tokenizer.sep_token_id,
        )
        self.set_stage(stage)

    def set_stage(self, stage: LinearStage) -> None:
        """Take over a fitted stage."""
        assert self.linear is not None, "a model with layer 0"
        self.linear.stage = stage
        self.config.linear_sizes = [len(stage.ngrams), len(stage.special), len(stage.separator)]
        self.config.costs = None  # they depend on what the stage reads

    def adopt(self, other: Any) -> None:
        """Take over the weights and layer 0 of another model of the same config."""
        if other.linear is not None:
            self.set_stage(other.linear.stage)
        cast(nn.Module, self).load_state_dict(other.state_dict())

    def linear_head(self, inputs: Mapping[str, Any], tables: int) -> tuple[Tensor, Tensor | None]:
        """Logits and gate of layer 0; `inputs_embeds` has a tensor for it after those of the encoder's tables."""
        assert self.linear is not None, "a model with layer 0"
        embeds = inputs.get("inputs_embeds", [])
        answer: tuple[Tensor, Tensor | None] = self.linear(
            inputs, embeds[tables] if len(embeds) > tables else None, gate=self.config.gates
        )
        return answer

    def linear_tables(self) -> list[nn.Embedding]:
        """The table of layer 0, if there is one."""
        return [] if self.linear is None else [self.linear.table()]

    @contextmanager
    def without_layer_zero(self) -> Iterator[None]:
        """Set layer 0 aside: strategies train the encoder's exits, and layer 0 has no parameters."""
        exits, linear = self.config.exits, self.linear
        if linear is not None:
            self.config.exits, self.linear = exits[1:], None
        try:
            yield
        finally:
            self.config.exits, self.linear = exits, linear


def _numpy(tensor: Tensor) -> NDArray[Any]:
    plain = tensor.detach().cpu()
    array: NDArray[Any] = (plain.float() if plain.is_floating_point() else plain).numpy()
    return array
