"""Encoders from folders: what loads, what is refused, and what the refusal says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file

from offramp._core.errors import ModelError
from offramp.backbones import Backbone, load_backbone, truncated_config
from offramp.backbones.backbone import random_inputs
from tests.backbones.backbone_zoo import BERT_LIKE, ZOO, build, make, save


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny BERT and its tokenizer."""
    return save(make("bert"), tmp_path / "bert")


def edit_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_weights(folder: Path, **changes: torch.Tensor | None) -> None:
    path = folder / "model.safetensors"
    weights = {**load_file(path), **changes}
    save_file({k: v for k, v in weights.items() if v is not None}, path, metadata={"format": "pt"})


def test_round_trip_is_exact_and_silent(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    capfd.readouterr()
    model, tokenizer = load_backbone(folder)
    assert capfd.readouterr() == ("", "")
    expected = make("bert").state_dict()
    assert model.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in model.state_dict().items())
    assert not model.training
    assert tokenizer("w0 w1")["input_ids"] == [2, 3]


def test_the_library_s_voice_comes_back(folder: Path) -> None:
    before = hf.logging.get_verbosity()
    load_backbone(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError):
        load_backbone(folder)
    assert hf.logging.get_verbosity() == before
    assert hf.utils.logging.set_tqdm_hook(None) is None


def test_half_precision_checkpoint_loads_as_float32(tmp_path: Path) -> None:
    model, _ = load_backbone(save(make("bert").half(), tmp_path))
    assert model.dtype == torch.float32


def test_checkpoint_with_a_head(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    whole = hf.BertForMaskedLM(ZOO["bert"]()).eval()
    source = save(whole, tmp_path)
    capfd.readouterr()
    model, _ = load_backbone(source)
    assert capfd.readouterr() == ("", "")  # no report of the head's weights
    inputs = random_inputs(model, "right")
    assert torch.equal(model(**inputs).last_hidden_state, whole.bert(**inputs).last_hidden_state)
    assert Backbone(model).pooler is None  # a masked-LM checkpoint has none: never a random one
    assert model(**inputs).pooler_output is None


@pytest.mark.parametrize("name", ["albert", "mpnet", "megatron-bert"])
def test_missing_pooler_is_none(name: str, tmp_path: Path) -> None:
    source = save(make(name), tmp_path)
    drawn = torch.get_rng_state()
    poolers = {key: None for key in load_file(source / "model.safetensors") if "pooler" in key}
    assert poolers
    assert Backbone(load_backbone(source)[0]).pooler is not None
    edit_weights(source, **poolers)
    assert Backbone(load_backbone(source)[0]).pooler is None
    assert torch.equal(torch.get_rng_state(), drawn)


def test_sentence_transformers_folders(tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text(
        json.dumps([{"idx": 0, "path": "0_Transformer"}, {"idx": 1, "path": "1_Pooling"}])
    )
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text("{}")
    save(make("bert"), tmp_path / "0_Transformer")
    model, tokenizer = load_backbone(str(tmp_path))
    assert model.config.num_hidden_layers == 3
    assert len(tokenizer) == 50


@pytest.mark.parametrize("name", ZOO)
def test_truncated_model_is_the_first_layers(name: str) -> None:
    whole = make(name)
    depth = whole.config.num_hidden_layers - (2 if name == "albert-groups" else 1)
    config = truncated_config(whole.config, depth)
    assert whole.config.num_hidden_layers == depth + (2 if name == "albert-groups" else 1)
    cut = build(config, seed=1)
    cut.load_state_dict({key: whole.state_dict()[key] for key in cut.state_dict()})
    long, short, inputs = Backbone(whole), Backbone(cut), random_inputs(whole, "right")
    assert short.depth == depth
    a, b = long.embed(inputs), short.embed(inputs)
    for i in range(1, depth + 1):
        a, b = long.layer(i, a), short.layer(i, b)
        assert torch.equal(a.hidden, b.hidden)
    kept, all_there = (sum(p.numel() for p in m.parameters()) for m in (cut, whole))
    assert (kept < all_there) == (name != "albert")  # one group serves any depth


@pytest.mark.parametrize("name", ["bert", "albert", "modernbert", "deberta-v2", "distilbert"])
def test_depth_at_loading(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    whole = make(name, "eager")
    source = save(whole, tmp_path)
    capfd.readouterr()
    model, _ = load_backbone(source, depth=2)
    assert capfd.readouterr() == ("", "")  # no report of the layers left out
    assert model.config.num_hidden_layers == 2
    long, short, inputs = Backbone(whole), Backbone(model), random_inputs(whole, "right")
    a = long.layer(2, long.layer(1, long.embed(inputs))).hidden
    b = short.layer(2, short.layer(1, short.embed(inputs))).hidden
    words = inputs["attention_mask"].bool()  # eager against sdpa: what padding computes may differ
    torch.testing.assert_close(a[words], b[words], rtol=0, atol=1e-5)


@pytest.mark.parametrize("depth", [0, -1, 4])
def test_depth_out_of_range(depth: int, folder: Path) -> None:
    message = rf"expected a depth in 1\.\.3, the layers of this encoder, got {depth}"
    with pytest.raises(ModelError, match=message):
        load_backbone(folder, depth=depth)


@pytest.mark.parametrize(
    ("layers", "groups", "fits"),
    [
        (4, 2, [1, 2, 3, 4]),
        (12, 3, [1, 2, 3, 4, 7, 8, 11, 12]),  # 5 layers would be 0 0 0 1 1 and no longer 0 0 0 0 1
        (12, 1, range(1, 13)),
        (6, 6, range(1, 7)),
    ],
)
def test_depths_that_albert_groups_allow(layers: int, groups: int, fits: list[int]) -> None:
    config = hf.AlbertConfig(num_hidden_layers=layers, num_hidden_groups=groups)
    for depth in range(1, layers + 1):
        if depth in fits:
            used = truncated_config(config, depth).num_hidden_groups
            assert used == -(-depth * groups // layers)
        else:
            with pytest.raises(ModelError, match=f"cannot keep {depth} of {layers} .* in {groups} groups"):
                truncated_config(config, depth)


def test_no_such_folder(tmp_path: Path) -> None:
    for name in (tmp_path / "none", str(tmp_path / "none"), "./none", "runs/sst2/none"):
        with pytest.raises(ModelError, match=r"no such folder: .*none \(packaged encoders: minilm-l6"):
            load_backbone(name)


def test_a_file_is_no_folder(folder: Path) -> None:
    with pytest.raises(ModelError, match=r"got the file .*model\.safetensors: give its folder"):
        load_backbone(folder / "model.safetensors")


def test_folder_without_config(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"holds no config\.json: it holds nothing; give a folder that"):
        load_backbone(tmp_path)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ModelError, match=r"holds no config\.json: it holds notes\.txt; give a folder"):
        load_backbone(tmp_path)


def test_unknown_names_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match=r"packaged encoder 'minilm-l7'. Did you mean 'minilm-l6'"):
        load_backbone("minilm-l7")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        ModelError, match=r"cannot load the config of 'no-such/model' from the hub.*go online"
    ):
        load_backbone("no-such/model")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "gpt2"}, "got 'gpt2', a decoder"),
        ({"model_type": "t5", "classifier_dropout": 0.1}, "got 't5', an encoder-decoder"),
        ({"is_decoder": True}, "got 'bert' as a decoder"),
        ({"model_type": "splinter"}, "unknown encoder architecture 'splinter'"),
        ({"model_type": "from-the-future"}, "cannot read the config in .*from-the-future"),
        ({"model_type": None, "architectures": None}, "cannot read the config in"),
        ({"hidden_size": 33}, "cannot read the weights in .*not a multiple"),
    ],
)
def test_config_of_something_else(folder: Path, changes: dict[str, object], message: str) -> None:
    edit_config(folder, **changes)
    with pytest.raises(ModelError, match=message):
        load_backbone(folder)


def test_code_in_a_checkpoint_is_never_run(folder: Path) -> None:
    edit_config(folder, model_type="other", auto_map={"AutoConfig": "evil.Config"})
    (folder / "evil.py").write_text("raise SystemExit('ran')")
    with pytest.raises(ModelError, match=r"cannot read the config in"):
        load_backbone(folder)


def test_damaged_config(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "be')
    with pytest.raises(ModelError, match=r"config\.json is cut off: its end is missing: copy"):
        load_backbone(folder)


def test_damaged_modules_list(tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text("[")
    with pytest.raises(ModelError, match=r"cannot read the modules\.json in"):
        load_backbone(tmp_path)


def test_missing_weights_are_named(folder: Path) -> None:
    edit_weights(folder, **{"encoder.layer.2.output.dense.bias": None})
    with pytest.raises(
        ModelError, match=r"lacks weights of BertModel: encoder\.layer\.2\.output\.dense\.bias; it"
    ):
        load_backbone(folder)
    load_backbone(folder, depth=2)  # the layers that are wanted are all there


def test_checkpoint_of_another_architecture(folder: Path, tmp_path: Path) -> None:
    other = save(make("distilbert"), tmp_path / "other")
    (other / "model.safetensors").replace(folder / "model.safetensors")
    with pytest.raises(ModelError, match=r"lacks weights of BertModel: .* and [0-9]+ more; .*another archi"):
        load_backbone(folder)


def test_weights_of_another_size(folder: Path) -> None:
    edit_weights(folder, **{"embeddings.position_embeddings.weight": torch.zeros(7, 32)})
    with pytest.raises(ModelError, match=r"position_embeddings\.weight \(7, 32\) for \(40, 32\); restore"):
        load_backbone(folder)


def test_no_tokenizer(folder: Path) -> None:
    for path in folder.glob("*token*"):
        path.unlink()
    with pytest.raises(ModelError, match=r"holds no tokenizer: save it beside the model"):
        load_backbone(folder)


def test_damaged_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(ModelError, match=r"tokenizer\.json is cut off"):
        load_backbone(folder)


def test_tokenizer_that_runs_in_python(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("a 1\n")
    (tmp_path / "bpe.codes").write_text("")
    slow = hf.PhobertTokenizer(str(tmp_path / "vocab.txt"), str(tmp_path / "bpe.codes"))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    slow.save_pretrained(folder)
    with pytest.raises(
        ModelError, match=r"expected a fast tokenizer \(tokenizer.json\), got PhobertTokenizer"
    ):
        load_backbone(folder)


def test_tokenizer_of_another_model(tmp_path: Path) -> None:
    source = save(build(hf.BertConfig(**{**BERT_LIKE, "vocab_size": 30})), tmp_path)
    with pytest.raises(ModelError, match=r"has 50 tokens but the model only 30: they do not belong together"):
        load_backbone(source)
