"""Load a saved model with its policy."""

from __future__ import annotations

from pathlib import Path

from offramp._core.files import policy_file
from offramp._core.paths import UserPath, user_path
from offramp.engine.policy import Policy
from offramp.model.base import SegmentedModel
from offramp.model.loading import read_model


def load_model(source: UserPath, *, device: str = "cpu") -> SegmentedModel:
    """The multi-exit model or cascade in a folder or at a hub id, in evaluation mode, with tokenizer and policy.

    The model's `policy` is that of `save_pretrained`, else the only policy that `offramp tune` wrote into the folder,
    else None.

    Args:
        source: the folder that training or an import wrote, or a hub id.
        device: a device name of torch, or `auto` for the accelerator if torch has one here.

    Raises:
        ModelError: no model, another kind of model, or missing, foreign or corrupt tensors.
        CriterionError: a policy file that is damaged, or of another model.
        ConfigError: no such device here.
    """
    model = read_model(source, device=device)
    # A run's folder, and that of the weights inside it.
    folders = (user_path(source), Path(str(model.name_or_path)))
    name = policy_file(model.config.criterion or "*")
    files = {file.resolve() for folder in folders for file in folder.glob(name)}
    if len(files) == 1:
        policy = Policy.load(files.pop())
        policy.check(model.exit_layers, model.kind, model.gates, model.num_labels)
        model.policy = policy
    return model
