"""The base of a multi-exit model and a Multi-Model cascade: how it is made, saved and loaded."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, Self, get_args

import numpy as np
from safetensors import SafetensorError
from transformers import PreTrainedModel

from offramp._core.arguments import choice, flag, seed_number
from offramp._core.errors import ConfigError
from offramp._core.files import policy_file, write_failure
from offramp._core.library import quiet
from offramp._core.paths import UserPath, user_path
from offramp._core.trace import Kind
from offramp.backbones import load_backbone, spec_of, truncated_config
from offramp.backbones.weight_files import check_files, refuse_undefined
from offramp.model.card import update_card
from offramp.model.checkpoint_files import (
    read_tokenizer,
    readable_checkpoint,
    refuse_other_class,
    refuse_partial,
)
from offramp.model.config import (
    POOLINGS,
    check_exits,
    check_length,
    class_names,
    default_exits,
)
from offramp.model.exits import ExitClassifier
from offramp.model.hub import push_folder
from offramp.model.tokenizer_check import refuse_other_tokenizer, tokenizer_check
from offramp.model.trained_on import FILE as ROWS_FILE
from offramp.model.trained_on import Rows, load_rows

INPUTS = ("input_ids", "attention_mask", "token_type_ids")


class SavedPolicy(Protocol):
    """The interface of the policy saved with a model; `offramp.Policy` has more."""

    @property
    def criterion(self) -> Any: ...
    def check(self, exit_layers: tuple[int, ...], kind: Kind, gates: bool, outputs: int | None) -> None: ...
    def save(self, path: UserPath) -> None: ...


class SegmentedModel(ExitClassifier):
    """A classifier cut at its exits, made from a pretrained encoder and saved with its tokenizer and policy."""

    tokenizer: Any = None  # a PreTrainedTokenizerBase; saved and loaded with the weights
    trained_on: Rows | None = None  # hashes of the training rows, saved too; None where they are unknown
    policy: Any = None  # the `offramp.Policy` saved with the weights, or None

    @classmethod
    def from_backbone(
        cls,
        backbone: UserPath,
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
            ConfigError: arguments of another type, class names that are blank or repeated, an unknown kind or pooling.
        """
        kind, gates, seed = choice("kind", kind, get_args(Kind)), flag("gates", gates), seed_number(seed)
        if pooling is not None:
            choice("pooling", pooling, POOLINGS)
        names = class_names(labels, kind, gates)
        encoder, tokenizer = load_backbone(backbone)
        depth = encoder.config.num_hidden_layers
        layers = check_exits(default_exits(depth) if exits is None else exits, depth)
        config = cls.config_class(
            backbone_config=truncated_config(encoder.config, layers[-1]),
            exits=layers,
            pooling=pooling or spec_of(encoder.config).default_pooling,
            gates=gates,
            kind=kind,
            max_tokens=check_length(max_length, encoder, tokenizer),
            tokenizer_check=tokenizer_check(tokenizer),
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

    def save_pretrained(
        self,
        save_directory: UserPath,
        *args: Any,
        policy: SavedPolicy | None = None,
        **kwargs: Any,
    ) -> None:
        """Save config, weights, tokenizer and model card, and a policy, which `offramp.load_model` returns with them.

        Args:
            save_directory: the folder.
            *args, **kwargs: those of `transformers.PreTrainedModel.save_pretrained`.
            policy: saved with the model; by default the model's own `policy`.

        Raises:
            ConfigError: `push_to_hub=True`, which is a method of its own.
            CriterionError: the policy was made for another model.
            OfframpError: the folder cannot be written.
        """
        if kwargs.pop("push_to_hub", False):
            raise ConfigError(
                "save_pretrained writes a folder alone: call push_to_hub(repo_id) to upload the model"
            )
        folder, policy = user_path(save_directory, "save_directory"), policy or self.policy
        if policy is not None:
            policy.check(self.exit_layers, self.kind, self.gates, self.num_labels)
        self.config.criterion = "" if policy is None else policy.criterion.name
        try:
            with quiet():
                super().save_pretrained(folder, *args, **kwargs)
            if self.tokenizer is not None:
                self.tokenizer.model_max_length = (
                    self.max_length
                )  # so that everybody cuts texts as the engine does
                self.tokenizer.save_pretrained(folder)
            if self.trained_on is not None:
                np.save(folder / ROWS_FILE, self.trained_on)
        except Exception as error:
            # safetensors and tokenizers have their own types for errors of the disk.
            if isinstance(error, OSError | SafetensorError) or type(error) is Exception:
                raise write_failure(folder, error) from error
            raise
        if policy is not None:
            policy.save(folder / policy_file(policy.criterion.name))
        update_card(folder, str(self.name_or_path))

    def push_to_hub(  # type: ignore[override]  # the library lists what `upload` takes
        self,
        repo_id: str,
        *,
        policy: SavedPolicy | None = None,
        max_shard_size: int | str | None = "50GB",
        tags: Sequence[str] | None = None,
        **upload: Any,
    ) -> str:
        """Save the model, with its card and policy, into a repository of the model hub.

        The card is that of `save_pretrained`. A card that the repository holds keeps its text around the generated
        block, and one that somebody wrote without such a block stays as it is.

        Args:
            repo_id: of the repository, which is made if there is none.
            policy, max_shard_size: as in `save_pretrained`.
            tags: added to those of the card.
            **upload: `private`, `token`, `revision`, `create_pr`, `commit_message` and `commit_description`, as in
                `transformers.PreTrainedModel.push_to_hub`.

        Returns:
            The address of the commit.
        """

        def save(folder: Path) -> None:
            self.save_pretrained(folder, policy=policy, max_shard_size=max_shard_size)

        return push_folder(save, repo_id, tags=tags or (), **upload)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load a folder of `save_pretrained` or a hub id; `ModelError` if tensors are missing or foreign."""
        folder = user_path(pretrained_model_name_or_path, "the model")
        is_hub_id = not folder.exists()
        source = str(pretrained_model_name_or_path if is_hub_id else folder)
        wants_info = kwargs.pop("output_loading_info", False)
        check_files(folder)
        with quiet(), readable_checkpoint(source):
            refuse_other_class(source, cls.config_class.model_type)
            # Tensors of other sizes pass here, and are refused by name below.
            loaded: Any = super().from_pretrained(
                source,
                *args,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                **kwargs,
            )
        model, info = loaded
        refuse_partial(source, info)
        refuse_undefined(model.named_parameters(), source)
        if is_hub_id or (folder / "tokenizer_config.json").exists():
            model.tokenizer = read_tokenizer(source)
            refuse_other_tokenizer(model.tokenizer, model.config)
        model.trained_on = load_rows(folder)
        return (model, info) if wants_info else model
