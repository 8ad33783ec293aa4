"""TextAttack's model, goal, recipes and data sets for attacks on exits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from offramp._core.errors import ConfigError, unknown_name
from offramp._core.paths import UserPath
from offramp.attacks.examples import read_examples
from offramp.attacks.objectives.base import ExitDepth, Objective
from offramp.attacks.objectives.same import Same
from offramp.attacks.text.attacked_text import AttackedText
from offramp.attacks.victims.base import Answer, QueryBudget, Victim
from offramp.attacks.victims.black_box import as_victim
from offramp.engine.policy import Policy
from offramp.inference.engine import Engine
from offramp.integrations.textattack.library import load_textattack, quiet
from offramp.model.base import SegmentedModel

library = load_textattack()
from textattack.goal_function_results import GoalFunctionResult  # noqa: E402
from textattack.goal_functions import GoalFunction  # noqa: E402
from textattack.models.wrappers import ModelWrapper  # noqa: E402
from textattack.shared.utils import color_text  # noqa: E402

COLUMNS = ("premise", "hypothesis")  # TextAttack's names for the texts of a pair

#: Recipes that run offline: the class in `textattack.attack_recipes`.
OFFLINE = {"deepwordbug": "DeepWordBugGao2018", "pruthi": "Pruthi2019", "pwws": "PWWSRen2019"}

Measure = Literal["layer", "cost"]
Input = str | Sequence[str]  # a text, or a pair


class VictimWrapper(ModelWrapper):
    """A model under a policy, a deployed engine or any other victim, behind TextAttack's interface.

    A call returns class probabilities `(texts, classes)` of the exit that each text leaves at, so TextAttack's own
    goals attack the deployed answer; for regression, values `(texts, 1)`. `EfficiencyGoal` uses `answers`.

    Args:
        target, policy, batch_size: as for `offramp.attack`.
    """

    def __init__(
        self,
        target: SegmentedModel | Engine | Victim | UserPath,
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
        """Return the probabilities of the exits taken, or raise `ConfigError` if the victim shows none."""
        if self.victim.kind == "regression":
            return torch.tensor([[float(answer.prediction)] for answer in self.answers(text_input_list)])
        if not self.victim.probabilities:
            raise ConfigError(
                "this TextAttack goal needs class probabilities, and a black box shows none: use EfficiencyGoal, or "
                "wrap the model with its policy"
            )
        logits = [torch.from_numpy(a.logits[a.exit]) for a in self.answers(text_input_list)]
        return torch.stack(logits).softmax(-1)


def depth_score(answer: Answer, objective: Objective) -> float:
    """Score the depth of a text in (0, 1]: `(e + c) / E`, for exit e of E, counted from 0, and a closeness c.

    A deeper exit always scores more. Among texts of one exit the objective's value v, a loss of at least 0,
    decides by `c = 1 / (1 + v)`. If the victim reports no exits, the score is its time in seconds.
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
        return "red" if self.raw_output.last else "green"

    get_text_color_perturbed = get_text_color_input

    def get_colored_output(self, color_method: str | None = None) -> str:
        return str(color_text(self.output, self.get_text_color_input(), color_method))


class EfficiencyGoal(GoalFunction):
    """Make a model leave late. The goal is reached at the last exit; texts that leave there anyway are skipped.

    Args:
        wrapper: the victim.
        measure: the search maximises it: the exit `layer`, see `depth_score`, or `cost`, the share of the full
            model's FLOPs, which also grows with the tokens that edits add. `ConfigError` for anything else.
        objective: orders texts that leave at the same exit; its value must be at least 0. By default the loss of SAME;
            nothing if the victim shows no probabilities.
        query_budget: most queries per example; by default the victim's own limit.
        options: of TextAttack's `GoalFunction`.
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
        """Return answers instead of class probabilities; the victim makes its own batches."""
        return self.model.answers([text.tokenizer_input for text in attacked_text_list])

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
        return ["measure", *super().extra_repr_keys()]


def display(answer: Answer) -> str:
    """Prediction and exit layer, or seconds."""
    where = f"layer {answer.layer}" if answer.layer else f"{answer.spent:.4f} s"
    return f"{answer.prediction} at {where}"


def efficiency_attack(recipe: str | type, wrapper: VictimWrapper, **options: Any) -> Any:
    """Build a `textattack.Attack` from a recipe, with the goal of late exits.

    Transformation, constraints and search are the recipe's own.

    Args:
        recipe: `deepwordbug` or `pruthi` (characters), `pwws` (WordNet), or a class of `textattack.attack_recipes`,
            most of which download models.
        wrapper: the victim.
        options: of `EfficiencyGoal`.

    Raises:
        ConfigError: an unknown recipe, or one that needs flair.
        DataError: WordNet cannot be downloaded.
    """
    if isinstance(recipe, str):
        if recipe not in OFFLINE:
            raise ConfigError(unknown_name("TextAttack recipe", recipe, OFFLINE))
        load_textattack(wordnet=recipe == "pwws")
        recipe = getattr(library.attack_recipes, OFFLINE[recipe])
    with quiet():
        built = recipe.build(wrapper)  # type: ignore[union-attr]
    return library.Attack(
        EfficiencyGoal(wrapper, **options),
        [*built.pre_transformation_constraints, *built.constraints],
        built.transformation,
        built.search_method,
    )


def as_dataset(dataset: Any, labels: Sequence[str] | None = None) -> Any:
    """Convert a data set to a `textattack.datasets.Dataset`.

    TextAttack takes integers or strings as outputs: targets of a regression become strings, as does a missing label.

    Args:
        dataset: a `datasets.Dataset` with columns `text`, for pairs `text_pair`, and optionally `label`.
        labels: class names, for TextAttack's logs.

    Raises:
        DataError: no examples, or no texts.
    """
    examples = read_examples(dataset)
    pair = len(examples[0].text.original) > 1
    texts = [e.text.original if pair else e.text.text for e in examples]
    rows = [(text, ground_truth(e.label)) for text, e in zip(texts, examples, strict=True)]
    return library.datasets.Dataset(
        rows, input_columns=list(COLUMNS) if pair else ["text"], label_names=list(labels) if labels else None
    )


def ground_truth(label: int | float | None) -> int | str:
    """A label as TextAttack accepts it."""
    return label if isinstance(label, int) else str(label)
