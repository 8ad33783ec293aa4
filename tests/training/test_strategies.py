"""Which loss reaches which parameter, proved from real gradients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from offramp._core.errors import ConfigError
from offramp.bench.training_steps import peak_activation_bytes
from offramp.model import MultiExitForSequenceClassification, MultiModelForSequenceClassification
from offramp.model.heads import exit_loss
from offramp.training.audit import gradient_reach, refuse_shared_layers
from offramp.training.strategies import (
    STRATEGIES,
    Joint,
    MultiModel,
    Sweet,
    make_strategy,
    read_options,
)
from offramp.training.strategies.losses import gate_loss

EXITS = [1, 2, 4]


@pytest.fixture
def model(tiny_encoder: Path) -> Any:
    return MultiExitForSequenceClassification.from_backbone(str(tiny_encoder), EXITS, gates=True).eval()


def inputs_of(model: Any, rows: int = 4, length: int = 12) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    ids = torch.randint(5, 40, (rows, length), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[0, 8:] = 0
    return {"input_ids": ids, "attention_mask": mask}, torch.arange(rows) % 2


def gradients(model: Any) -> dict[str, torch.Tensor]:
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


def layer_of(name: str) -> int | None:
    return int(name.split("layer.")[1].split(".")[0]) + 1 if "encoder.layer." in name else None


def test_sweet_updates_each_layer_from_one_exit(model: Any) -> None:
    for name, exits in gradient_reach(model, Sweet()).items():
        layer = layer_of(name)
        if layer is not None:
            owner = next(k for k, last in enumerate(EXITS) if layer <= last)
            # The key bias shifts all attention scores of a query alike: softmax does not see it.
            assert exits == (owner,) or name.endswith("key.bias"), name
        elif "heads." in name:
            assert exits == (int(name.split("heads.")[1][0]),), name
        else:  # embeddings
            assert set(exits) <= {0}, name


def test_joint_updates_each_layer_from_all_exits_above(model: Any) -> None:
    for name, exits in gradient_reach(model, Joint()).items():
        layer = layer_of(name)
        if layer is not None and not name.endswith("key.bias"):
            assert exits == tuple(k for k, last in enumerate(EXITS) if layer <= last), name
        elif "embeddings" in name:
            assert exits in ((0, 1, 2), ()), name


def test_audit_leaves_gradients_and_mode_as_they_were(model: Any) -> None:
    model.train()
    inputs, labels = inputs_of(model)
    Joint().step(model, inputs, labels, torch.Tensor.backward)
    before = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    gradient_reach(model, Sweet())
    assert model.training
    after = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    assert before.keys() == after.keys()
    assert all(torch.equal(before[n], after[n]) for n in before)


def test_joint_is_the_gradient_of_the_summed_loss(model: Any) -> None:
    inputs, labels = inputs_of(model)
    total = Joint().step(model, inputs, labels, torch.Tensor.backward)
    ours = gradients(model)
    output = model(**inputs)
    right = (output.exit_logits.detach().argmax(-1) == labels[:, None]).float()
    loss = sum(F.cross_entropy(output.exit_logits[:, k], labels) for k in range(3))
    loss = loss + sum(F.mse_loss(output.gates[:, k], right[:, k]) for k in range(3))
    loss.backward()
    plain = gradients(model)
    assert torch.allclose(total, loss.detach())
    assert all(torch.allclose(ours[n], plain[n], atol=1e-6) for n in plain)


def test_sweet_is_the_gradient_of_each_exits_own_loss(model: Any) -> None:
    """Against the plain definition: take exit k's gradient of the joint graph, keep the layers that are its own."""
    inputs, labels = inputs_of(model)
    total = Sweet().step(model, inputs, labels, torch.Tensor.backward)
    ours = gradients(model)
    expected_total = 0.0
    for k in range(3):
        output = model(**inputs)
        right = (output.exit_logits[:, k].detach().argmax(-1) == labels).float()
        loss = F.cross_entropy(output.exit_logits[:, k], labels) + F.mse_loss(output.gates[:, k], right)
        expected_total += float(loss.detach())
        loss.backward()
        for name, gradient in gradients(model).items():
            layer = layer_of(name)
            own = EXITS[k - 1] < layer <= EXITS[k] if k and layer else (layer or 1) <= EXITS[0] and k == 0
            if "heads." in name or own:
                if "heads." in name and f"heads.{k}." not in name:
                    continue
                assert torch.allclose(ours[name], gradient, atol=1e-6), name
    assert float(total) == pytest.approx(expected_total, abs=1e-5)


def test_linear_weights_by_hand() -> None:
    assert Joint("linear").exit_weights(3) == pytest.approx([0.5, 1.0, 1.5])
    assert Joint().exit_weights(3) == [1, 1, 1]


def test_gate_loss_by_hand() -> None:
    logits = torch.tensor([[2.0, 0.0], [2.0, 0.0]])
    gate = torch.zeros(2)  # sigmoid .5; the first answer is right, the second wrong
    assert float(gate_loss(gate, logits, torch.tensor([0, 1]))) == pytest.approx(0.25)
    assert float(gate_loss(None, logits, torch.tensor([0, 1]))) == 0.0
    assert float(exit_loss(torch.tensor([[1.0], [2.0]]), torch.tensor([0.0, 4.0]))) == pytest.approx(2.5)


def test_sweet_keeps_the_activations_of_one_segment(tiny_encoder: Path) -> None:
    model = MultiExitForSequenceClassification.from_backbone(str(tiny_encoder), [1, 2, 3, 4])
    inputs, labels = inputs_of(model, rows=8, length=32)
    joint = peak_activation_bytes(model, Joint(), inputs, labels)
    sweet = peak_activation_bytes(model, Sweet(), inputs, labels)
    assert 0.2 < sweet / joint < 0.45  # a quarter of the layers, and the embeddings in the first segment


def test_memory_ledger_counts_a_known_graph() -> None:
    class Square:
        exit_layers = (1,)

        def parameters(self) -> list[torch.Tensor]:
            return []

        def train(self) -> None: ...
        def zero_grad(self, set_to_none: bool) -> None: ...

    class Step:
        def step(self, model: object, inputs: Any, labels: Any, backward: Any) -> None:
            x = torch.ones(1000, requires_grad=True)
            backward(
                (x.exp() * 1.0).sum()
            )  # exp keeps its result: 4,000 bytes, and nothing else keeps anything

    assert peak_activation_bytes(Square(), Step(), {}, torch.zeros(1)) == 4000  # type: ignore[arg-type]


def test_sweet_refuses_layers_that_several_exits_share(tmp_path: Path, tiny_tokenizer: Any) -> None:
    from transformers import AlbertConfig, AlbertModel

    AlbertModel(
        AlbertConfig(
            vocab_size=len(tiny_tokenizer),
            embedding_size=16,
            hidden_size=32,
            num_hidden_layers=4,
            num_attention_heads=4,
            intermediate_size=64,
            max_position_embeddings=64,
        )
    ).save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    albert = MultiExitForSequenceClassification.from_backbone(str(tmp_path), [1, 4])
    with pytest.raises(ConfigError, match="reuses layers.*exits at layers \\[1, 4\\]"):
        refuse_shared_layers(albert, Sweet())
    refuse_shared_layers(albert, Joint())
    refuse_shared_layers(MultiExitForSequenceClassification.from_backbone(str(tmp_path), [4]), Sweet())


def test_relative_positions_belong_to_the_first_exit_under_sweet(tmp_path: Path, tiny_tokenizer: Any) -> None:
    from transformers import DebertaV2Config, DebertaV2Model

    DebertaV2Model(
        DebertaV2Config(
            vocab_size=len(tiny_tokenizer),
            hidden_size=32,
            num_hidden_layers=3,
            num_attention_heads=4,
            intermediate_size=64,
            max_position_embeddings=64,
            relative_attention=True,
            position_buckets=8,
            pos_att_type=["p2c", "c2p"],
            norm_rel_ebd="layer_norm",
            share_att_key=True,
            type_vocab_size=0,
        )
    ).save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    deberta = MultiExitForSequenceClassification.from_backbone(str(tmp_path), [1, 3])
    sweet, joint = gradient_reach(deberta, Sweet()), gradient_reach(deberta, Joint())
    assert sweet["backbone.encoder.rel_embeddings.weight"] == (0,)
    assert joint["backbone.encoder.rel_embeddings.weight"] == (0, 1)
    refuse_shared_layers(deberta, Sweet())


def test_members_of_a_cascade_are_trained_by_their_own_exit(tiny_encoder: Path) -> None:
    cascade = MultiModelForSequenceClassification.from_backbone(str(tiny_encoder), [1, 3])
    for name, exits in gradient_reach(cascade, MultiModel()).items():
        assert set(exits) <= {int(name.split("members.")[1][0])}, name


def test_unknown_names_and_options() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'sweet'"):
        make_strategy("sweat")
    with pytest.raises(ConfigError, match=r"option of strategy 'joint' 'weigths'\. Did you mean 'weights'"):
        make_strategy("joint", weigths="linear")
    for wrong in ("hot", None, True, "nan"):
        with pytest.raises(ConfigError, match="temperature of self_distill must be a number"):
            make_strategy("self_distill", temperature=wrong)
    assert read_options("self_distill", {"temperature": "2", "weights": "linear"}) == {
        "temperature": 2.0,  # as a command line has it
        "weights": "linear",
    }
    with pytest.raises(ConfigError, match="Did you mean 'linear'"):
        make_strategy("joint", weights="linera")
    assert all(make_strategy(name).name == name for name in STRATEGIES)
