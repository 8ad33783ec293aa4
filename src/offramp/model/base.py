"""The base of a multi-exit model and a Multi-Model cascade: segments, heads, FLOPs, saving and loading."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, Protocol, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.utils.generic import ModelOutput

from offramp._core.errors import DataError, ModelError, OfframpError
from offramp._core.files import policy_file
from offramp._core.library import quiet
from offramp._core.trace import Kind
from offramp.backbones import spec_of
from offramp.costs import CostModel, count_flops, fit_polynomial
from offramp.model.checkpoint_files import read_tokenizer, refuse_partial
from offramp.model.config import MultiExitConfig
from offramp.model.trained_on import Rows, load_rows, save_rows

INPUTS = ("input_ids", "attention_mask", "token_type_ids")


class SavedPolicy(Protocol):
    """What a model needs of the policy that travels with it; `offramp.Policy` has more."""

    @property
    def criterion(self) -> Any: ...
    def check(self, exit_layers: tuple[int, ...], kind: Kind, gates: bool) -> None: ...
    def save(self, path: str | PathLike[str]) -> None: ...


class SegmentState(Protocol):
    """A batch between two segments."""

    def take(self, rows: Tensor) -> Self: ...
    def detach(self) -> Self: ...


@dataclass
class MultiExitOutput(ModelOutput):
    """Output of a multi-exit model.

    Attributes:
        loss: sum of the exits' losses, where labels were given.
        logits: `(batch, classes)` float32, of the last exit, as of any classifier of the library.
        exit_logits: `(batch, exits, classes)` float32.
        gates: `(batch, exits)` gate probabilities, or None.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    exit_logits: Tensor | None = None
    gates: Tensor | None = None


def exit_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Loss of one exit: cross-entropy over `(batch, classes)`, mean squared error where there is one output."""
    if logits.shape[-1] == 1:
        return F.mse_loss(logits.squeeze(-1), labels.to(logits.dtype))
    return F.cross_entropy(logits, labels)


class SegmentedModel(PreTrainedModel):
    """A classifier cut at its exits: `start`, then `segment` and `head` for each exit in turn."""

    config_class: type[MultiExitConfig] = MultiExitConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    supports_gradient_checkpointing = False

    config: MultiExitConfig
    tokenizer: Any = None  # a PreTrainedTokenizerBase; saved and loaded with the weights
    trained_on: Rows | None = None  # hashes of the training rows, saved too; None where they are unknown
    policy: Any = None  # the `offramp.Policy` that travels with the weights, or None

    @abstractmethod
    def start(self, inputs: Mapping[str, Any]) -> Any:
        """The state before the first segment."""

    @abstractmethod
    def segment(self, k: int, state: Any) -> Any:
        """Run segment `k` (0-based): the state at exit `k`."""

    @abstractmethod
    def head(self, k: int, state: Any) -> tuple[Tensor, Tensor | None]:
        """Exit `k`'s logits `(batch, classes)` and gate logits `(batch,)` or None, float32."""

    @abstractmethod
    def embedding_tables(self) -> list[nn.Embedding]:
        """The token-embedding tables: one, or one for each member of a cascade."""

    @property
    def exit_layers(self) -> tuple[int, ...]:
        """Backbone layers after which the exits sit, counted from 1."""
        return tuple(self.config.exits)

    @property
    def kind(self) -> Kind:
        """`classification` or `regression`."""
        return cast(Kind, self.config.kind)

    @property
    def gates(self) -> bool:
        """Whether the exits carry learned gates."""
        return self.config.gates

    @property
    def reads_padding(self) -> bool:
        """Whether longer texts in the same batch change an answer; see `BackboneSpec`."""
        return spec_of(self.config.backbone).reads_padding

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names in the order of the logits; empty for regression."""
        if self.kind == "regression":
            return ()
        names = cast(dict[int, str], self.config.id2label)
        return tuple(names[i] for i in range(len(names)))

    @property
    def max_length(self) -> int:
        """Longest input in tokens."""
        return self.config.max_tokens

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Sequence[Tensor] | None = None,
        labels: Tensor | None = None,
        **_: Any,
    ) -> MultiExitOutput:
        """Run every exit on a batch.

        Args:
            input_ids: `(batch, length)`; needed even with `inputs_embeds`, since positions come from it.
            attention_mask: `(batch, length)`, 1 for tokens, 0 for padding; all ones by default.
            token_type_ids: `(batch, length)`, ignored by encoders without token types.
            inputs_embeds: one `(batch, length, dim)` tensor for each of `embedding_tables()`.
            labels: `(batch,)` classes or regression targets.
        """
        if input_ids is None:
            raise DataError("forward needs input_ids (batch, length); give them beside inputs_embeds too")
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        inputs = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "token_type_ids": token_type_ids,
            "inputs_embeds": inputs_embeds,
        }
        state = self.start({k: v for k, v in inputs.items() if v is not None})
        logits: list[Tensor] = []
        gates: list[Tensor] = []
        for k in range(len(self.exit_layers)):
            state = self.segment(k, state)
            scores, gate = self.head(k, state)
            logits.append(scores)
            if gate is not None:
                gates.append(gate.sigmoid())
        loss = None if labels is None else torch.stack([exit_loss(z, labels) for z in logits]).sum()
        return MultiExitOutput(
            loss=loss,
            logits=logits[-1],
            exit_logits=torch.stack(logits, dim=1),
            gates=torch.stack(gates, dim=1) if gates else None,
        )

    def flops(self, lengths: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """FLOPs of leaving at each exit `(examples, exits)` and of the full model `(examples,)`, by length."""
        if self.config.costs is None:
            self.config.costs = self._count_flops().to_dict()
        try:
            return CostModel.from_dict(self.config.costs)(lengths)
        except ModelError as error:
            raise ModelError(
                f"the costs in the model's config.json are damaged ({error}): remove them there, and they are "
                "counted again"
            ) from error

    def _count_flops(self) -> CostModel:
        """Count the FLOPs of each segment and head on the real modules."""
        training, tracked = self.training, [p for p in self.parameters() if p.requires_grad]
        self.eval().requires_grad_(False)  # the counter fails on tables that layers are handed (DeBERTa)
        try:
            coefficients = fit_polynomial(self._segment_flops, self.max_length).reshape(
                len(self.exit_layers), 2, 3
            )
        finally:
            self.train(training)
            for parameter in tracked:
                parameter.requires_grad_()
        return self._add_costs(coefficients)

    def _segment_flops(self, length: int) -> NDArray[np.float64]:
        """FLOPs of segment and head for each exit `(exits · 2,)` on one text of `length` tokens."""
        ids = torch.ones(1, length, dtype=torch.long, device=self.device)
        state = self.start({"input_ids": ids, "attention_mask": torch.ones_like(ids)})
        counts: list[int] = []
        for k in range(len(self.exit_layers)):
            state, segment = count_flops(partial(self.segment, k, state))
            _, head = count_flops(partial(self.head, k, state))
            counts += (segment, head)
        return np.array(counts, dtype=np.float64)

    @abstractmethod
    def _add_costs(self, coefficients: NDArray[np.float64]) -> CostModel:
        """Cumulative costs from the coefficients `(exits, 2, 3)` of segments and heads."""

    def save_pretrained(
        self,
        save_directory: str | PathLike[str],
        *args: Any,
        policy: SavedPolicy | None = None,
        **kwargs: Any,
    ) -> None:
        """Save config, weights and tokenizer, and a policy, which `offramp.load_model` returns with the model.

        Args:
            save_directory: the folder.
            *args, **kwargs: those of `transformers.PreTrainedModel.save_pretrained`.
            policy: travels with the model; by default the model's own `policy`.

        Raises:
            CriterionError: the policy was made for another model.
            OfframpError: the folder cannot be written.
        """
        policy = policy or self.policy
        if policy is not None:
            policy.check(self.exit_layers, self.kind, self.gates)
        self.config.criterion = "" if policy is None else policy.criterion.name
        try:
            with quiet():
                super().save_pretrained(save_directory, *args, **kwargs)
        except SafetensorError as error:  # the library's own type for errors of the disk
            raise OfframpError(
                f"cannot write the model to {save_directory} ({error}): free some space, or choose another folder"
            ) from error
        if self.tokenizer is not None:
            self.tokenizer.save_pretrained(save_directory)
        if policy is not None:
            policy.save(Path(save_directory) / policy_file(policy.criterion.name))
        if self.trained_on is not None:
            save_rows(str(save_directory), self.trained_on)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load a folder of `save_pretrained` or a hub id; `ModelError` where tensors are missing or foreign."""
        wants_info = kwargs.pop("output_loading_info", False)
        try:
            with quiet():
                # Tensors of other sizes pass here; below, they are refused by name.
                loaded: Any = super().from_pretrained(
                    pretrained_model_name_or_path,
                    *args,
                    output_loading_info=True,
                    ignore_mismatched_sizes=True,
                    **kwargs,
                )
        except OSError as error:
            raise ModelError(f"no offramp model at {pretrained_model_name_or_path}: {error}") from error
        except Exception as error:  # a corrupt safetensors file has an error type of the library's own
            if isinstance(error, ModelError):
                raise
            raise ModelError(
                f"the checkpoint at {pretrained_model_name_or_path} cannot be read "
                f"({type(error).__name__}: {error}): it is corrupt or no offramp model; copy or train it again"
            ) from error
        model, info = loaded
        refuse_partial(pretrained_model_name_or_path, info)
        folder = Path(pretrained_model_name_or_path)
        if (
            not folder.exists() or (folder / "tokenizer_config.json").exists()
        ):  # a hub id, or a folder with one
            model.tokenizer = read_tokenizer(pretrained_model_name_or_path)
        model.trained_on = load_rows(folder)
        return (model, info) if wants_info else model
