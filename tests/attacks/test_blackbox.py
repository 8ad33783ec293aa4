"""Victims without an inside, surrogates, and texts carried to another model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from offramp._core.errors import ConfigError, DataError
from offramp.attacks import EngineVictim, FunctionVictim, GreyBox, WhiteBoxVictim, attack, transfer
from offramp.attacks.constraints.constraints import Constraints
from offramp.attacks.options import Options
from offramp.attacks.recipes import RECIPES, compose_recipe
from offramp.attacks.search import base as search_module
from offramp.attacks.text.attacked_text import AttackedText
from offramp.attacks.victims.base import Answer
from offramp.inference.engine import Engine
from offramp.inference.tracing import trace
from tests.attacks.asking import query

FAST: dict[str, Any] = {"top_n": 8, "beam": 2, "rounds": 2, "similarity": "none", "progress": False}
BLACK = ("slowbert", "slowbert-time", "random-char", "waffle-universal")


def by_letters(text: str, pair: str = "") -> tuple[int, int]:
    """Leaves late where there are many e's: a model of which nothing is known."""
    return int("good" in text), (1, 2, 4)[min(2, (text + pair).count("e") // 3)]


@pytest.fixture
def options(lexicon: str) -> dict[str, Any]:
    return {**FAST, "lexicon": lexicon}


def test_a_function_is_attacked_through_its_answers(options: dict[str, Any], sentences: Any) -> None:
    result = attack(FunctionVictim(by_letters, (1, 2, 4)), sentences, recipe="slowbert", **options)
    for row in result.rows:
        for side in ("clean", "adversarial"):
            text = row["text" if side == "clean" else "adversarial_text"]
            assert (row[f"{side}_prediction"], row[f"{side}_layer"]) == by_letters(text)
        assert row["gradient_queries"] == 0
    assert result.summary()["success"] > 0
    assert result.metadata["policy"] is None
    assert result.metadata["function"] == "by_letters"


def test_queries_limit_every_victim(
    make_model: Any, policy_for: Any, options: dict[str, Any], sentences: Any
) -> None:
    model = make_model()
    policy = policy_for(model)
    victims = [
        FunctionVictim(by_letters, (1, 2, 4)),
        FunctionVictim(by_letters, (1, 2, 4), max_forward=1000),
        EngineVictim(Engine(model, policy)),
        GreyBox(FunctionVictim(by_letters, (1, 2, 4)), WhiteBoxVictim(model, policy)),
        WhiteBoxVictim(model, policy),
    ]
    for victim in victims:
        asked = attack(victim, sentences, recipe="random-char", **options, queries=5).table["forward_queries"]
        assert max(asked.to_pylist()) == 5
    less = FunctionVictim(by_letters, (1, 2, 4), max_forward=3)
    asked = attack(less, sentences, recipe="random-char", **options, queries=5).table["forward_queries"]
    assert max(asked.to_pylist()) == 3


def test_ranking_by_deletion_goes_in_portions(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long text would otherwise be held as often as it has words."""
    data = Dataset.from_dict({"text": ["a dull plot, all about nothing, by a man who knows film"]})
    whole = attack(FunctionVictim(by_letters, (1, 2, 4)), data, recipe="slowbert", **options)
    held: list[int] = []

    class Counting(FunctionVictim):
        def run(self, segments: Any) -> list[Answer]:
            held.append(len(segments))
            return super().run(segments)

    monkeypatch.setattr(search_module, "CHUNK", 3)
    parts = attack(Counting(by_letters, (1, 2, 4)), data, recipe="slowbert", **options)
    assert 3 in held
    drop = ("seconds", "similarity", "clean_probabilities", "adversarial_probabilities")
    for one, other in zip(whole.rows, parts.rows, strict=True):
        assert {k: v for k, v in one.items() if k not in drop} == {
            k: v for k, v in other.items() if k not in drop
        }


def test_a_function_that_tells_seconds(options: dict[str, Any]) -> None:
    noise = np.random.default_rng(0)

    def seconds(text: str) -> tuple[int, float]:
        return 0, (0.01 * (1 + text.count("e")) + 0.001 * noise.exponential()) * (
            5 if noise.random() < 0.05 else 1
        )

    data = Dataset.from_dict({"text": ["A dull unforgettable masterpiece", "tiny film"]})
    result = attack(FunctionVictim(seconds), data, recipe="slowbert-time", **{**options, "top_n": 12})
    for row in result.rows:
        assert row["adversarial_text"].count("e") >= row["text"].count("e")
        assert (row["clean_layer"], row["clean_exit"], row["reached_last"]) == (0, -1, False)


@pytest.mark.parametrize("name", ["slowbert", "random-char"])
def test_recipes_that_look_at_layers_refuse_a_victim_that_tells_seconds(
    name: str, options: dict[str, Any], sentences: Any
) -> None:
    # All of its texts would look alike: the attack would end unchanged, and the victim would pass for robust.
    with pytest.raises(ConfigError, match="reports only seconds: use 'waffle-universal' or 'slowbert-time'"):
        attack(FunctionVictim(lambda text: (0, 0.01)), sentences, recipe=name, **options)


def test_an_engine_is_a_black_box(
    make_model: Any, policy_for: Any, options: dict[str, Any], sentences: Any
) -> None:
    model = make_model()
    policy = policy_for(model)
    looks = WhiteBoxVictim(model, policy).inspect([AttackedText.of(text) for text in sentences["text"]])
    # From outside nobody knows which words are cut away, so that texts too long are asked about in vain.
    sentences = sentences.select([i for i, look in enumerate(looks) if all(look.tokens)])
    black = attack(Engine(model, policy), sentences, recipe="slowbert", **options)
    white = attack(model, sentences, recipe="slowbert", policy=policy, **options)
    drop = ("seconds", "similarity", "clean_probabilities", "adversarial_probabilities")
    for one, other in zip(black.rows, white.rows, strict=True):
        assert {k: v for k, v in one.items() if k not in drop} == {
            k: v for k, v in other.items() if k not in drop
        }
    victim = EngineVictim(Engine(model, policy))
    assert victim.stopwatch(("good film",)) > 0
    assert query(victim, []) == []


@pytest.mark.parametrize("name", [name for name in RECIPES if name not in BLACK])
def test_white_box_recipes_refuse_a_black_box(name: str, lexicon: str) -> None:
    with pytest.raises(ConfigError, match=r"black box: use\s+'slowbert'|the victim shows only exit layers"):
        compose_recipe(name, FunctionVictim(by_letters, (1, 2, 4)), Options.of(lexicon=lexicon))


def test_a_surrogate_lends_its_gradients(
    make_model: Any, policy_for: Any, options: dict[str, Any], sentences: Any
) -> None:
    model, other = make_model("roberta"), make_model()
    policy = policy_for(model)
    surrogate = WhiteBoxVictim(other, policy_for(other))
    for target in (
        WhiteBoxVictim(model, policy),
        FunctionVictim(by_letters, (1, 2, 4)),
        EngineVictim(Engine(model, policy)),
    ):
        grey = GreyBox(target, surrogate)
        result = attack(grey, sentences, recipe="same-word", **options)
        assert result.summary()["gradient_queries"] > 0
        assert result.summary()["adversarial_depth"] >= result.summary()["clean_depth"]
        answers = query(target, [AttackedText.of(row["adversarial_text"]) for row in result.rows])
        assert [a.layer for a in answers] == [row["adversarial_layer"] for row in result.rows]
        assert len(result.metadata["surrogate"]) == 16
    regression = make_model(kind="regression")
    with pytest.raises(ConfigError, match="the surrogate is for regression, the victim for classification"):
        GreyBox(target, WhiteBoxVictim(regression, policy_for(regression, "patience", 1)))


def test_texts_are_carried_to_another_model(
    make_model: Any, policy_for: Any, options: dict[str, Any], pairs: Any
) -> None:
    model, other = make_model(), make_model("roberta")
    policy = policy_for(other)
    result = attack(model, pairs, recipe="same-word", policy=policy_for(model, data=pairs), **options)
    moved = transfer(result, other, policy)
    for side, prefix in (("clean", ""), ("adversarial", "adversarial_")):
        rows = [{"text": r[f"{prefix}text"], "text_pair": r[f"{prefix}text_pair"]} for r in result.rows]
        expected = policy.decide(trace(other, Dataset.from_list(rows)))
        assert moved.column(f"{side}_layer").tolist() == expected.layer.tolist()
    assert moved.column("words_changed").tolist() == result.column("words_changed").tolist()
    assert moved.summary()["forward_queries"] == 0
    assert moved.metadata["transferred_from"] == result.metadata["weights"] != moved.metadata["weights"]
    through_engine = transfer(result, Engine(other, policy))
    assert through_engine.column("adversarial_layer").tolist() == moved.column("adversarial_layer").tolist()


def test_misuse(make_model: Any, sentences: Any) -> None:
    with pytest.raises(DataError, match=r"expected one of the exit layers \[1, 2\] from the function, got 4"):
        query(FunctionVictim(lambda text: (0, 4), (1, 2)), [AttackedText.of("film")])
    for told in ("positive", ("positive", 2), (0, None), (0,), (True, 1), (0, float("nan"))):
        with pytest.raises(DataError, match="expected a pair of numbers from the function"):
            query(FunctionVictim(lambda text, told=told: told, (1, 2)), [AttackedText.of("film")])
    with pytest.raises(ConfigError, match="a model is attacked under a policy, got None"):
        attack(make_model(), sentences, **FAST)


def test_what_must_stay() -> None:
    def reply(prediction: int) -> Answer:
        return Answer(np.zeros((3, 2), np.float32), 0, 1, prediction, 1.0, 1.0)

    clean, text = AttackedText.of("good film"), AttackedText.of("good film").replace(0, "bad")

    def accepts(preserve: Any, before: int, after: int, label: int | None) -> bool:
        return Constraints(preserve=preserve).accepts(clean, reply(before), text, reply(after), label)

    assert accepts("nothing", 0, 1, 0)
    assert [accepts("prediction", 0, after, 1) for after in (0, 1)] == [True, False]
    assert [accepts("label", 0, after, 0) for after in (0, 1)] == [True, False]
    assert accepts("label", 0, 1, 1)  # it was wrong: nothing to keep
    assert accepts("label", 0, 1, None)


@pytest.mark.parametrize("name", ["same-word", "same-plus", "slowbert", "random"])
def test_stealth(
    name: str, make_model: Any, policy_for: Any, options: dict[str, Any], sentences: Any
) -> None:
    model = make_model()
    policy = policy_for(model)
    free = attack(model, sentences, recipe=name, policy=policy, **options)
    kept = attack(model, sentences, recipe=name, policy=policy, preserve="prediction", **options)
    assert kept.column("clean_prediction").tolist() == kept.column("adversarial_prediction").tolist()
    if name == "same-word":
        assert free.column("clean_prediction").tolist() != free.column("adversarial_prediction").tolist()


class Counting:
    """A judge that finds texts alike that share their first word."""

    name = "counting"

    def similarities(self, pairs: Any) -> Any:
        return np.array([1.0 if a[0].split()[:1] == b[0].split()[:1] else 0.0 for a, b in pairs])

    def is_encoder_of(self, model: Any) -> bool:
        return False


def test_meaning_is_kept(
    make_model: Any, policy_for: Any, options: dict[str, Any], sentences: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model()
    monkeypatch.setattr("offramp.attacks.prepared.load_judge", lambda name: Counting())
    result = attack(model, sentences, policy=policy_for(model), min_similarity=0.5, **options)
    assert all(row["similarity"] == 1.0 for row in result.rows)
    assert result.summary()["words_changed"] > 0
    assert result.metadata["min_similarity"] == 0.5
    monkeypatch.undo()
    with pytest.raises(ConfigError, match=r"min_similarity=0\.5 needs a judge"):
        attack(model, sentences, policy=policy_for(model), min_similarity=0.5, **options)
