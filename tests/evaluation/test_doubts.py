"""Every doubt is provoked, and explained on its page."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from offramp.attacks import AttackResult, FunctionVictim, WhiteBoxVictim, attack
from offramp.attacks.constraints.constraints import edit_distance
from offramp.attacks.text.attacked_text import AttackedText
from offramp.criteria import make_criterion
from offramp.engine.policy import Policy
from offramp.evaluation import attack_doubts, random_baseline_doubts
from offramp.evaluation.arrow_tables import as_table
from offramp.evaluation.sanity_checks.checks import victim_doubts
from offramp.evaluation.sanity_checks.constraint_check import breaches, distance, take_apart, word_budget
from offramp.evaluation.sanity_checks.doubts import CHECKS
from offramp.evaluation.sanity_checks.random_baseline import random_baseline_beside, uses_inside
from tests.evaluation.made_up import attack_row

DOCS = Path(__file__).parents[2] / "docs"
SOURCE = Path(__file__).parents[2] / "src" / "offramp" / "evaluation"
TEXTS = ["a good film", "the dull boring plot", "funny and warm", "what a mess it was", "great"]
FAST: dict[str, Any] = {"top_n": 8, "beam": 2, "rounds": 2, "similarity": "none", "progress": False}


@pytest.fixture(scope="module")
def model(tiny_encoder: Path) -> Any:
    from offramp.model import MultiExitForSequenceClassification

    made = MultiExitForSequenceClassification.from_backbone(
        str(tiny_encoder), [1, 2, 4], labels=2, max_length=16
    )
    rng = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for head in made.heads:
            head.classifier.weight.normal_(std=3.0, generator=rng)
    return made.eval()


@pytest.fixture
def policy() -> Policy:
    return Policy(make_criterion("confidence", 0.95), (1, 2, 4))


@pytest.fixture
def data() -> Any:
    return Dataset.from_dict({"text": TEXTS})


def names(doubts: tuple[str, ...]) -> list[str]:
    return [doubt.rsplit("[", 1)[1].rstrip("]") for doubt in doubts]


def page() -> str:
    """All checks as a page in Markdown."""
    head = (
        "# What the evaluation doubts\n\n"
        "Every evaluation and every attack checks itself and reports its doubts to the reader. A doubt ends with its "
        "name in brackets. Doubts stop nothing: the numbers are reported with the doubts beside them.\n"
    )
    sections = [
        f"## {name}\n\n**Raised if** {check.raised_if}\n\n**Why it matters.** {check.why}\n\n"
        f"**What to do.** {check.do}\n"
        for name, check in CHECKS.items()
    ]
    return "\n".join([head, *sections])


def test_the_page_is_made_from_the_checks() -> None:
    assert (DOCS / "doubts.md").read_text(encoding="utf-8") == page()


def test_every_check_is_raised_somewhere_and_every_doubt_is_a_check() -> None:
    code = "".join(
        path.read_text(encoding="utf-8") for path in SOURCE.rglob("*.py") if path.name != "doubts.py"
    )
    raised = set(re.findall(r"doubt\(\s*\"([a-z-]+)\"", code)) | {
        "weaker",
        "success-unchanged",
        "repeated-rows",
    }
    raised |= {"zero-gradients", "broken-gradients"}  # by name
    assert raised == set(CHECKS)


def test_a_sound_victim_raises_no_doubt(model: Any, policy: Policy, data: Any) -> None:
    model.train()  # an attack runs it in evaluation mode, whatever mode it is in
    assert victim_doubts(model, policy, data) == ()
    assert model.training
    model.eval()


def test_dropout_that_stays_on_is_seen(model: Any, policy: Policy, data: Any) -> None:
    hook = model.heads[0].register_forward_pre_hook(
        lambda module, inputs: (torch.dropout(inputs[0], 0.5, True), *inputs[1:])
    )
    try:
        assert names(victim_doubts(model, policy, data)) == ["dropout"]
    finally:
        hook.remove()
    draws = iter(np.tile([1, 2], 1000))
    assert names(victim_doubts(FunctionVictim(lambda text: (0, int(next(draws))), (1, 2)), None, data)) == [
        "dropout"
    ]


def test_a_function_that_tells_seconds_is_not_doubted(data: Any) -> None:
    draws = iter(range(1000))
    assert victim_doubts(FunctionVictim(lambda text: (0, float(next(draws)))), None, data) == ()


class Padded(WhiteBoxVictim):
    """Reads its padding: the attention mask is ones everywhere."""

    def _batches(self, segments: Any) -> Any:
        for rows, inputs in super()._batches(segments):
            yield rows, {**inputs, "attention_mask": torch.ones_like(inputs["attention_mask"])}


def test_batch_mates_that_reach_the_answer_are_seen(model: Any, policy: Policy, data: Any) -> None:
    assert names(victim_doubts(Padded(model, policy), None, data)) == ["batch"]


class Blind(WhiteBoxVictim):
    """Its gradients are what a test wants them to be."""

    worth = 0.0

    def differentiate(self, texts: Any, loss: Any) -> Any:
        from dataclasses import replace

        looks = super().differentiate(texts, loss)
        return [
            replace(k, gradients=tuple(torch.full_like(g, self.worth) for g in k.gradients)) for k in looks
        ]


@pytest.mark.parametrize(("worth", "name"), [(0.0, "zero-gradients"), (float("nan"), "broken-gradients")])
def test_gradients_that_say_nothing_are_seen(
    worth: float, name: str, model: Any, data: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Blind, "worth", worth)
    victim = Blind(model, Policy(make_criterion("confidence", 0.6), (1, 2, 4)))
    result = attack(victim, data, recipe="same-word", **FAST)
    assert sum(result.column("gradient_queries")) > 0
    assert names(attack_doubts(result.table, result.metadata)) == ["few", name]
    plain = attack(model, data, recipe="same-word", policy=victim.policy, **FAST)
    assert names(attack_doubts(plain.table, plain.metadata)) == ["few"]


def test_tokens_that_are_cut_away_are_counted(model: Any, policy: Policy) -> None:
    long = Dataset.from_dict(
        {"text": ["good film " * 10, "a good film"]}
    )  # 20 words and 2 special tokens, 16 read
    result = attack(model, long, recipe="random-char", policy=policy, **FAST)
    assert result.column("clean_tokens_lost").tolist() == [6, 0]
    doubts = attack_doubts(result.table, result.metadata)
    assert "1 clean texts lost 6 tokens to the maximum length [truncated]" in doubts
    rows = [attack_row(0, 2, id=i, clean_tokens_lost=0, adversarial_tokens_lost=i % 2) for i in range(100)]
    assert attack_doubts(rows) == ("50 adversarial texts lost more tokens than their originals [truncated]",)


def test_random_edits_that_do_better_are_told() -> None:
    white = as_table([attack_row(0, 1, id=i) for i in range(5)])
    floor = as_table([attack_row(0, 2, id=i) for i in range(5)])
    assert random_baseline_doubts(white, floor) == (
        "the white box reaches layer 2.00 on average, random edits 4.00 [white-below-random]",
    )
    assert random_baseline_doubts(floor, white) == random_baseline_doubts(white, white) == ()
    assert random_baseline_doubts(white, as_table([attack_row(0, 2, id=9)])) == ()


def test_attacks_that_lie_beside_each_other_are_compared(
    model: Any, data: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    policy = Policy(make_criterion("confidence", 0.6), (1, 2, 4))
    folders = {name: tmp_path / f"attack-{name}" for name in ("same-word", "random-word")}
    results = {
        name: attack(model, data, recipe=name, policy=policy, output_dir=folders[name], **FAST)
        for name in ("same-word", "random-word")
    }
    deep = results["random-word"].table
    for name, layer in (("adversarial_layer", 4), ("adversarial_exit", 2)):
        column = [[layer] * len(data)]
        deep = deep.set_column(deep.schema.get_field_index(name), name, column)
    AttackResult(deep, results["random-word"].metadata).save(folders["random-word"] / "attack.parquet")
    shallow = results["same-word"].table.set_column(
        deep.schema.get_field_index("adversarial_layer"), "adversarial_layer", [[1] * len(data)]
    )
    AttackResult(shallow, results["same-word"].metadata).save(folders["same-word"] / "attack.parquet")
    told = ("same-word reaches layer 1.00 on average, random-word 4.00 [white-below-random]",)
    assert (
        random_baseline_beside(folders["same-word"]) == random_baseline_beside(folders["random-word"]) == told
    )
    (tmp_path / "attack-other").mkdir()
    (tmp_path / "attack-other" / "attack.parquet").write_bytes(b"PAR1 cut short")
    assert (
        random_baseline_beside(folders["same-word"]) == told
    )  # an attack that took hours is recorded all the same
    assert "attack-other/attack.parquet is not a result of an attack" in caplog.text
    AttackResult(deep, {**results["random-word"].metadata, "fewest": 4}).save(
        folders["random-word"] / "attack.parquet"
    )
    assert random_baseline_beside(folders["same-word"]) == ()
    more = {
        **results["random-word"].metadata,
        "options": {**results["random-word"].metadata["options"], "words": 9},
    }
    AttackResult(deep, more).save(folders["random-word"] / "attack.parquet")
    assert random_baseline_beside(folders["same-word"]) == ()  # not the same budget


GOOD = attack_row(
    0,
    2,
    text="The dull plot isn't a state-of-the-art mess, really",
    adversarial_text="The warm plot isn't a gem mess, really",
    words=8,
    words_changed=2,
)


@pytest.mark.parametrize(
    ("changes", "options", "broken"),
    [
        ({}, {}, []),
        ({}, {"words": 2}, []),
        ({}, {"words": 1}, ["word budget"]),
        ({"words_changed": 3}, {}, ["count of words"]),
        ({"words": 7}, {}, ["count of words"]),
        ({"adversarial_text": "The warm plot isn't a gem mess really"}, {}, ["characters between words"]),
        ({"adversarial_text": "The warm plot isn't a gem mess, really so"}, {}, ["number of words"]),
        ({"adversarial_text": "One warm plot isn't a state-of-the-art mess, really"}, {}, ["stop words"]),
        ({}, {"max_edits": 19}, []),
        ({}, {"max_edits": 18}, ["edit distance"]),
        ({"adversarial_prediction": 0}, {}, []),
        ({"adversarial_prediction": 0}, {"keep": "prediction"}, ["prediction kept"]),
        ({"adversarial_prediction": 0}, {"keep": "label"}, ["label kept"]),
        ({"adversarial_prediction": 0, "label": 0}, {"keep": "label"}, []),
        (
            {"text_pair": "so be it", "adversarial_text_pair": "so be that", "words": 11, "words_changed": 3},
            {},
            ["stop words"],
        ),
        (
            {"adversarial_text": "zoning The warm plot isn't a gem mess, really", "words_changed": 3},
            {"trigger": "zoning"},
            [],
        ),
    ],
)
def test_broken_constraints_are_found(changes: Any, options: Any, broken: Any) -> None:
    row = GOOD | changes
    assert breaches(row, {"options": options}) == broken
    doubts = attack_doubts([row | {"id": i} for i in range(100)], {"options": options})
    assert doubts == tuple(
        f"100 examples break a constraint ({name}), the first has id 0 [constraints]" for name in broken
    )


def test_a_trigger_that_no_query_was_left_for_is_not_missed() -> None:
    unchanged = GOOD | {"adversarial_text": GOOD["text"], "words_changed": 0}
    assert breaches(unchanged, {"options": {"trigger": "zoning"}}) == []


def test_another_model_need_not_keep_its_prediction() -> None:
    row = GOOD | {"adversarial_prediction": 0}
    assert breaches(row, {"options": {"keep": "prediction"}, "transferred_from": None}) == []


def test_who_knows_a_victim_from_inside() -> None:
    rows = as_table([attack_row(0, 1, gradient_queries=0)])
    deep = as_table([attack_row(0, 1, gradient_queries=2)])
    assert uses_inside("same-plus", rows)
    assert uses_inside("same-word", deep)
    assert not uses_inside("slowbert", rows)
    assert not uses_inside("a2t-exit", deep)  # it is not after late exits
    assert not uses_inside("random-word", deep)


def test_meaning_and_the_least_number_of_words() -> None:
    assert breaches(GOOD, {"options": {}, "min_similarity": 0.9}) == []
    assert breaches(GOOD, {"options": {}, "min_similarity": 0.95}) == ["similarity"]
    assert breaches(GOOD | {"similarity": float("nan")}, {"options": {}, "min_similarity": 0.95}) == []
    assert breaches(GOOD, {"options": {"words": 0.1}, "fewest": 1}) == ["word budget"]
    budgets = [word_budget(0.1, 30, 3), word_budget(0.1, 31, 3), word_budget(0.1, 5, 4), word_budget(5, 9, 3)]
    assert budgets == [3, 4, 4, 5]


@settings(max_examples=200, deadline=None)
@given(
    st.text(alphabet=st.sampled_from("aZé1 _'’-\u2010.\u0301\u4e00²\n🙂"), max_size=14) | st.text(max_size=14)
)
def test_two_ways_to_find_words_agree(text: str) -> None:
    words, around = take_apart(text)
    assert tuple(words) == AttackedText.of(text).words
    assert "".join(a + b for a, b in zip(around, [*words, ""], strict=True)) == text


@settings(max_examples=50, deadline=None)
@given(st.text(alphabet="abc", max_size=7), st.text(alphabet="abc", max_size=7))
def test_two_edit_distances_agree(one: str, other: str) -> None:
    assert distance(one, other) == edit_distance(one, other)


@pytest.mark.parametrize("recipe", ["same-word", "same-mixed", "same-plus", "random"])
def test_our_attacks_keep_their_constraints(recipe: str, model: Any, data: Any) -> None:
    policy = Policy(make_criterion("confidence", 0.6), (1, 2, 4))
    options = {**FAST, "max_changed_words": 2, "preserve": "prediction", "max_edits": 9}
    result = attack(model, data, recipe=recipe, policy=policy, **options)
    assert names(attack_doubts(result.table, result.metadata)) == ["few"]
    broken = result.table.set_column(
        result.table.schema.get_field_index("adversarial_prediction"),
        "adversarial_prediction",
        [[1 - row["clean_prediction"] for row in result.rows]],
    )
    assert "constraints" in names(attack_doubts(broken, result.metadata))


def test_a_rule_that_does_not_look_is_told() -> None:
    rows = [attack_row(1, 1, id=i, adversarial_text="a good film") for i in range(100)]
    assert attack_doubts(rows) == ("all texts, clean and adversarial, leave at layer 2 [one-exit]",)
    assert attack_doubts([*rows[1:], attack_row(1, 2, id=0)]) == ()


def test_an_older_table_is_read_too() -> None:
    assert attack_doubts(as_table([attack_row(0, 2, id=i) for i in range(100)])) == ()
