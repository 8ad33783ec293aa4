"""An attack, step by step: it ends where the library's own attack ends."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from datasets import Dataset

from offramp._core.errors import ConfigError
from offramp.attacks import AttackedText, attack
from offramp.inference.engine import Engine
from offramp.playground.attack import AttackStep, attack_steps, recipes_for
from offramp.playground.ladder import climb
from offramp.playground.models import adjusted
from offramp.playground.page import pieces

TEXT = "the film is a good story, but the plot is slow"


def steps(
    models: Any, name: str, rule: str, recipe: str, threshold: float | None = None, **options: Any
) -> list[AttackStep]:
    policy = adjusted(models[name].rules[rule], threshold)
    chosen = {"max_changed_words": 3, "seconds": 60.0} | options
    return list(attack_steps(models[name], policy, (TEXT,), recipe=recipe, **chosen))


@pytest.mark.parametrize(
    ("name", "rule", "threshold", "recipe"),
    [
        ("trained", "policy-confidence", None, "same-word"),
        ("trained", "confidence", 0.55, "same-mixed"),
        ("trained", "margin", 0.1, "same-plus"),
        ("trained", "patience", 1, "same-char"),
        ("trained", "cap", 0.5, "random-char"),
        ("other", "confidence", 0.51, "random"),
        ("exported", "policy", None, "random-char"),
        ("numbers", "patience", 1, "random-word"),
    ],
)
def test_it_ends_where_the_attack_of_the_library_ends(
    models: Any, name: str, rule: str, threshold: float | None, recipe: str
) -> None:
    model = models[name]
    done = steps(models, name, rule, recipe, threshold)
    policy = adjusted(model.rules[rule], threshold)
    inside = model.model is not None and rule != "cap"
    target = model.model if inside else Engine(model.model or model.folder, policy)
    expected = attack(
        target,
        Dataset.from_list([{"id": 0, "text": TEXT}]),
        recipe=recipe,
        policy=policy if inside else None,
        similarity="none",
        max_changed_words=3,
        progress=False,
    ).rows[0]
    last = done[-1]
    assert last.text.text == expected["adversarial_text"]
    assert (last.queries, last.gradients) == (expected["forward_queries"], expected["gradient_queries"])
    assert last.ending
    assert not any(step.ending for step in done[:-1])


def test_words_change_step_by_step(models: Any) -> None:
    done = steps(models, "trained", "confidence", "same-word", 0.55)
    assert done[0] == AttackStep(AttackedText.of(TEXT), 0, 0, 0.0)
    assert all(a.queries <= b.queries and a.seconds <= b.seconds for a, b in pairwise(done))
    assert done[-1].text.num_changed <= 3


def test_it_ends_when_the_time_is_up(models: Any) -> None:
    done = steps(models, "trained", "confidence", "same-word", 0.55, seconds=1e-9)
    assert done[-1].ending == "the time is up"
    assert done[-1].queries == 0


def test_the_ending_is_said(models: Any) -> None:
    def ending(threshold: float) -> str:
        return steps(models, "trained", "confidence", "same-word", threshold)[-1].ending

    model = models["trained"]
    shown = climb(model.trace(TEXT)[0], model.rules["confidence"], model.labels)
    assert ending(2.0) == "the text reaches the goal as it is"
    assert ending(max(rung.score for rung in shown.rungs[:-1]) - 1e-6) == "the goal is reached"
    assert ending(0.0) == "the search is over"


def test_an_attack_needs_words(models: Any) -> None:
    with pytest.raises(
        ConfigError, match=r"^expected a text with words to attack, got none: type a sentence first$"
    ):
        list(
            attack_steps(
                models["trained"],
                models["trained"].rules["margin"],
                (" ?! ",),
                recipe="same-word",
                max_changed_words=3,
                seconds=1,
            )
        )


def test_recipes_fit_the_model(models: Any) -> None:
    assert recipes_for(models["exported"]) == ["slowbert", "random-char"]
    everything = recipes_for(models["trained"])
    assert {"same-word", "same-plus", "random-char", "textfooler-last"} <= set(everything)
    assert not {"waffle-universal", "slowbert-time"} & set(everything)
    assert set(recipes_for(models["numbers"])) == {"slowbert", "random-word", "random-char", "random"}


def test_changed_words_stand_beside_those_they_replace() -> None:
    text = AttackedText.of("one <b>two</b> three.", "four").replace(1, "2").replace(5, "IV")
    first, second = pieces(text)
    joined = "".join(characters for characters, _ in first)
    assert joined == text.text
    assert [(c, old) for c, old in first if old is not None] == [("2", "b")]
    assert second == [("", None), ("IV", "four"), ("", None)]
