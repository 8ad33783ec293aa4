"""Beam search, on scripted answers for its decisions and on tiny models for its promises."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pytest
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from offramp._core.errors import ConfigError
from offramp._core.seeding import generator
from offramp.attacks.constraints.constraints import Constraints
from offramp.attacks.objectives.base import Objective
from offramp.attacks.options import Options
from offramp.attacks.recipes import RECIPES, compose_recipe, recipe_named
from offramp.attacks.recipes.base import Access, Composition, Goal
from offramp.attacks.search.base import Candidate, Inspect, Outcome, Query, Rank, run_searches
from offramp.attacks.search.local import BeamSearch
from offramp.attacks.search.space import EveryWord, Move
from offramp.attacks.text.attacked_text import AttackedText
from offramp.attacks.transformations.base import Edit, Transformation
from offramp.attacks.victims.base import Answer, TokenizedText
from offramp.attacks.victims.white_box import WhiteBoxVictim
from offramp.evaluation.sanity_checks.random_baseline import is_random_baseline, uses_inside
from tests.attacks.asking import query

LAYERS = (1, 2, 4)


class Letters(Transformation):
    """Every word may become x, y or z."""

    def edits(
        self, look: TokenizedText, words: Sequence[int], top_n: int, rng: np.random.Generator
    ) -> list[Edit]:
        return [Edit(word, letter) for word in words for letter in "xyz"][:top_n]


class FirstLogit(Objective):
    """The loss is written into the first logit."""

    def loss(self, logits: Any, exit: Any) -> Any:
        return logits[:, 0, 0]

    def value(self, logits: Any, exit: Any) -> Any:
        return logits[:, 0, 0].astype(float)


@dataclass
class Script:
    """Plays the victim: exit index and loss by text."""

    answers: dict[str, tuple[int, float]]
    composition: Composition = field(
        default_factory=lambda: Composition(
            FirstLogit(),
            (Move(EveryWord(), Letters()),),
            Constraints(2, frozenset()),
            search=BeamSearch(2, 10),
        )
    )
    asked: list[list[str]] = field(default_factory=list)
    looked: list[list[str]] = field(default_factory=list)
    budget: int = 10**6

    def play(self, text: str) -> tuple[Candidate, Candidate]:
        steps = self.composition.search.steps(
            AttackedText.of(text), self.composition, np.random.default_rng(0)
        )
        reply: Any = None
        try:
            while True:
                request = steps.send(reply)
                texts = [t.text for t in request.texts]
                if isinstance(request, Inspect):
                    self.looked.append(texts)
                    reply = [TokenizedText(t, [], [(i,) for i in range(t.num_words)]) for t in request.texts]
                else:
                    assert isinstance(request, Query | Rank)
                    self.asked.append(texts)
                    left = self.budget - sum(map(len, self.asked[:-1]))
                    reply = [self.answer(t) for t in texts[: max(left, 0)]]
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]

    def answer(self, text: str) -> Answer:
        exit, loss = self.answers.get(text, (0, 9.0))
        logits = np.zeros((3, 2), dtype=np.float32)
        logits[0, 0] = loss
        return Answer(logits, exit, LAYERS[exit], 0, 1.0, 1.0)


def test_an_example_at_the_last_exit_is_left_alone() -> None:
    script = Script({"a b": (2, 1.0)})
    clean, best = script.play("a b")
    assert best is clean
    assert (script.asked, script.looked) == ([["a b"]], [])


def test_it_stops_at_once_on_success() -> None:
    script = Script({"a b": (0, 5.0), "x b": (1, 5.0), "a y": (1, 4.0), "x x": (2, 3.0)})
    _, best = script.play("a b")
    assert best.text.text == "x x"
    first = ["x b", "y b", "z b", "a x", "a y", "a z"]
    # The beam is "a y" (lower loss) and "x b"; success comes with the second, and there is no further round.
    assert script.asked == [["a b"], first, ["x y", "y y", "z y"], ["x x", "x z"]]  # x y was tried before
    assert script.looked == [["a b"], ["a y", "x b"]]


def test_a_success_among_the_first_texts_ends_the_round() -> None:
    script = Script({"a b": (0, 5.0), "a y": (1, 4.0), "x b": (1, 5.0), "y y": (2, 9.0)})
    _, best = script.play("a b")
    assert best.text.text == "y y"
    assert len(script.asked) == 3


def test_the_best_ever_is_kept() -> None:
    # Round 1 finds a later exit; round 2 has to change one more word, which spoils it.
    script = Script({"a b": (0, 5.0), "x b": (1, 2.0)})
    clean, best = script.play("a b")
    assert best.text.text == "x b"
    assert clean.text.text == "a b"
    assert len(script.asked) == 4  # the second round was played


def test_never_weaker_than_the_input() -> None:
    script = Script({"a b": (1, 5.0)})  # every change makes it leave earlier
    clean, best = script.play("a b")
    assert best is clean


def test_a_later_exit_counts_more_than_a_lower_loss_and_ties_keep_the_first() -> None:
    script = Script({"a b": (0, 5.0), "x b": (0, 0.1), "y b": (1, 8.0), "a z": (1, 8.0)})
    _, best = script.play("a b")
    assert best.text.text == "y b"
    assert script.looked[1] == ["y b", "a z"]


def test_an_equal_text_does_not_replace_the_input() -> None:
    script = Script({"a": (0, 9.0)})
    clean, best = script.play("a")
    assert best is clean


def test_the_word_budget_ends_the_search() -> None:
    script = Script({"a b c": (0, 9.0)})
    script.play("a b c")
    assert len(script.looked) == 2  # two words may change
    assert all(sum(w in "xyz" for w in t.split()) <= 2 for texts in script.asked for t in texts)


def test_rounds_end_the_search() -> None:
    script = Script({})
    script.composition = replace(script.composition, search=BeamSearch(2, 1))
    script.play("a b c")
    assert len(script.looked) == 1


def test_a_query_budget_ends_the_search_with_what_was_seen() -> None:
    script = Script({"x b": (1, 5.0), "a z": (2, 5.0)}, budget=4)
    _, best = script.play("a b")
    assert best.text.text == "x b"
    assert len(script.asked) == 2


def test_a_text_without_words_is_returned() -> None:
    script = Script({"?!": (0, 5.0)})
    clean, best = script.play("?!")
    assert best is clean
    assert script.asked == [["?!"], []]


TRIGGER = ("funny", "film")
ACCURACY = tuple(name for name, recipe in RECIPES.items() if recipe.goal == "misclassification")


@pytest.fixture(autouse=True)
def _offline(lexicon: str, masked_lm: str, steady_clock: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Recipes take the tiny lexicon and language model, and times have no noise."""
    monkeypatch.setitem(DEFAULTS, "lexicon", lexicon)
    monkeypatch.setitem(DEFAULTS, "masked_lm", masked_lm)


DEFAULTS: dict[str, Any] = {"top_n": 12, "beam": 2, "rounds": 3, "trigger": " ".join(TRIGGER)}


def outcomes(
    model: Any, policy: Any, name: str, data: Any, alone: bool = False, **options: Any
) -> list[Outcome]:
    settings = Options.of(**{**DEFAULTS, **options})
    victim = WhiteBoxVictim(model, policy, batch_size=1 if alone else 64, max_forward=settings.queries)
    composition = compose_recipe(name, victim, settings)
    pairs = data["text_pair"] if "text_pair" in data.column_names else [None] * len(data)
    texts = [AttackedText.of(a, b) for a, b in zip(data["text"], pairs, strict=True)]
    searches = [
        composition.search.steps(t, composition, generator(0, i))
        for t, i in zip(texts, data["id"], strict=True)
    ]
    groups = [[s] for s in searches] if alone else [searches]
    limits = {"gradients": composition.needs_gradient, "queries": composition.queries}
    return [o for group in groups for o in run_searches(victim, group, **limits)]


def most_queries(name: str, words: int) -> int:
    """What a search may ask at most with the options of `outcomes`."""
    if name == "same-plus":  # four times as many rounds, of at most eight texts
        return 1 + 4 * DEFAULTS["rounds"] * 8
    if name.startswith(("same", "deepsloth", "random")):
        return 1 + 12 + 2 * 12 * 2
    if name == "waffle-universal":
        return 2
    if (
        name == "slowbert-time"
    ):  # words left out and candidates three times each, 15 pairs a word, and the record
        return 2 + 3 * words + words * (3 * 12 + 2 * 15)
    return 1 + words + words * 12


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize(
    ("data_name", "exits"), [("sentences", LAYERS), ("pairs", LAYERS), ("sentences", (0, 1, 4))]
)
def test_promises_of_every_recipe(
    name: str, data_name: str, exits: tuple[int, ...], make_model: Any, policy_for: Any, request: Any
) -> None:
    model, data = make_model("roberta", exits=exits), request.getfixturevalue(data_name)
    policy = policy_for(model)
    victim = WhiteBoxVictim(model, policy)
    for outcome in outcomes(model, policy, name, data):
        clean, adversarial = outcome.clean, outcome.adversarial
        before, after = clean.text, adversarial.text
        assert (before.changes, before.front) == ((), ())
        assert after.front == (TRIGGER if name == "waffle-universal" else ())
        if name == "slowbert-time":
            assert adversarial.answer.spent >= clean.answer.spent
        elif name != "waffle-universal":  # whose words are in front whatever comes of it
            assert adversarial.score >= clean.score
        # Budget and stop words, from the strings alone.
        again = AttackedText.of(
            after.segments[0].removeprefix("funny film ") if after.front else after.text, after.text_pair
        )
        assert len(after.segments) == len(before.segments)
        differing = [i for i, (a, b) in enumerate(zip(before.words, again.words, strict=True)) if a != b]
        assert len(differing) <= max(4 if "a2t" in name else 3, -(-len(before.words) // 10))
        assert not {before.words[i].lower() for i in differing} & ENGLISH_STOP_WORDS
        # What is claimed of both texts is what the model does.
        for found in (clean, adversarial):
            (answer,) = query(victim, [AttackedText.of(*found.text.segments)])
            assert (answer.exit, answer.layer, answer.spent) == (
                found.answer.exit,
                found.answer.layer,
                found.answer.spent,
            )
        if clean.done and name not in ("waffle-universal", "slowbert-time"):
            assert outcome.budget.forward == 1
            assert adversarial is clean
        assert outcome.budget.forward <= most_queries(name, before.num_words)
        white = name.startswith(("same", "deepsloth")) or "a2t" in name
        assert outcome.budget.gradient <= (1 if "a2t" in name else 5 if white else 0)
        assert outcome.seconds > 0


@pytest.mark.parametrize("name", ACCURACY)
def test_accuracy_attacks_are_done_when_the_exit_they_look_at_errs(
    name: str, make_model: Any, policy_for: Any, sentences: Any
) -> None:
    model = make_model()
    fooled = 0
    for outcome in outcomes(model, policy_for(model), name, sentences):
        before, after = outcome.clean.answer, outcome.adversarial.answer
        if name.endswith("exit"):
            changed = before.prediction != after.prediction
        else:
            changed = before.logits[-1].argmax() != after.logits[-1].argmax()
        assert outcome.adversarial.done == changed
        fooled += changed
    assert fooled or name.startswith(("a2t", "textfooler"))


@pytest.mark.parametrize("name", RECIPES)
def test_side_by_side_is_one_by_one(
    name: str, make_model: Any, policy_for: Any, sentences: Any, pairs: Any
) -> None:
    model = make_model()
    data = pairs if name in ("same-word", "slowbert", "random") else sentences
    data = data.select(range(min(5, len(data))))
    together = outcomes(model, policy_for(model), name, data)
    alone = outcomes(model, policy_for(model), name, data, alone=True)
    turned = outcomes(model, policy_for(model), name, data.select(range(len(data) - 1, -1, -1)))[::-1]
    for other in (alone, turned):
        assert [o.adversarial.text for o in other] == [o.adversarial.text for o in together]
        assert [o.budget.forward for o in other] == [o.budget.forward for o in together]
        assert [o.budget.gradient for o in other] == [o.budget.gradient for o in together]


@pytest.mark.parametrize(
    ("family", "cascade", "criterion", "threshold", "data_name"),
    [
        ("bert", True, "confidence", None, "pairs"),
        ("roberta", False, "entropy", None, "sentences"),
        ("albert", False, "patience", 1, "sentences"),
        ("albert", True, "entropy", None, "sentences"),
    ],
)
def test_same_slows_models_down(
    family: str,
    cascade: bool,
    criterion: str,
    threshold: Any,
    data_name: str,
    make_model: Any,
    policy_for: Any,
    request: Any,
) -> None:
    model, data = make_model(family, cascade=cascade), request.getfixturevalue(data_name)
    found = outcomes(model, policy_for(model, criterion, threshold, data), "same-word", data, top_n=30)
    clean = np.mean([o.clean.answer.layer for o in found])
    adversarial = np.mean([o.adversarial.answer.layer for o in found])
    assert adversarial > clean
    assert any(o.adversarial.text.changes for o in found)


def test_both_sides_of_a_pair_change(make_model: Any, policy_for: Any, pairs: Any) -> None:
    model = make_model()
    found = outcomes(model, policy_for(model, data=pairs), "same-word", pairs, max_changed_words=6, rounds=6)
    changed = [{o.adversarial.text.origin[i].segment for i in o.adversarial.text.changed} for o in found]
    assert set().union(*changed) == {0, 1}


def test_the_query_budget_is_kept(make_model: Any, policy_for: Any, sentences: Any) -> None:
    model = make_model()
    found = outcomes(model, policy_for(model), "same-word", sentences, queries=7)
    assert max(o.budget.forward for o in found) == 7
    assert all(o.adversarial.score >= o.clean.score for o in found)


def test_regression_takes_random_edits_only(make_model: Any, policy_for: Any, sentences: Any) -> None:
    model = make_model(kind="regression")
    policy = policy_for(model, "patience", 1)
    for name in RECIPES:
        if name.startswith(("random", "slowbert")) or name == "waffle-universal":
            assert outcomes(model, policy, name, sentences.select([0, 6]))
            continue
        with pytest.raises(ConfigError, match="at least 2 classes, but the model is a regression"):
            compose_recipe(name, WhiteBoxVictim(model, policy), Options.of(**DEFAULTS))
    found = outcomes(model, policy, "random", sentences)
    assert all(isinstance(o.clean.answer.prediction, float) for o in found)


def test_an_unknown_recipe(victim: WhiteBoxVictim) -> None:
    with pytest.raises(ConfigError, match=r"unknown attack recipe 'same-words'\. Did you mean 'same-word'"):
        compose_recipe("same-words", victim, Options())


def test_facts_stand_on_the_recipes() -> None:
    for name, recipe in RECIPES.items():
        assert recipe.name == name
        assert recipe.label
        assert recipe.goal in get_args(Goal)
        assert recipe.access in get_args(Access)
    assert len({recipe.label for recipe in RECIPES.values()}) == len(RECIPES)
    assert {n for n, r in RECIPES.items() if r.is_baseline} == {"random-word", "random-char", "random"}
    assert {n for n, r in RECIPES.items() if r.claim == 0.8} == {
        "same-plus",
        "same-word",
        "same-char",
        "same-mixed",
    }
    assert {n for n, r in RECIPES.items() if r.claim == 0.0} == set(ACCURACY)
    assert len(ACCURACY) == 8


def test_facts_are_read_without_torch() -> None:
    code = (
        "import sys; from offramp.attacks.recipes import RECIPES; import offramp.evaluation.sanity_checks.checks;"
        "assert RECIPES['same-word'].access == 'gradients'; print('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout == b"False\n"


def test_a_recipe_is_never_classed_by_its_name() -> None:
    rows = pa.table({"gradient_queries": [3.0]})
    assert uses_inside("same-word", rows)
    assert not uses_inside("same-exit", rows)  # unknown: it counts neither as a white box nor as a baseline
    assert not is_random_baseline("random-sentence")
    with pytest.raises(ConfigError, match="unknown attack recipe 'foo-exit'"):
        recipe_named("foo-exit")
