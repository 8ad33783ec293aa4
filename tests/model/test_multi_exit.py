"""The multi-exit model and the cascade: construction, exactness of save and load, errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

from offramp._core.errors import ConfigError, DataError, ModelError, OfframpError
from offramp.model import (
    MultiExitForSequenceClassification,
    MultiModelForSequenceClassification,
    read_model,
)
from offramp.model.encoding import TextEncoder

CLASSES = [MultiExitForSequenceClassification, MultiModelForSequenceClassification]


def batch(model: Any) -> dict[str, torch.Tensor]:
    inputs = model.tokenizer(["the film is very good", "dull"], padding=True, return_tensors="pt")
    return {k: inputs[k] for k in ("input_ids", "attention_mask", "token_type_ids")}


def test_load_puts_the_model_where_it_is_asked_to(tiny_encoder: Path, tmp_path: Path) -> None:
    model = MultiExitForSequenceClassification.from_backbone(str(tiny_encoder), [1, 4], labels=["no", "yes"])
    model.save_pretrained(tmp_path)
    assert read_model(tmp_path).device.type == "cpu"
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    assert read_model(tmp_path, device="auto").device.type == (accelerator.type if accelerator else "cpu")
    for unknown in ("nonsense", "cuda:99"):
        with pytest.raises(ConfigError, match=f"no device '{unknown}' here: "):
            read_model(tmp_path, device=unknown)


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("gates", [False, True])
@pytest.mark.parametrize("pooling", ["mean", "first", "pooler"])
def test_save_and_load_is_exact_to_the_bit(
    cls: Any, gates: bool, pooling: str, tiny_encoder: Path, tmp_path: Path
) -> None:
    model = cls.from_backbone(
        str(tiny_encoder),
        [1, 3, 4],
        labels=["no", "yes", "so so"],
        pooling=pooling,
        gates=gates,
        max_length=32,
    ).eval()
    model.save_pretrained(tmp_path)
    loaded = read_model(tmp_path)
    assert type(loaded) is cls
    assert loaded.state_dict().keys() == model.state_dict().keys()
    assert all(
        torch.equal(a, b)
        for a, b in zip(model.state_dict().values(), loaded.state_dict().values(), strict=True)
    )
    with torch.no_grad():
        before, after = model(**batch(model)), loaded(**batch(loaded))
    assert torch.equal(before.exit_logits, after.exit_logits)
    assert before.exit_logits.shape == (2, 3, 3)
    assert (after.gates is not None) == gates
    assert loaded.labels == ("no", "yes", "so so")
    assert loaded.exit_layers == (1, 3, 4)
    assert loaded.max_length == 32
    assert isinstance(AutoModelForSequenceClassification.from_pretrained(tmp_path), cls)
    assert AutoConfig.from_pretrained(tmp_path).exits == [1, 3, 4]


def test_the_exits_read_the_librarys_own_hidden_states(tiny_encoder: Path) -> None:
    model = MultiExitForSequenceClassification.from_backbone(str(tiny_encoder), [2, 4]).eval()
    library = AutoModel.from_pretrained(tiny_encoder).eval()
    inputs = batch(model)
    with torch.no_grad():
        hidden = library(**inputs, output_hidden_states=True).hidden_states
        logits = model(**inputs).exit_logits
        weights = inputs["attention_mask"][..., None].float()
        for k, layer in enumerate((2, 4)):
            mean = (hidden[layer] * weights).sum(1) / weights.sum(1)
            assert torch.allclose(logits[:, k], model.heads[k].classifier(mean), atol=1e-5)


def test_every_pooler_starts_from_the_pretrained_one_and_is_its_own(tiny_encoder: Path) -> None:
    model = MultiExitForSequenceClassification.from_backbone(str(tiny_encoder), [2, 4], pooling="pooler")
    pretrained = AutoModel.from_pretrained(tiny_encoder).pooler.dense
    assert model.backbone.pooler is None
    for head in model.heads:
        assert torch.equal(head.pooler.dense.weight, pretrained.weight)
    assert model.heads[0].pooler.dense.weight.data_ptr() != model.heads[1].pooler.dense.weight.data_ptr()


def test_cascade_members_are_the_first_layers_and_share_nothing(tiny_encoder: Path) -> None:
    cascade = MultiModelForSequenceClassification.from_backbone(str(tiny_encoder), [1, 3], seed=5).eval()
    assert [len(m.backbone.encoder.layer) for m in cascade.members] == [1, 3]
    pointers = [p.data_ptr() for p in cascade.parameters()]
    assert len(set(pointers)) == len(pointers)
    single = MultiExitForSequenceClassification.from_backbone(str(tiny_encoder), [3], seed=6).eval()
    with torch.no_grad():
        inputs = batch(cascade)
        assert torch.allclose(
            cascade(**inputs).exit_logits[:, 1], single(**inputs).exit_logits[:, 0], atol=1e-6
        )


def test_costs_are_counted_by_hand(tiny_encoder: Path) -> None:
    dim, inner, n = 32, 64, 10
    layer = 2 * n * (4 * dim * dim + 2 * dim * inner) + 4 * n * n * dim
    head = 2 * dim * 2
    one = MultiExitForSequenceClassification.from_backbone(str(tiny_encoder), [1, 4])
    costs, full = one.flops(np.array([n]))
    assert costs[0].tolist() == [layer + head, 4 * layer + 2 * head]
    assert full[0] == 4 * layer + head
    cascade = MultiModelForSequenceClassification.from_backbone(str(tiny_encoder), [1, 4])
    costs, full = cascade.flops(np.array([n]))
    assert costs[0].tolist() == [layer + head, 5 * layer + 2 * head]  # the recomputation counts
    assert full[0] == 4 * layer + head


@pytest.mark.parametrize(
    ("exits", "message"),
    [
        ([], "at least one exit"),
        ([4, 2], "must increase"),
        ([2, 2], "must increase"),
        ([0], "layer 0 is an exit before the encoder"),
        ([2, 5], "1..4"),
    ],
)
def test_exit_layers_that_do_not_fit(exits: list[int], message: str, tiny_encoder: Path) -> None:
    for cls in CLASSES:
        with pytest.raises(ModelError, match=message):
            cls.from_backbone(str(tiny_encoder), exits)


def test_other_arguments_that_do_not_fit(tiny_encoder: Path) -> None:
    make = MultiExitForSequenceClassification.from_backbone
    with pytest.raises(ConfigError, match="Did you mean 'mean'"):
        make(str(tiny_encoder), [4], pooling="meen")
    with pytest.raises(ModelError, match="at least 2 classes"):
        make(str(tiny_encoder), [4], labels=["only"])
    with pytest.raises(ModelError, match=r"4\.\.64"):
        make(str(tiny_encoder), [4], max_length=1000)


def test_gates_for_scores_are_refused(tiny_encoder: Path) -> None:
    for cls in (MultiExitForSequenceClassification, MultiModelForSequenceClassification):
        with pytest.raises(ModelError, match="leave gates out"):
            cls.from_backbone(str(tiny_encoder), [1, 2], kind="regression", gates=True)


def test_regression_has_one_output_and_squared_error(tiny_encoder: Path) -> None:
    model = MultiExitForSequenceClassification.from_backbone(
        str(tiny_encoder), [2, 4], kind="regression"
    ).eval()
    output = model(**batch(model), labels=torch.tensor([1.0, 3.0]))
    assert output.exit_logits.shape == (2, 2, 1)
    expected = sum(((output.exit_logits[:, k, 0] - torch.tensor([1.0, 3.0])) ** 2).mean() for k in range(2))
    assert torch.allclose(output.loss, expected)
    assert model.labels == ()


@pytest.mark.parametrize("cls", CLASSES)
def test_checkpoints_that_are_not_whole(cls: Any, tiny_encoder: Path, tmp_path: Path) -> None:
    model = cls.from_backbone(str(tiny_encoder), [2, 4])
    model.save_pretrained(tmp_path)
    weights_file = tmp_path / "model.safetensors"
    weights = load_file(weights_file)
    name = next(n for n in weights if n.endswith("classifier.weight"))

    save_file({n: t for n, t in weights.items() if n != name}, weights_file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match="misses .*classifier.weight"):
        read_model(tmp_path)
    save_file({**weights, "foreign.weight": torch.zeros(3)}, weights_file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match="foreign foreign.weight"):
        read_model(tmp_path)
    save_file({**weights, name: torch.zeros(7, 7)}, weights_file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match="classifier.weight"):
        read_model(tmp_path)
    weights_file.write_bytes(weights_file.read_bytes()[:100])
    with pytest.raises(ModelError, match="is cut off: 100 of at least"):
        read_model(tmp_path)
    weights_file.unlink()
    with pytest.raises(ModelError, match="holds no weights"):
        read_model(tmp_path)


def test_folders_that_hold_no_model(tiny_encoder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="holds no config.json"):
        read_model(tmp_path)
    with pytest.raises(ModelError, match="'bert' model, not a multi-exit one"):
        read_model(tiny_encoder)
    with pytest.raises(ModelError, match="no model at"):
        read_model(tmp_path / "nowhere" / "at" / "all")
    (tmp_path / "config.json").write_text("{broken")
    with pytest.raises(ModelError, match="config.json is cut off"):
        read_model(tmp_path)


def test_encoder_takes_any_text_and_counts_what_it_cuts(tiny_encoder: Path) -> None:
    model = MultiExitForSequenceClassification.from_backbone(str(tiny_encoder), [4], max_length=16)
    encoder = TextEncoder.of(model)
    texts = ["", "good " * 20_000, "a\x00b", "\ud83d lone", "漢字 🎬", " \t\n"]
    encodings, cut = encoder.encode(texts)
    assert cut == 1
    assert len(encodings[1]["input_ids"]) == 16
    assert len(encodings[0]["input_ids"]) == 2  # the special tokens alone
    assert len(encoder(["a film"], ["a plot"])[0]["input_ids"]) == 7
    assert encoder([]) == []
    with pytest.raises(DataError, match="one string"):
        encoder("a film")
    with pytest.raises(DataError, match="NoneType"):
        encoder([None])  # type: ignore[list-item]
    with pytest.raises(DataError, match="2 texts and 1 pairs"):
        encoder(["a", "b"], ["c"])


def test_config_is_readable_json(tiny_encoder: Path, tmp_path: Path) -> None:
    MultiExitForSequenceClassification.from_backbone(str(tiny_encoder), [2, 4]).save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "config.json").read_text())
    assert stored["exits"] == [2, 4]
    assert stored["backbone_config"]["model_type"] == "bert"
    assert stored["architectures"] == ["MultiExitForSequenceClassification"]


def test_a_disk_that_takes_no_weights_is_a_clear_error(tiny_encoder: Path, tmp_path: Path) -> None:
    model = MultiExitForSequenceClassification.from_backbone(str(tiny_encoder), [2, 4])
    (tmp_path / "model.safetensors").mkdir()  # nothing can be written where a folder stands
    with pytest.raises((OfframpError, OSError)):
        model.save_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["nosuch", "/no/such/folder", "runs/no/such", "./nosuch/model"])
def test_a_missing_folder_is_not_taken_for_a_hub_id(name: str) -> None:
    with pytest.raises(ModelError, match=f"no model at {name}: no such folder"):
        read_model(name)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"exits": 4}, "exits must be a list of layers, such as .1, 2, 4, 6., got int: 4"),
        ({"exits": "1,2"}, "exits must be a list of layers.*got str: '1,2'"),
        ({"exits": [1.5, 4]}, "an exit layer must be a whole number.*got 1.5: layers count from 1 to 4"),
        ({"exits": [True, 4]}, "an exit layer must be a whole number.*got True"),
        ({"labels": {"no": 0, "yes": 1}}, "labels must be a list of class names in their order, got dict"),
        ({"labels": "pos"}, "labels must be a list of class names in their order, got str: 'pos'"),
        ({"labels": ["no", "no"]}, "labels must differ from each other, got 'no' twice"),
        ({"labels": ["no", ""]}, "labels must be strings that are not blank, got ''"),
        ({"labels": True}, "labels must be a list of class names"),
        ({"kind": "regresion"}, "unknown kind 'regresion'. Did you mean 'regression'"),
        ({"gates": "yes"}, "gates must be True or False, got 'yes'"),
        ({"max_length": "32"}, "max_length must be a whole number"),
        ({"max_length": 32.5}, "max_length must be a whole number"),
        ({"seed": -1}, "seed must be a whole number from 0"),
        ({"seed": None}, "seed must be a whole number from 0"),
        ({"backbone": ""}, "expected an encoder's name, folder or hub id, got ''"),
        ({"backbone": None}, "expected an encoder's name, folder or hub id, got None"),
    ],
)
def test_arguments_of_another_type(arguments: dict[str, Any], message: str, tiny_encoder: Path) -> None:
    with pytest.raises(OfframpError, match=message):
        MultiExitForSequenceClassification.from_backbone(
            **{"backbone": tiny_encoder, "exits": [4]} | arguments
        )


def test_numbers_of_other_libraries_make_the_same_model(tiny_encoder: Path, tmp_path: Path) -> None:
    make = MultiExitForSequenceClassification.from_backbone
    plain = make(str(tiny_encoder), [2, 4], labels=3, max_length=32, seed=5, gates=True)
    other = make(
        tiny_encoder,
        np.array([2, 4]),
        labels=np.int64(3),
        max_length=torch.tensor(32),
        seed=np.int64(5),
        gates=np.bool_(True),
    )
    for name, value in plain.state_dict().items():
        assert torch.equal(other.state_dict()[name], value)
    other.save_pretrained(tmp_path)
    assert read_model(tmp_path).config.to_dict().keys() == plain.config.to_dict().keys()
    assert (read_model(tmp_path).max_length, read_model(tmp_path).labels) == (32, ("0", "1", "2"))


@pytest.mark.parametrize("source", ["", None, 3, b"x"])
def test_what_names_no_model(source: Any) -> None:
    with pytest.raises(ConfigError, match="expected the folder of a model or a hub id, got"):
        read_model(source)
