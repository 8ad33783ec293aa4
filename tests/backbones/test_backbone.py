"""The driver does what the library's own forward does, for every architecture."""

from __future__ import annotations

import pytest
import torch
import transformers as hf
from torch import Tensor

from offramp._core.errors import ModelError
from offramp.backbones import SPECS, Backbone, BackboneSpec, BackboneState, Context, check_parity, spec_of
from offramp.backbones.backbone import random_inputs
from tests.backbones.backbone_zoo import BERT_LIKE, ZOO, build, make, with_attentions

every_model = pytest.mark.parametrize("name", ZOO)
every_attention = pytest.mark.parametrize(("name", "attention"), with_attentions())


def run(backbone: Backbone, state: BackboneState, start: int = 1) -> Tensor:
    """The hidden state after the last layer and the final norm."""
    for i in range(start, backbone.depth + 1):
        state = backbone.layer(i, state)
    return state.hidden if backbone.final_norm is None else backbone.final_norm(state.hidden)


def closeness(a: Tensor, b: Tensor) -> float:
    return float((a - b).detach().abs().max())


def test_zoo_covers_every_spec() -> None:
    assert {config().model_type for config in ZOO.values()} == set(SPECS)


@every_attention
def test_parity_of_every_layer(name: str, attention: str) -> None:
    model = make(name, attention)
    assert model.config._attn_implementation == attention
    assert check_parity(model) < 1e-5


@every_model
@pytest.mark.parametrize("padding", ["right", "left"])
def test_token_types(name: str, padding: str) -> None:
    model = make(name)
    backbone, inputs = Backbone(model), random_inputs(model, padding)
    types = (torch.arange(12) > 6).long().expand(4, 12)
    knows = SPECS[model.config.model_type].token_types and model.config.type_vocab_size > 1
    expected = model(**inputs, **({"token_type_ids": types} if knows else {})).last_hidden_state
    result = run(backbone, backbone.embed({**inputs, "token_type_ids": types}))
    assert closeness(result, expected) < 1e-5
    plain = run(backbone, backbone.embed(inputs))
    assert (closeness(result, plain) > 1e-3) == knows


@every_model
def test_no_mask_is_a_mask_of_ones(name: str) -> None:
    model = make(name)
    backbone, ids = Backbone(model), random_inputs(model, "none")["input_ids"]
    state = backbone.embed({"input_ids": ids})
    assert torch.equal(state.attention_mask, torch.ones_like(ids))
    assert closeness(run(backbone, state), model(ids).last_hidden_state) < 1e-5


@every_attention
@pytest.mark.parametrize("padding", ["right", "left"])
def test_taken_rows_run_as_among_all(name: str, attention: str, padding: str) -> None:
    model = make(name, attention)
    backbone = Backbone(model)
    state = backbone.layer(1, backbone.embed(random_inputs(model, padding)))
    whole = run(backbone, state, start=2)
    for rows in ([2, 0, 3], [0], [3, 1]):
        taken = state.take(torch.tensor(rows))
        assert taken.hidden.shape[0] == taken.attention_mask.shape[0] == len(rows)
        assert closeness(run(backbone, taken, start=2), whole[rows]) < 1e-5
    twice = state.take(torch.tensor([3, 2, 0])).take(torch.tensor([1]))
    assert closeness(run(backbone, twice, start=2), whole[[2]]) < 1e-5


@pytest.mark.parametrize(
    ("name", "attention"), [(n, a) for n, a in with_attentions() if n in ("bert", "deberta-v2", "modernbert")]
)
def test_joined_batches_run_as_each_alone(name: str, attention: str) -> None:
    # Without padding the library makes no mask at all: joined, the padding of the other batch must stay hidden.
    model = make(name, attention)
    backbone = Backbone(model)
    full, padded = (backbone.embed(random_inputs(model, padding)) for padding in ("none", "right"))
    alone = torch.cat([run(backbone, full), run(backbone, padded)])
    visible = torch.cat([full.attention_mask, padded.attention_mask]).bool()
    assert closeness(run(backbone, full.join([padded]))[visible], alone[visible]) < 1e-5
    turned = run(backbone, padded.join([full])).roll(len(full.hidden), dims=0)
    assert closeness(turned[visible], alone[visible]) < 1e-5
    assert full.join([full]).rows.keys() == full.rows.keys()


@every_model
def test_context_lies_where_it_belongs(name: str) -> None:
    model = make(name)
    state = Backbone(model).embed(random_inputs(model, "right", batch=3))
    assert all(value is None or value.shape[0] == 3 for value in state.rows.values())
    assert all(value is None or value.shape[0] != 3 for value in state.shared.values())


@every_model
def test_layer_leaves_the_given_state_alone(name: str) -> None:
    model = make(name).train()
    backbone = Backbone(model)
    state = backbone.embed(random_inputs(model, "right"))
    tensors = {"hidden": state.hidden, "mask": state.attention_mask, **state.rows, **state.shared}
    before = {key: value.clone() for key, value in tensors.items() if value is not None}
    after = backbone.layer(1, state)
    assert after is not state
    assert closeness(after.hidden, state.hidden) > 1e-3
    assert all(torch.equal(tensors[key], value) for key, value in before.items())


@every_model
def test_detach_cuts_all_that_lies_below(name: str) -> None:
    model = make(name).train()
    backbone = Backbone(model)
    state = backbone.layer(1, backbone.embed(random_inputs(model, "right"))).detach()
    run(backbone, state, start=2).sum().backward()
    above = {id(p) for layer in backbone.layers[1:] for p in layer.parameters()}
    if backbone.final_norm is not None:
        above |= {id(p) for p in backbone.final_norm.parameters()}
    reached = {key for key, p in model.named_parameters() if p.grad is not None}
    assert reached
    assert reached <= {key for key, p in model.named_parameters() if id(p) in above}


@pytest.mark.parametrize("name", ["mpnet", "deberta", "deberta-v2", "deberta-v3"])
def test_without_detach_what_layers_share_gets_gradient(name: str) -> None:
    model = make(name)
    backbone = Backbone(model)
    state = backbone.embed(random_inputs(model, "right"))
    run(backbone, backbone.layer(1, state), start=2).square().sum().backward()
    shared = [p for key, p in model.named_parameters() if "rel_embeddings" in key or "relative_att" in key]
    assert shared
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in shared)


@every_model
@pytest.mark.parametrize("padding", ["right", "left"])
def test_table_rows_as_inputs_embeds_give_the_same(name: str, padding: str) -> None:
    model = make(name)
    backbone, inputs = Backbone(model), random_inputs(model, padding)
    values = backbone.word_embeddings(inputs["input_ids"]).detach().requires_grad_()
    result = run(backbone, backbone.embed({**inputs, "inputs_embeds": values}))
    assert closeness(result, model(**inputs).last_hidden_state) < 1e-5
    (gradient,) = torch.autograd.grad(result[:, 0].square().sum(), values)
    assert gradient[inputs["attention_mask"].bool()].abs().max() > 0


@every_model
def test_inputs_embeds_win_over_ids(name: str) -> None:
    model = make(name)
    backbone, inputs = Backbone(model), random_inputs(model, "none")
    values = backbone.word_embeddings(inputs["input_ids"].flip(1))
    result = run(backbone, backbone.embed({**inputs, "inputs_embeds": values}))
    flipped = model(inputs["input_ids"].flip(1)).last_hidden_state
    assert closeness(result, flipped) < 1e-5


@every_attention
def test_train_mode_draws_the_same_dropout(name: str, attention: str) -> None:
    model = make(name, attention).train()
    backbone, inputs = Backbone(model), random_inputs(model, "right")
    with torch.random.fork_rng():
        torch.manual_seed(1)
        expected = model(**inputs).last_hidden_state
        torch.manual_seed(1)
        result = run(backbone, backbone.embed(inputs))
    assert closeness(result, expected) < 1e-5
    assert closeness(expected, model.eval()(**inputs).last_hidden_state) > 1e-3


@every_model
def test_gradients_are_the_library_s(name: str) -> None:
    model = make(name)
    backbone, inputs = Backbone(model), random_inputs(model, "right")
    used = [p for key, p in model.named_parameters() if "pooler" not in key and p.requires_grad]
    expected = torch.autograd.grad(model(**inputs).last_hidden_state.square().mean(), used, allow_unused=True)
    result = torch.autograd.grad(
        run(backbone, backbone.embed(inputs)).square().mean(), used, allow_unused=True
    )
    for a, b in zip(expected, result, strict=True):
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


# The library's own forward of DeBERTa v1 raises under bfloat16 autocast (it fills with float32's minimum).
@pytest.mark.parametrize(
    ("name", "attention"), [m for m in with_attentions() if m[0] not in ("deberta", "deberta-absolute")]
)
def test_bfloat16_autocast(name: str, attention: str) -> None:
    model = make(name, attention)
    backbone, inputs = Backbone(model), random_inputs(model, "right")
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected = model(**inputs).last_hidden_state
        result = run(backbone, backbone.embed(inputs))
    assert result.dtype == expected.dtype
    assert closeness(result, expected) < 1e-5


def test_albert_layers_repeat_as_its_groups_say() -> None:
    backbone = Backbone(make("albert-groups"))
    assert backbone.depth == len(backbone.layers) == 4
    first, second, third, fourth = backbone.layers
    assert first is second
    assert third is fourth
    assert second is not third


@pytest.mark.parametrize(
    ("name", "pooler", "norm"),
    [
        ("bert", "pooler.dense", None),
        ("albert", "pooler", None),
        ("distilbert", None, None),
        ("deberta-v3", None, None),
        ("modernbert", None, "final_norm"),
        ("xlm-roberta-xl", "pooler.dense", "encoder.LayerNorm"),
        ("nomic_bert", None, None),  # made without a pooler, although the library has one
    ],
)
def test_parts(name: str, pooler: str | None, norm: str | None) -> None:
    model = make(name)
    backbone = Backbone(model)
    assert backbone.pooler is (model.get_submodule(pooler) if pooler else None)
    assert backbone.final_norm is (model.get_submodule(norm) if norm else None)
    assert backbone.word_embeddings is model.get_input_embeddings()
    assert backbone.word_embeddings.num_embeddings == 60


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("xlm-roberta-xl", BackboneSpec(positions_from_ids=True)),  # no final norm
        ("mpnet", BackboneSpec(token_types=False, positions_from_ids=True)),  # no position bias
        ("electra", BackboneSpec(pooler=None, layers="encoder.layer", projection=None)),
    ],
)
def test_parity_finds_a_wrong_description(
    name: str, wrong: BackboneSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make(name).train()
    monkeypatch.setitem(SPECS, name, wrong)
    if name == "electra":  # the widths differ, so it does not even run
        with pytest.raises(RuntimeError):
            check_parity(model)
    else:
        assert check_parity(model) > 1e-2
    assert model.training  # put back, also after an error


def test_a_new_architecture_is_one_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(hf.SplinterConfig(**BERT_LIKE))
    with pytest.raises(ModelError, match=r"unknown encoder architecture 'splinter'") as caught:
        Backbone(model)
    for hint in ("SPECS['splinter'] = BackboneSpec(", "check_parity(model)", "layers='encoder.layer'"):
        assert hint in str(caught.value)
    monkeypatch.setitem(SPECS, "splinter", BackboneSpec(layers="encoder.layers"))
    with pytest.raises(ModelError, match=r"has no module 'encoder.layers': correct the paths in SPECS"):
        Backbone(model)
    monkeypatch.setitem(SPECS, "splinter", BackboneSpec(pooler=None))
    assert check_parity(model) < 1e-5


@pytest.mark.parametrize("path", ["encoder", "embeddings.dropout"])
def test_layers_that_are_none(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SPECS, "bert", BackboneSpec(layers=path))
    with pytest.raises(ModelError, match=r"expected 3 layers as the config says, got [01] modules: correct"):
        Backbone(make("bert"))


def test_near_miss_is_suggested() -> None:
    with pytest.raises(ModelError, match=r"'roc_bert'. Did you mean 'roberta'"):
        spec_of(hf.RoCBertConfig())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (hf.BertConfig(is_decoder=True), "got 'bert' as a decoder"),
        (hf.GPT2Config(), "got 'gpt2', a decoder that generates text"),
        (hf.T5Config(), "got 't5', an encoder-decoder"),
        (hf.BartConfig(), "got 'bart', an encoder-decoder"),
    ],
)
def test_only_encoders(config: hf.PreTrainedConfig, message: str) -> None:
    config.num_hidden_layers = 1
    with torch.device("meta"):
        model = hf.AutoModel.from_config(config)
    with pytest.raises(ModelError, match=message):
        Backbone(model)


def test_model_with_a_head() -> None:
    model = hf.BertForSequenceClassification(ZOO["bert"]())
    with pytest.raises(ModelError, match=r"got BertForSequenceClassification with a head: pass model\.base_"):
        Backbone(model)
    assert Backbone(model.base_model).depth == 3


@pytest.mark.parametrize("i", [0, 4, -1])
def test_layers_count_from_one(i: int) -> None:
    backbone = Backbone(make("bert"))
    state = backbone.embed(random_inputs(backbone.model, "none"))
    with pytest.raises(ModelError, match=rf"expected a layer in 1\.\.3 \(layers count from 1\), got {i}"):
        backbone.layer(i, state)


def test_inputs_are_checked() -> None:
    backbone = Backbone(make("bert"))
    ids = torch.ones(2, 5, dtype=torch.long)
    with pytest.raises(ModelError, match=r"expected 'input_ids' .*, got \['inputs_embeds'\]"):
        backbone.embed({"inputs_embeds": torch.zeros(2, 5, 32)})
    with pytest.raises(ModelError, match=r"'attention_mask' to have .* \(2, 5\), got \(2, 4\)"):
        backbone.embed({"input_ids": ids, "attention_mask": ids[:, :4]})
    with pytest.raises(ModelError, match=r"'inputs_embeds' to have .* \(2, 5\), got \(1, 5, 32\)"):
        backbone.embed({"input_ids": ids, "inputs_embeds": torch.zeros(1, 5, 32)})


def test_attention_whose_masks_cannot_be_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    class BlockMask:  # what flex attention makes of a mask
        pass

    spec = BackboneSpec(context=lambda model, inputs, embedded: Context({"attention_mask": BlockMask()}))  # type: ignore[dict-item]
    monkeypatch.setitem(SPECS, "bert", spec)
    model = make("bert")
    with pytest.raises(ModelError, match=r"a BlockMask, which cannot be cut .* attn_implementation='sdpa'"):
        Backbone(model).embed(random_inputs(model, "right"))
