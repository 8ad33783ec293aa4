"""The base of a multi-exit model and a Multi-Model cascade: segments, heads, FLOPs, saving and loading."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, Protocol, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import PreTrainedModel

from offramp._core.errors import DataError, ModelError, OfframpError
from offramp._core.files import policy_file
from offramp._core.library import quiet
from offramp._core.trace import Kind
from offramp.backbones import load_backbone, spec_of, truncated_config
from offramp.backbones.weight_files import check_files, refuse_undefined
from offramp.costs import CostModel, count_flops, fit_polynomial
from offramp.model.checkpoint_files import read_tokenizer, readable_checkpoint, refuse_partial
from offramp.model.config import MultiExitConfig, check_exits, check_length, class_names, default_exits
from offramp.model.heads import MultiExitOutput, exit_loss
from offramp.model.trained_on import FILE as ROWS_FILE
from offramp.model.trained_on import Rows, load_rows

INPUTS = ("input_ids", "attention_mask", "token_type_ids")


class SavedPolicy(Protocol):
    """The interface of the policy saved with a model; `offramp.Policy` has more."""

    @property
    def criterion(self) -> Any: ...
    def check(self, exit_layers: tuple[int, ...], kind: Kind, gates: bool) -> None: ...
    def save(self, path: str | PathLike[str]) -> None: ...


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
    policy: Any = None  # the `offramp.Policy` saved with the weights, or None

    @classmethod
    def from_backbone(
        cls,
        backbone: str,
        exits: Sequence[int] | None = None,
        *,
        labels: Sequence[str] | int = 2,
        kind: str = "classification",
        pooling: str | None = None,
        gates: bool = False,
        max_length: int | None = None,
        seed: int = 0,
    ) -> Self:
        """An untrained model on a pretrained encoder, which is cut to the last exit layer.

        Args:
            backbone: a packaged name (`minilm-l6`, `mpnet-base`), a folder, or a hub id.
            exits: exit layers, counted from 1, increasing; by default four, see `default_exits`.
            labels: class names in the order of the class indices, or their number; ignored for regression.
            kind: `classification` or `regression`.
            pooling: `mean`, `first` or `pooler`; by default the backbone's.
            gates: whether each exit has a learned gate.
            max_length: longest input in tokens, special tokens included; by default 256 or the encoder's limit.
            seed: for the weights of the heads.

        Raises:
            ModelError: an unknown encoder, exit layers or a length that do not fit it, fewer than two classes, or gates
                for regression.
        """
        encoder, tokenizer = load_backbone(backbone)
        depth = encoder.config.num_hidden_layers
        layers = check_exits(default_exits(depth) if exits is None else exits, depth)
        names = class_names(labels, kind, gates)
        config = cls.config_class(
            backbone_config=truncated_config(encoder.config, layers[-1]),
            exits=layers,
            pooling=pooling or spec_of(encoder.config).default_pooling,
            gates=gates,
            kind=kind,
            max_tokens=check_length(max_length, encoder, tokenizer),
            id2label=dict(enumerate(names)),
            label2id={name: i for i, name in enumerate(names)},
        )
        model = cls.from_encoder(config, encoder, seed=seed)
        model.tokenizer = tokenizer
        return model

    @classmethod
    @abstractmethod
    def from_encoder(cls, config: Any, encoder: PreTrainedModel, *, seed: int) -> Self:
        """A model on the first layers of an encoder, with poolers started from its pooler and heads drawn by `seed`."""

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
        """Backbone layers of the exits, counted from 1."""
        return tuple(self.config.exits)

    @property
    def kind(self) -> Kind:
        """`classification` or `regression`."""
        return cast(Kind, self.config.kind)

    @property
    def gates(self) -> bool:
        """Whether the exits have learned gates."""
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
            input_ids: `(batch, length)`; needed even with `inputs_embeds`, for the positions.
            attention_mask: `(batch, length)`, 1 for tokens, 0 for padding; all ones by default.
            token_type_ids: `(batch, length)`, ignored by encoders without token types.
            inputs_embeds: one `(batch, length, dim)` tensor for each of `embedding_tables()`.
            labels: `(batch,)` classes or regression targets.
        """
        if input_ids is None:
            raise DataError("forward needs input_ids (batch, length); give them even with inputs_embeds")
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        inputs: dict[str, Any] = {"input_ids": input_ids, "attention_mask": attention_mask}
        optional = {"token_type_ids": token_type_ids, "inputs_embeds": inputs_embeds}
        state = self.start(inputs | {name: value for name, value in optional.items() if value is not None})
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
        """FLOPs until each exit `(examples, exits)` and of the full model `(examples,)`, by length."""
        if self.config.costs is None:
            self.config.costs = self._count_flops().to_dict()
        try:
            return CostModel.from_dict(self.config.costs)(lengths)
        except ModelError as error:
            raise ModelError(
                f"the costs in the model's config.json are damaged ({error}): remove them there to count "
                "them again"
            ) from error

    def _count_flops(self) -> CostModel:
        """Count the FLOPs of each segment and head on the real modules."""
        training, tracked = self.training, [p for p in self.parameters() if p.requires_grad]
        self.eval().requires_grad_(False)  # the counter fails on tables that layers receive (DeBERTa)
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
            policy: saved with the model; by default the model's own `policy`.

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
            np.save(Path(save_directory) / ROWS_FILE, self.trained_on)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load a folder of `save_pretrained` or a hub id; `ModelError` if tensors are missing or foreign."""
        wants_info = kwargs.pop("output_loading_info", False)
        folder = Path(pretrained_model_name_or_path)
        check_files(folder)
        with quiet(), readable_checkpoint(pretrained_model_name_or_path):
            # Tensors of other sizes pass here, and are refused by name below.
            loaded: Any = super().from_pretrained(
                pretrained_model_name_or_path,
                *args,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                **kwargs,
            )
        model, info = loaded
        refuse_partial(pretrained_model_name_or_path, info)
        refuse_undefined(model.named_parameters(), pretrained_model_name_or_path)
        if not folder.exists() or (folder / "tokenizer_config.json").exists():
            model.tokenizer = read_tokenizer(pretrained_model_name_or_path)
        model.trained_on = load_rows(folder)
        return (model, info) if wants_info else model
