"""The models of a playground, with the rules under which they may leave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from offramp._core.errors import ConfigError, CriterionError
from offramp._core.files import policy_file
from offramp._core.trace import Trace
from offramp.criteria import CRITERIA, make_criterion, with_threshold
from offramp.engine.manifest import FILE_NAME
from offramp.engine.onnx import OnnxSegments, thread_count
from offramp.engine.policy import Policy
from offramp.engine.segments import Encoder, Segments, trace_segments
from offramp.serving.server import model_folders

if TYPE_CHECKING:
    from offramp.model.base import SegmentedModel

WARM_UP = "a first text, so that nobody waits for what is made once"


@dataclass(frozen=True, kw_only=True)
class PlayModel:
    """A model that is open, cut at its exits.

    Attributes:
        name: on the page, and in links.
        folder: that it was read from.
        segments: the model itself.
        encoder: turns texts into token ids.
        labels: class names; empty for regression.
        pair: whether it reads pairs of texts; None if unknown.
        rules: policies by name: those that were tuned for the model first, then every exit rule that fits it.
        tuned: the number of tuned policies among the rules.
        refused: why each given policy that the model cannot leave by does not fit, by its name.
        model: the torch model, which gradients come from; None for an exported folder.
    """

    name: str
    folder: Path
    segments: Segments[Any]
    encoder: Encoder
    labels: tuple[str, ...]
    pair: bool | None
    rules: Mapping[str, Policy]
    tuned: int
    refused: Mapping[str, str]
    model: SegmentedModel | None

    def segments_of(self, text: str, text_pair: str) -> tuple[str, ...]:
        """The texts that the model reads of two: a model that may read one or both reads the second unless blank."""
        paired = self.pair or (self.pair is None and text_pair.strip())
        return (text, text_pair) if paired else (text,)

    def trace(self, text: str, text_pair: str = "") -> tuple[Trace, bool]:
        """The output of every exit for a text, and whether the text fills the model's input; see `segments_of`."""
        first, *second = self.segments_of(text, text_pair)
        encodings = self.encoder([first], second or None)
        full = len(encodings[0]["input_ids"]) >= self.encoder.max_length
        return trace_segments(self.segments, encodings, self.encoder.pad_values), full


def open_models(
    models: Sequence[str], policies: Sequence[Path] = (), threads: int | None = None
) -> dict[str, PlayModel]:
    """The models of a playground by name.

    Args:
        models: a folder each, or `name=folder`: trained models, or exported ones, which need no torch.
        policies: files of more policies, each for the models that it was made for.
        threads: CPU threads; by default as many as the process may use.

    Raises:
        ConfigError: no models, or two of one name.
        ModelError: a folder that holds no model.
        CriterionError: a policy that fits none of the models.
    """
    if not models:
        raise ConfigError("expected a model, got none: give the folder of one, or of two to compare")
    extra = {str(path): Policy.load(path) for path in policies}
    opened = {name: open_model(name, path, extra, threads) for name, path in model_folders(models).items()}
    for name in extra:
        reasons = [
            f"{model.name}: {model.refused[name]}" for model in opened.values() if name in model.refused
        ]
        if len(reasons) == len(opened):
            raise CriterionError(
                f"the policy {name} fits no model here ({'; '.join(reasons)}): give one that 'offramp tune' wrote for "
                f"{' or '.join(opened)}"
            )
    return opened


def open_model(name: str, folder: Path, extra: Mapping[str, Policy], threads: int | None = None) -> PlayModel:
    """The model in a folder, with its own policies and those of `extra` that fit it; see `open_models`."""
    policies: dict[str, Policy] = {}
    if (folder / FILE_NAME).is_file():
        exported = OnnxSegments(folder, threads=threads)
        if exported.manifest.policy:
            policies[Path(exported.manifest.policy).stem] = exported.policy()
        segments: Segments[Any] = exported
        encoder: Encoder = exported.encoder()
        labels, pair, residuals, model = exported.labels, exported.manifest.pair, exported.residuals, None
    else:
        import torch

        from offramp.inference.segments import TorchSegments
        from offramp.model.encoding import TextEncoder
        from offramp.model.loading import read_model

        if threads is not None:
            torch.set_num_threads(thread_count(threads))
        model = read_model(folder)
        segments = in_torch = TorchSegments(model, residuals=True)
        encoder, labels, pair = TextEncoder.of(model), model.labels, model.pair
        residuals = in_torch.spaces is not None
        policies = saved_policies(folder, Path(str(model.name_or_path)))
    outputs = len(labels) or 1
    ordered = {**extra, **policies, **extra}  # the given ones first
    rules, tuned = rules_of(ordered, segments, outputs, residuals)
    refused = {name: misfit(policy, segments, outputs, residuals) for name, policy in extra.items()}
    opened = PlayModel(
        name=name,
        folder=folder,
        segments=segments,
        encoder=encoder,
        labels=tuple(labels),
        pair=pair,
        rules=rules,
        tuned=tuned,
        refused={name: reason for name, reason in refused.items() if reason},
        model=model,
    )
    opened.trace(WARM_UP, WARM_UP)
    return opened


def saved_policies(*folders: Path) -> dict[str, Policy]:
    """The policies in a run's folder and in that of its weights, by name."""
    files = [path for folder in dict.fromkeys(folders) for path in sorted(folder.glob(policy_file("*")))]
    return {path.stem: Policy.load(path) for path in files}


def rules_of(
    policies: Mapping[str, Policy], segments: Segments[Any], outputs: int, residuals: bool
) -> tuple[dict[str, Policy], int]:
    """The policies that a model can leave by, then every other exit rule that fits it; and how many are policies."""
    own = fitting(policies, segments, outputs, residuals)
    temperatures = next((policy.temperatures for policy in own.values()), None)
    usual = fitting(untuned(segments, temperatures), segments, outputs, residuals)
    return {**own, **usual, **own}, len(own)


def untuned(segments: Segments[Any], temperatures: Sequence[float] | None) -> dict[str, Policy]:
    """Every exit rule at its default threshold, whether it fits the model or not."""
    return {
        name: Policy(
            make_criterion(name).with_temperatures(temperatures),
            segments.exit_layers,
            None if temperatures is None else tuple(temperatures),
        )
        for name, rule in CRITERIA.items()
        if rule.tunable
    }


def fitting(
    policies: Mapping[str, Policy], segments: Segments[Any], outputs: int, residuals: bool
) -> dict[str, Policy]:
    """The policies that a model can leave by."""
    return {name: p for name, p in policies.items() if not misfit(p, segments, outputs, residuals)}


def misfit(policy: Policy, segments: Segments[Any], outputs: int, residuals: bool) -> str:
    """Why a model cannot leave by a policy; "" if it can."""
    try:
        policy.check(segments.exit_layers, segments.kind, segments.gates, outputs)
    except CriterionError as error:
        return str(error)
    if policy.criterion.needs_residual and not residuals:
        return f"{policy.criterion.name} needs residuals, which this export does not give: open the trained model"
    return ""


def adjusted(policy: Policy, threshold: float | None, *, calibrated: bool = True) -> Policy:
    """The policy with one threshold for all exits, unless it is None, and with or without its temperatures.

    Raises:
        CriterionError: a threshold out of the rule's range.
    """
    if not calibrated:
        policy = replace(policy, temperatures=None, criterion=policy.criterion.with_temperatures(None))
    return (
        policy
        if threshold is None
        else replace(policy, criterion=with_threshold(policy.criterion, threshold))
    )
