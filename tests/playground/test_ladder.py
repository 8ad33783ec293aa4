"""What the page shows is what the engine does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offramp._core.trace import Trace
from offramp.criteria import CRITERIA, make_criterion
from offramp.engine.policy import Policy
from offramp.inference.engine import Engine
from offramp.playground.ladder import MOST_CLASSES, climb, scale, strongest
from offramp.playground.models import adjusted

TEXTS = ("a good film", "the plot is a mess and the cast is slow", "charm")


def toy_trace(logits: list[list[float]], layers: tuple[int, ...] = (0, 2, 4)) -> Trace:
    flops = np.linspace(0.0, 1.0, len(layers))[None]
    return Trace(np.array([logits], dtype=np.float32), layers, flops, np.ones(1))


def test_a_ladder_by_hand() -> None:
    """Probabilities of 0.5, 0.9 and 0.75 for the second class; the threshold 0.8 stops at the second exit."""
    run = toy_trace([[0, 0], [0, np.log(9)], [0, np.log(3)]])
    ladder = climb(run, Policy(make_criterion("confidence", 0.8), (0, 2, 4)), ("no", "yes"))
    assert [rung.fate for rung in ladder.rungs] == ["passed", "left", "unreached"]
    assert [rung.answer for rung in ladder.rungs] == ["no", "yes", "yes"]
    assert [rung.score for rung in ladder.rungs[1:]] == pytest.approx([0.9, 0.75])
    assert ladder.rungs[0].score is None  # logits of 0: layer 0 recognises nothing, and the text passes
    assert [rung.threshold for rung in ladder.rungs] == [0.8, 0.8, None]
    assert [rung.cost for rung in ladder.rungs] == [0.0, 0.5, 1.0]
    assert dict(ladder.rungs[2].classes) == pytest.approx({"no": 0.25, "yes": 0.75})
    assert (ladder.answer, ladder.left, ladder.answered, ladder.scale) == ("yes", 1, 1, (0.0, 1.0))
    assert ladder.probability == pytest.approx(0.9)


def test_with_recall_an_earlier_exit_answers() -> None:
    run = toy_trace([[0, np.log(4)], [np.log(1.5), 0], [np.log(2), 0]])
    ladder = climb(run, Policy(make_criterion("confidence", 0.9), (0, 2, 4), recall=True), ("no", "yes"))
    assert (ladder.left, ladder.answered, ladder.answer) == (2, 0, "yes")


def test_own_thresholds_and_temperatures_are_shown() -> None:
    run = toy_trace([[0, np.log(9)]] * 3)
    policy = Policy(make_criterion("confidence", (0.95, 0.7)), (0, 2, 4), (1.0, 2.0, 1.0))
    ladder = climb(run, policy, ("no", "yes"))
    assert [rung.threshold for rung in ladder.rungs] == [0.95, 0.7, None]
    assert [rung.score for rung in ladder.rungs] == pytest.approx([0.9, 0.75, 0.9])
    plain = climb(run, adjusted(policy, 0.91, calibrated=False), ("no", "yes"))
    assert [rung.score for rung in plain.rungs] == pytest.approx([0.9] * 3)
    assert plain.left == 2


def test_of_many_classes_the_likeliest_are_shown() -> None:
    assert strongest([0.2, 0.5, 0.3]) == [0, 1, 2]
    assert strongest([0.1, 0.3, 0.1, 0.2, 0.05, 0.25]) == [1, 5, 3, 0]


@pytest.mark.parametrize(
    ("rule", "drawn"),
    [("confidence", (0.0, 1.0)), ("patience", (0.0, 3.0)), ("entropy", (0.0, 1.0)), ("energy", (-3.0, 1.0))],
)
def test_scores_of_every_rule_have_a_range(rule: str, drawn: tuple[float, float]) -> None:
    policy = Policy(make_criterion(rule), (0, 2, 4))
    assert scale(policy) == drawn
    low, high = policy.criterion.threshold_range
    assert scale(policy, [low, high]) == drawn, "a threshold that nothing passes does not stretch the range"
    assert scale(Policy(make_criterion("energy"), (0, 2, 4)), [-7.5, 2.5]) == (-7.5, 2.5)


@pytest.mark.parametrize("name", ["trained", "exported", "numbers"])
@settings(max_examples=15)  # each opens an engine
@given(choice=st.integers(0, 99), text=st.sampled_from(TEXTS), share=st.integers(0, 6))
def test_the_ladder_is_what_the_engine_does(
    name: str, choice: int, text: str, share: int, models: Any
) -> None:
    model = models[name]
    rule = list(model.rules)[choice % len(model.rules)]
    low, high = scale(model.rules[rule])
    threshold = round(low + share / 6 * (high - low), 3)
    whole = model.rules[rule].criterion.whole
    policy = adjusted(model.rules[rule], max(1, round(threshold)) if whole else threshold)
    ladder = climb(model.trace(text)[0], policy, model.labels)
    expected = Engine(model.model or model.folder, policy, batch_size=1).predict(text)
    assert ladder.leaving.layer == expected.exit_layer
    assert ladder.leaving.cost == pytest.approx(expected.cost)
    if model.labels:
        assert ladder.answer == expected.label
        assert ladder.probability == pytest.approx(expected.probability, abs=1e-5)
    else:
        assert float(ladder.answer) == pytest.approx(float(expected.label), rel=0.01)
        assert ladder.probability is None


def test_every_rule_that_fits_a_model_is_offered(models: Any) -> None:
    tunable = {name for name, rule in CRITERIA.items() if rule.tunable}
    rules = {name: set(model.rules) for name, model in models.items()}
    assert rules["trained"] == tunable | {"policy-confidence", "policy-entropy"}
    assert rules["exported"] == tunable - {"cap"} | {"policy"}, "the export has no residuals"
    assert rules["other"] == tunable - {"learned"}, "the model has no gates"
    assert rules["numbers"] == {"patience"}
    assert [models[name].tuned for name in ("trained", "exported", "other")] == [2, 1, 0]


def test_a_second_text_is_read_by_models_of_pairs_alone(models: Any) -> None:
    def same(name: str, *texts: str) -> bool:
        first, second = (models[name].trace("a good film", text)[0].logits for text in texts)
        return np.array_equal(first, second)

    assert same("trained", "", "a mess")
    assert not same("pairs", "", "a mess")
    assert models["other"].pair is None
    assert not same("other", "", "a mess")
    assert same("other", "", "  ")


def test_a_text_that_is_cut_is_noticed(models: Any) -> None:
    assert not models["trained"].trace("a good film")[1]
    assert models["trained"].trace("a good film " * 20)[1]


def test_a_rung_shows_few_classes(models: Any) -> None:
    model = models["pairs"]
    ladder = climb(model.trace("a", "b")[0], next(iter(model.rules.values())), model.labels)
    for rung in ladder.rungs:
        assert len(rung.classes) == MOST_CLASSES
        assert rung.hidden == 3
        assert rung.classes[0][0] == rung.answer
