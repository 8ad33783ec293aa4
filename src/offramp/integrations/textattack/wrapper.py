"""A victim as TextAttack's model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from offramp._core.errors import ConfigError
from offramp.attacks.text.attacked_text import AttackedText
from offramp.attacks.victims.answers import Answer
from offramp.attacks.victims.base import Victim
from offramp.attacks.victims.black_box import as_victim
from offramp.attacks.victims.query_budget import QueryBudget
from offramp.engine.policy import Policy
from offramp.inference.engine import Engine
from offramp.integrations.textattack.library import load_textattack
from offramp.model.base import SegmentedModel

load_textattack()
from textattack.models.wrappers import ModelWrapper  # noqa: E402

Input = str | Sequence[str]  # a text, or a pair


class VictimWrapper(ModelWrapper):
    """A model under a policy, a deployed engine or any other victim, behind TextAttack's interface.

    A call returns class probabilities `(texts, classes)` of the exit that each text leaves at, so that TextAttack's own
    goals attack the deployed answer; for regression the values `(texts, 1)`. `EfficiencyGoal` uses `answers`.

    Args:
        target: as for `offramp.attack`.
        policy: as for `offramp.attack`.
        batch_size: texts run at once.

    Attributes:
        victim: what is attacked.
    """

    def __init__(
        self,
        target: SegmentedModel | Engine | Victim | str | Path,
        policy: Policy | None = None,
        *,
        batch_size: int = 64,
    ) -> None:
        self.victim: Victim = as_victim(target, policy, batch_size)
        self.model = self.victim.model or self.victim  # TextAttack logs its class

    def answers(self, inputs: Sequence[Input]) -> list[Answer]:
        """The victim's answers to texts, or pairs of texts; TextAttack counts the queries."""
        texts = [AttackedText.of(*([text] if isinstance(text, str) else text)) for text in inputs]
        return self.victim.query_many([(QueryBudget(), texts)])[0]

    def __call__(self, text_input_list: Sequence[Input], **_: Any) -> Tensor:
        """Probabilities of the exits taken.

        Raises:
            ConfigError: the victim shows none.
        """
        if self.victim.kind == "regression":
            return torch.tensor([[float(answer.prediction)] for answer in self.answers(text_input_list)])
        if not self.victim.probabilities:
            raise ConfigError(
                "this TextAttack goal needs class probabilities, and a black box shows none: use EfficiencyGoal, or "
                "wrap the model with its policy"
            )
        logits = [torch.from_numpy(a.logits[a.exit]) for a in self.answers(text_input_list)]
        return torch.stack(logits).softmax(-1)
