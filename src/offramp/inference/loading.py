"""Load a saved model, with the policy that travels with it."""

from __future__ import annotations

from pathlib import Path

from offramp._core.files import policy_file
from offramp.engine.policy import Policy
from offramp.model.base import SegmentedModel
from offramp.model.loading import read_model


def load_model(source: str | Path, *, device: str = "cpu") -> SegmentedModel:
    """The multi-exit model or cascade in a folder or at a hub id, in evaluation mode, with tokenizer and policy.

    `policy` of the model is the one that `save_pretrained` was given, else the only policy that `offramp tune` wrote
    into the folder, else None.

    Args:
        source: the folder that training or an import wrote, or a hub id.
        device: a device as torch names it, or `auto` for the accelerator where torch has one here.

    Raises:
        ModelError: nothing there, another kind of model, or missing, foreign or corrupt tensors.
        CriterionError: a policy file that is damaged, or of another model.
        ConfigError: no such device here.
    """
    model = read_model(source, device=device)
    # A run's folder, and that of the weights inside it.
    folders = (Path(source), Path(str(model.name_or_path)))
    name = policy_file(model.config.criterion or "*")
    files = {file.resolve() for folder in folders for file in folder.glob(name)}
    if len(files) == 1:
        policy = Policy.load(files.pop())
        policy.check(model.exit_layers, model.kind, model.gates)
        model.policy = policy
    return model
