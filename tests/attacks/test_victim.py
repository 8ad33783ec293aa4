"""The door to the model: right answers, right counts, fresh gradients, and nothing left behind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from offramp._core.errors import ConfigError, CriterionError, DataError, ModelError
from offramp.attacks.objectives.same import Same
from offramp.attacks.text.attacked_text import AttackedText
from offramp.attacks.victims.white_box import WhiteBoxVictim
from offramp.engine.policy import Policy
from offramp.inference.tracing import trace
from tests.attacks.asking import gradients, query

FAMILIES = ("bert", "roberta", "albert")


def texts_of(data: Any) -> list[AttackedText]:
    pairs = data["text_pair"] if "text_pair" in data.column_names else [None] * len(data)
    return [AttackedText.of(a, b) for a, b in zip(data["text"], pairs, strict=True)]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("cascade", [False, True])
@pytest.mark.parametrize("temperatures", [None, (0.5, 2.0, 1.5)])
@pytest.mark.parametrize("data_name", ["sentences", "pairs"])
def test_answers_are_what_the_policy_decides_on_the_trace(
    family: str,
    cascade: bool,
    temperatures: Any,
    data_name: str,
    make_model: Any,
    policy_for: Any,
    request: Any,
) -> None:
    model, data = make_model(family, cascade=cascade, labels=3), request.getfixturevalue(data_name)
    policy = Policy(policy_for(model).criterion, model.exit_layers, temperatures)
    reference = trace(model, data)
    decisions = policy.decide(reference)
    answers = query(WhiteBoxVictim(model, policy, batch_size=3), texts_of(data))
    assert [a.exit for a in answers] == decisions.exit.tolist()
    assert [a.layer for a in answers] == decisions.layer.tolist()
    assert [a.prediction for a in answers] == decisions.prediction.tolist()
    assert [a.spent for a in answers] == decisions.flops.tolist()
    assert [a.full_spent for a in answers] == reference.full_flops.tolist()
    np.testing.assert_allclose(
        np.stack([a.logits for a in answers]),
        reference.scaled(policy.temperatures).logits,
        rtol=1e-4,
        atol=1e-4,
    )
    assert all(a.last == (a.exit == 2) for a in answers)


@pytest.mark.parametrize(("name", "threshold"), [("entropy", None), ("patience", 1), ("learned", 0.5)])
def test_other_criteria(name: str, threshold: Any, make_model: Any, policy_for: Any, sentences: Any) -> None:
    model = make_model(gates=name == "learned")
    policy = policy_for(model, name, threshold)
    decisions = policy.decide(trace(model, sentences))
    assert [
        a.exit for a in query(WhiteBoxVictim(model, policy), texts_of(sentences))
    ] == decisions.exit.tolist()


def test_each_text_is_run_once_an_account(victim: WhiteBoxVictim, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    forward = victim.model.forward
    monkeypatch.setattr(victim.model, "forward", lambda **i: seen.append(len(i["input_ids"])) or forward(**i))
    own = victim.budget()
    a, b, c = (AttackedText.of(t) for t in ("good film", "bad film", "a plot"))
    changed = b.replace(0, "good")  # another example that has come to read like the first
    answers = query(victim, [a, b, a, changed], own)
    assert answers[0].layer == answers[2].layer == answers[3].layer
    assert (own.forward, seen) == (2, [2])
    query(victim, [b, c, a], own)
    assert (own.forward, seen) == (3, [2, 1])
    mine, yours = victim.budget(), victim.budget()
    replies = victim.query_many([(mine, [a, b]), (yours, [a])])
    assert [len(r) for r in replies] == [2, 1]
    assert (mine.forward, yours.forward, own.forward) == (2, 1, 3)
    assert seen == [2, 1, 3]  # in one batch
    assert mine.seconds > yours.seconds > 0
    assert query(victim, [], own) == []


def test_memory_is_bounded(victim: WhiteBoxVictim, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("offramp.attacks.victims.base.REMEMBERED", 2)
    texts, own = [AttackedText.of(w) for w in ("good", "bad", "film", "plot")], victim.budget()
    assert len(query(victim, texts, own)) == 4
    assert list(own.answers) == [("film",), ("plot",)]
    assert len(query(victim, texts, own)) == 4
    assert own.forward == 4 + 2


def test_budgets_cut_what_is_asked(make_model: Any, policy_for: Any) -> None:
    model = make_model()
    victim = WhiteBoxVictim(model, policy_for(model), max_forward=3, max_gradient=2)
    texts = [AttackedText.of(w) for w in ("good", "bad", "good", "film", "plot", "good")]
    own = victim.budget()
    assert len(query(victim, texts, own)) == 4  # three different ones, and what is known is free
    assert own.forward == 3
    assert len(query(victim, texts[:3], own)) == 3
    assert len(query(victim, texts[4:], own)) == 0
    assert len(gradients(victim, texts[:1], Same().loss, own)) == 1
    assert len(gradients(victim, texts, Same().loss, own)) == 1
    assert gradients(victim, texts, Same().loss, own) == []
    assert (own.forward, own.gradient) == (3, 2)


def test_queries_are_padded_to_their_own_longest(
    victim: WhiteBoxVictim, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes: list[tuple[int, ...]] = []
    forward = victim.model.forward
    monkeypatch.setattr(
        victim.model, "forward", lambda **i: shapes.append(tuple(i["input_ids"].shape)) or forward(**i)
    )
    victim.batch_size = 2
    query(victim, [AttackedText.of(" ".join(["film"] * n)) for n in (1, 9, 2, 8)])
    assert shapes == [(2, 9 + 2), (2, 2 + 2)]  # sorted by length; the maximum length is 48


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("cascade", [False, True])
def test_gradients_are_those_of_the_loss(
    family: str, cascade: bool, make_model: Any, policy_for: Any
) -> None:
    model = make_model(family, cascade=cascade)
    victim = WhiteBoxVictim(model, policy_for(model))
    text = AttackedText.of("A dull, boring mess")
    smooth = Same(0.0).loss  # L_unif alone: targets jump where two classes are near
    (look,) = gradients(victim, [text], smooth)
    tables = model.embedding_tables()
    assert [g.shape for g in look.gradients] == [(len(look.ids), t.embedding_dim) for t in tables]
    # By finite differences, in the model's own forward from embeddings, along a random direction.
    ids = torch.tensor([look.ids])
    embeds = [t(ids).detach() for t in tables]
    exit = torch.tensor([query(victim, [text])[0].exit])
    direction = [torch.randn(e.shape, generator=torch.Generator().manual_seed(0)) for e in embeds]

    def loss(step: float) -> float:
        with torch.no_grad():
            moved = [e + step * d for e, d in zip(embeds, direction, strict=True)]
            logits = model(input_ids=ids, inputs_embeds=moved).exit_logits
            return float(smooth(logits, exit))

    slope = (loss(3e-4) - loss(-3e-4)) / 6e-4
    inner = sum(float((g * d[0]).sum()) for g, d in zip(look.gradients, direction, strict=True))
    assert inner == pytest.approx(slope, rel=0.02, abs=0.02)


def test_gradients_are_fresh_and_alone(victim: WhiteBoxVictim) -> None:
    a, b = AttackedText.of("good film"), AttackedText.of("a very long and boring plot , dull acting")
    own = victim.budget()
    (first,) = gradients(victim, [b], Same().loss, own)
    gradients(victim, [a], Same().loss, own)
    (again,) = gradients(victim, [b], Same().loss, own)
    _, beside = gradients(victim, [a, b], Same().loss, own)
    torch.testing.assert_close(first.gradients[0], again.gradients[0], rtol=0, atol=0)
    torch.testing.assert_close(first.gradients[0], beside.gradients[0], rtol=1e-3, atol=1e-4)
    assert own.gradient == 5
    assert own.forward == 0


def test_temperatures_enter_the_gradient(make_model: Any, policy_for: Any) -> None:
    model, text = make_model(), AttackedText.of("good film")
    policy = policy_for(model, "patience", 2)  # exits do not depend on temperatures
    seen = []

    def spy(logits: Any, exit: Any) -> Any:
        seen.append(logits.detach())
        return Same().loss(logits, exit)

    gradients(WhiteBoxVictim(model, policy), [text], spy)
    warm = Policy(policy.criterion, policy.exit_layers, (2.0, 1.0, 0.5))
    gradients(WhiteBoxVictim(model, warm), [text], spy)
    torch.testing.assert_close(seen[0] / torch.tensor([2.0, 1.0, 0.5])[None, :, None], seen[1])


def test_nothing_is_left_behind(make_model: Any, policy_for: Any) -> None:
    model = make_model(fresh="train mode")
    policy = policy_for(model)
    model.train()
    model.heads[0].eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    modes = [m.training for m in model.modules()]
    victim = WhiteBoxVictim(model, policy)
    with torch.no_grad():  # whatever the caller's mode
        one = gradients(victim, [AttackedText.of("good film")], Same().loss)[0].gradients[0]
    with torch.inference_mode():
        two = gradients(victim, [AttackedText.of("good film")], Same().loss)[0].gradients[0]
    assert torch.equal(one, two)  # evaluation mode: no dropout
    assert one.abs().sum() > 0
    query(victim, [AttackedText.of("good film")])
    with pytest.raises(ZeroDivisionError):
        gradients(victim, [AttackedText.of("bad film")], lambda z, e: 1 / 0)  # type: ignore[arg-type,return-value]
    assert [m.training for m in model.modules()] == modes
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


@pytest.mark.parametrize("family", FAMILIES)
def test_words_beyond_the_maximum_length_have_no_tokens(
    family: str, make_model: Any, policy_for: Any
) -> None:
    model = make_model(family)
    text = AttackedText.of("good film " * 60, "bad film " * 60)
    (look,) = WhiteBoxVictim(model, policy_for(model)).inspect([text])
    assert len(look.ids) == 48
    kept = [i for i, tokens in enumerate(look.tokens) if tokens]
    assert 10 < len(kept) < 48
    assert {text.spans[i].segment for i in kept} == {0, 1}  # both sides are cut, none is lost
    decoded = [model.tokenizer.decode([look.ids[look.tokens[i][0]]]).strip() for i in kept]
    assert all(text.words[i].startswith(d.replace("##", "")) for i, d in zip(kept, decoded, strict=True))


def test_odd_characters_are_read_in_place(victim: WhiteBoxVictim) -> None:
    text = AttackedText.of("good\0film", None)
    (look,) = victim.inspect([text])
    assert look.tokens == [(1,), (2, 3, 4, 5)]  # BERT drops the NUL's stand-in: good ##f ##i ##l ##m
    assert len(query(victim, [text, AttackedText.of("😀 \u200d !?")])) == 2


def test_misuse(make_model: Any, policy_for: Any) -> None:
    model = make_model()
    policy = policy_for(model)
    with pytest.raises(CriterionError, match="the policy is for exits"):
        WhiteBoxVictim(model, Policy(policy.criterion, (1, 2, 3)))
    with pytest.raises(ConfigError, match="batch_size must be a whole number of at least 1, got 0"):
        WhiteBoxVictim(model, policy, batch_size=0)
    with pytest.raises(ConfigError, match="max_gradient must be at least 1, got 0"):
        WhiteBoxVictim(model, policy, max_gradient=0)
    with pytest.raises(DataError, match="with and without a text_pair"):
        query(WhiteBoxVictim(model, policy), [AttackedText.of("a"), AttackedText.of("a", "b")])


def test_a_tokenizer_is_needed(make_model: Any, policy_for: Callable[..., Policy]) -> None:
    model = make_model(fresh="no tokenizer")
    policy = policy_for(model)
    model.tokenizer = None
    with pytest.raises(ModelError, match="no tokenizer"):
        WhiteBoxVictim(model, policy)
