"""TextAttack's recipes and data sets for attacks on exits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from offramp._core.errors import ConfigError, unknown_name
from offramp.attacks.examples import read_examples
from offramp.integrations.textattack.goal import EfficiencyGoal
from offramp.integrations.textattack.library import load_textattack, quiet
from offramp.integrations.textattack.wrapper import VictimWrapper

library = load_textattack()
COLUMNS = ("premise", "hypothesis")  # what TextAttack calls the texts of a pair

#: Recipes that run offline: the class in `textattack.attack_recipes`.
OFFLINE = {"deepwordbug": "DeepWordBugGao2018", "pruthi": "Pruthi2019", "pwws": "PWWSRen2019"}


def efficiency_attack(recipe: str | type, wrapper: VictimWrapper, **options: Any) -> Any:
    """Build a recipe of TextAttack with the goal of making the model leave late.

    Transformation, constraints and search are the recipe's own.

    Args:
        recipe: `deepwordbug` or `pruthi` (characters), `pwws` (WordNet), or a class of `textattack.attack_recipes`,
            most of which download models.
        wrapper: the victim.
        options: of `EfficiencyGoal`.

    Returns:
        A `textattack.Attack`.

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
    """Convert a data set to TextAttack's type.

    Args:
        dataset: a `datasets.Dataset` with columns `text`, for pairs `text_pair`, and optionally `label`.
        labels: class names, for TextAttack's logs.

    Returns:
        A `textattack.datasets.Dataset`. TextAttack takes integers or strings as outputs: targets of a regression
        become strings, and so does a missing label.

    Raises:
        DataError: no examples, or no texts.
    """
    examples = read_examples(dataset)
    rows = [(_texts(e.text.original), ground_truth(e.label)) for e in examples]
    pair = len(examples[0].text.original) > 1
    return library.datasets.Dataset(
        rows, input_columns=list(COLUMNS) if pair else ["text"], label_names=list(labels) if labels else None
    )


def ground_truth(label: int | float | None) -> int | str:
    """A label as TextAttack accepts it."""
    return label if isinstance(label, int) else str(label)


def _texts(segments: tuple[str, ...]) -> str | tuple[str, ...]:
    return segments if len(segments) > 1 else segments[0]
