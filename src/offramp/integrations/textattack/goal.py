"""A goal for TextAttack: make a model leave late."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np

from offramp._core.errors import ConfigError, unknown_name
from offramp.attacks.objectives.base import ExitDepth, Objective
from offramp.attacks.objectives.same import Same
from offramp.attacks.victims.answers import Answer
from offramp.integrations.textattack.library import load_textattack, quiet
from offramp.integrations.textattack.wrapper import VictimWrapper

load_textattack()
from textattack.goal_function_results import GoalFunctionResult  # noqa: E402
from textattack.goal_functions import GoalFunction  # noqa: E402
from textattack.shared.utils import color_text  # noqa: E402

Measure = Literal["layer", "cost"]


def depth_score(answer: Answer, objective: Objective) -> float:
    """Score how deep a text goes, in (0, 1]: `(e + c) / E`, for the exit e of E, counted from 0, and a closeness c.

    A deeper exit always scores more. Among texts that leave at one exit the objective's value v decides, a loss of at
    least 0, by `c = 1 / (1 + v)`. If the victim reports no exits, the score is its time in seconds.
    """
    if answer.exit < 0:
        return answer.spent
    value = float(objective.value(answer.logits[None], np.array([answer.exit]))[0])
    return (answer.exit + 1 / (1 + value)) / len(answer.logits)


class EfficiencyGoalResult(GoalFunctionResult):
    """The depth of a text; `raw_output` is the `Answer`, `output` has prediction and layer."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments, goal_function_result_type="Efficiency")

    def get_text_color_input(self) -> str:
        """Colour of changed words in the original."""
        return "red" if self.raw_output.last else "green"

    def get_text_color_perturbed(self) -> str:
        """Colour of the words that replace them."""
        return self.get_text_color_input()

    def get_colored_output(self, color_method: str | None = None) -> str:
        """The output, red if the last exit was reached."""
        return str(color_text(self.output, self.get_text_color_input(), color_method))


class EfficiencyGoal(GoalFunction):
    """Make a model leave late; reached at the last exit, and texts that leave there anyway are skipped.

    Args:
        wrapper: the victim.
        measure: the search maximises it: the exit `layer`, see `depth_score`, or `cost`, the share of the full
            model's FLOPs, which also grows with every token that an edit adds.
        objective: orders texts that leave at the same exit; its value must be at least 0. By default the loss of SAME;
            nothing if the victim shows no probabilities.
        query_budget: most queries per example; by default the victim's own limit.
        options: of TextAttack's `GoalFunction`.

    Raises:
        ConfigError: an unknown measure.
    """

    def __init__(
        self,
        wrapper: VictimWrapper,
        *,
        measure: Measure = "layer",
        objective: Objective | None = None,
        query_budget: int | None = None,
        **options: Any,
    ) -> None:
        if measure not in get_args(Measure):
            raise ConfigError(unknown_name("measure", measure, get_args(Measure)))
        victim = wrapper.victim
        seen = victim.probabilities and victim.kind == "classification"
        self.measure, self.objective = measure, objective or (Same() if seen else ExitDepth())
        budget = query_budget or victim.max_forward or float("inf")
        with quiet():  # TextAttack warns about unknown goals
            super().__init__(wrapper, query_budget=budget, **options)

    def _call_model_uncached(self, attacked_text_list: Sequence[Any]) -> list[Answer]:
        """Answers instead of class probabilities; the victim makes its own batches."""
        answers: list[Answer] = self.model.answers([text.tokenizer_input for text in attacked_text_list])
        return answers

    def _is_goal_complete(self, model_output: Answer, _: Any) -> bool:
        return model_output.last

    def _get_score(self, model_output: Answer, _: Any) -> float:
        if self.measure == "cost" and model_output.exit >= 0:
            return model_output.spent / model_output.full_spent
        return depth_score(model_output, self.objective)

    def _get_displayed_output(self, raw_output: Answer) -> str:
        return display(raw_output)

    def _goal_function_result_type(self) -> type[EfficiencyGoalResult]:
        return EfficiencyGoalResult

    def _process_model_outputs(self, inputs: Any, outputs: list[Answer]) -> list[Answer]:
        return outputs

    def extra_repr_keys(self) -> list[str]:
        """The attributes that TextAttack prints."""
        return ["measure", *super().extra_repr_keys()]


def display(answer: Answer) -> str:
    """Prediction and exit layer, or seconds."""
    where = f"layer {answer.layer}" if answer.layer else f"{answer.spent:.4f} s"
    return f"{answer.prediction} at {where}"
