"""Checkpoints of released early-exit code: the same logits at every exit, and clear words for what does not fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from offramp._core.errors import ConfigError, ModelError
from offramp.model import MultiExitForSequenceClassification, import_checkpoint, read_model
from tests.model.released import Released, forward, make_config, make_state, write

CASES = {
    "deebert-bert": Released("deebert", "bert", classes=3),
    "deebert-roberta": Released("deebert", "roberta"),
    "pabee-bert": Released("pabee", "bert"),
    "pabee-albert": Released("pabee", "albert", classes=3),
    "pabee-albert-groups": Released("pabee", "albert", groups=2, inner=2),
    "elasticbert": Released("elasticbert", "elasticbert"),
    "pabee-regression": Released("pabee", "bert", classes=1),
}
DEPTH = 4
LABELS = {1: None, 2: ["bad", "good"], 3: ["a", "b", "c"]}


@pytest.fixture
def make(tmp_path: Path, tiny_tokenizer: Any) -> Callable[..., tuple[Path, dict[str, Any], dict[str, Any]]]:
    """Writes a checkpoint with its tokenizer: folder, config and state dict; `edit` may damage both."""

    def written(
        released: Released,
        *,
        pickled: bool = False,
        edit: Callable[[Any, Any], None] = lambda config, state: None,
    ) -> tuple[Path, dict[str, Any], dict[str, Any]]:
        config = make_config(released, len(tiny_tokenizer))
        state = make_state(released, config)
        edit(config, state)
        folder = write(tmp_path / "released", config, state, pickled=pickled)
        tiny_tokenizer.save_pretrained(folder)
        return folder, config, state

    return written


def batch(config: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Random ids of pairs, padded on the right."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, config["vocab_size"], (5, 12), generator=generator)
    mask = (torch.arange(12) < torch.tensor([12, 9, 7, 3, 1])[:, None]).long()
    types = (torch.arange(12) >= 4).long() * mask
    return {
        "input_ids": torch.where(mask.bool(), ids, config["pad_token_id"]),
        "attention_mask": mask,
        "token_type_ids": types,
    }


@pytest.mark.parametrize("pickled", [True, False], ids=["bin", "safetensors"])
@pytest.mark.parametrize("case", CASES)
def test_every_exit_has_the_logits_of_the_released_code(
    case: str, pickled: bool, make: Any, tmp_path: Path
) -> None:
    released = CASES[case]
    folder, config, state = make(released, pickled=pickled)
    model = import_checkpoint(folder, released.layout, labels=LABELS[released.classes])
    assert type(model) is MultiExitForSequenceClassification
    assert model.exit_layers == tuple(range(1, DEPTH + 1))
    assert model.labels == tuple(LABELS[released.classes] or ())
    assert model.config.classifier_dropout == (0.3 if released.encoder == "albert" else 0.2)
    expected = forward(released, config, state, batch(config))
    last = "final" if released.layout == "deebert" else str(DEPTH)
    names = [*map(str, range(1, DEPTH)), last]
    model.save_pretrained(tmp_path / "saved")
    for one in (model, read_model(tmp_path / "saved")):
        with torch.no_grad():
            logits = one(**batch(config)).exit_logits
        torch.testing.assert_close(logits, torch.stack([expected[n] for n in names], 1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("case", ["deebert-bert", "deebert-roberta"])
def test_the_last_off_ramp_and_the_final_classifier_are_different_heads(case: str, make: Any) -> None:
    folder, config, state = make(CASES[case])
    inputs = batch(config)
    expected = forward(CASES[case], config, state, inputs)
    assert (expected["final"] - expected[str(DEPTH)]).abs().max() > 0.1
    with torch.no_grad():
        for last_exit, name in {"classifier": "final", "highway": str(DEPTH)}.items():
            logits = import_checkpoint(folder, "deebert", last_exit=last_exit)(**inputs).exit_logits  # type: ignore[arg-type]
            torch.testing.assert_close(logits[:, -1], expected[name], atol=1e-5, rtol=0)
            torch.testing.assert_close(logits[:, 0], expected["1"], atol=1e-5, rtol=0)


def test_half_precision_and_a_config_without_a_model_type_are_read(make: Any) -> None:
    def edit(config: dict[str, Any], state: dict[str, Any]) -> None:
        del config["model_type"]  # as the first versions of the library wrote it
        config["num_labels"] = 2
        state.update({name: value.half() for name, value in state.items() if value.is_floating_point()})

    folder, config, state = make(CASES["deebert-roberta"], edit=edit)
    model = import_checkpoint(folder, "deebert")
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert model.labels == ("0", "1")
    whole = {name: value.float() for name, value in state.items()}
    expected = forward(CASES["deebert-roberta"], config, whole, batch(config))["final"]
    with torch.no_grad():
        torch.testing.assert_close(model(**batch(config)).exit_logits[:, -1], expected, atol=1e-5, rtol=0)


def test_labels_come_from_the_config_unless_given(make: Any) -> None:
    names = {"0": "contradiction", "1": "entailment", "2": "neutral"}
    folder, _, _ = make(CASES["deebert-bert"], edit=lambda config, state: config.update(id2label=names))
    assert import_checkpoint(folder, "deebert").labels == ("contradiction", "entailment", "neutral")
    assert import_checkpoint(folder, "deebert", labels=["x", "y", "z"]).labels == ("x", "y", "z")


def test_outputs_come_in_the_order_wanted(make: Any) -> None:
    folder, config, state = make(CASES["deebert-bert"])
    labels, order = ["contradiction", "entailment", "neutral"], ["entailment", "neutral", "contradiction"]
    model = import_checkpoint(folder, "deebert", labels=labels, order=order)
    assert model.labels == tuple(order)
    expected = forward(CASES["deebert-bert"], config, state, batch(config))
    with torch.no_grad():
        logits = model(**batch(config)).exit_logits
    torch.testing.assert_close(logits[:, 1], expected["2"][:, [1, 2, 0]], atol=1e-5, rtol=0)
    torch.testing.assert_close(logits[:, -1], expected["final"][:, [1, 2, 0]], atol=1e-5, rtol=0)
    for wrong in (order[:2], [*order, "neutral"], ["a", "b", "c"]):
        with pytest.raises(ModelError, match="expected an order of the labels"):
            import_checkpoint(folder, "deebert", labels=labels, order=wrong)


def test_the_tokenizer_is_the_one_beside_the_weights_or_the_one_asked_for(
    make: Any, tiny_encoder: Path
) -> None:
    folder, _, _ = make(CASES["pabee-bert"])
    ids = import_checkpoint(folder, "pabee").tokenizer("a good film")["input_ids"]
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match="holds no tokenizer.*--tokenizer"):
        import_checkpoint(folder, "pabee")
    model = import_checkpoint(folder, "pabee", tokenizer=tiny_encoder, max_length=17)
    assert model.tokenizer("a good film")["input_ids"] == ids
    assert model.max_length == 17
    with pytest.raises(ModelError, match="max_length must lie in 4..40"):
        import_checkpoint(folder, "pabee", tokenizer=tiny_encoder, max_length=41)


def test_a_vocabulary_of_that_time_is_a_tokenizer(make: Any, tiny_tokenizer: Any) -> None:
    folder, _, _ = make(CASES["elasticbert"])
    expected = import_checkpoint(folder, "elasticbert").tokenizer("a warm film", "dull")["input_ids"]
    (folder / "tokenizer.json").unlink()
    vocabulary = sorted(tiny_tokenizer.get_vocab().items(), key=lambda item: item[1])
    (folder / "vocab.txt").write_text("\n".join(word for word, _ in vocabulary) + "\n")
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": true, "max_len": 512}')
    found = import_checkpoint(folder, "elasticbert").tokenizer("a WARM film", "dull")
    assert found["input_ids"] == expected


@pytest.mark.parametrize(
    ("released", "layout", "message"),
    [
        (
            "deebert-bert",
            "pabee",
            r"not in the layout 'pabee': expected classifiers\.0.*in the layout 'deebert'",
        ),
        ("pabee-albert", "deebert", r"not in the layout 'deebert': .*highway\.0.*in the layout 'pabee'"),
        ("elasticbert", "pabee", r"in the layout 'elasticbert'"),
    ],
)
def test_another_layout_is_named(released: str, layout: str, message: str, make: Any) -> None:
    folder, _, _ = make(CASES[released])
    with pytest.raises(ModelError, match=message):
        import_checkpoint(folder, layout)


def test_a_plain_classifier_is_no_early_exit_checkpoint(make: Any) -> None:
    def edit(config: Any, state: Any) -> None:
        for name in [n for n in state if "highway" in n]:
            del state[name]

    folder, _, _ = make(CASES["deebert-bert"], edit=edit)
    with pytest.raises(
        ModelError, match=r"not in the layout 'deebert'.*but it has bert\.embeddings\S+,.*more"
    ):
        import_checkpoint(folder, "deebert")


def without(name: str) -> Callable[[Any, Any], None]:
    """An edit that loses a tensor."""

    def edit(config: Any, state: Any) -> None:
        del state[name]

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (without("classifier.weight"), r"lacks classifier\.weight"),
        (without("bert.encoder.highway.2.pooler.dense.bias"), r"lacks bert\.encoder\.highway\.2\.pooler"),
        (lambda c, s: s.update({"lm_head.bias": torch.zeros(3)}), r"holds besides lm_head\.bias"),
        (lambda c, s: c.update(num_hidden_layers=DEPTH - 1), r"holds besides bert\.encoder\.highway\.3"),
        (
            lambda c, s: c.update(intermediate_size=25),
            r"another shape than its config.json says: .*\(24, 16\) for \(25, 16\)",
        ),
        (lambda c, s: c.update(num_labels=2), r"names 2 labels, but its classifiers have 3 outputs"),
        (lambda c, s: c.update(id2label={"0": "x"}), r"names 1 labels"),
        (lambda c, s: c.update(model_type="roberta"), r"describes 'roberta', but the weights are of 'bert'"),
        (lambda c, s: c.pop("hidden_size"), r"lacks hidden_size"),
        (lambda c, s: c.update(num_attention_heads=5), r"config.json in .* cannot be used"),
        (lambda c, s: c.update(hidden_size="wide"), r"config.json in .* cannot be used"),
        (lambda c, s: c.update(id2label=["a", "b", "c"]), r"as id2label, expected names by output"),
        (
            lambda c, s: s.update({"classifier.weight": torch.zeros(2, 16)}),
            r"classifier\.weight \(2, 16\) for \(3",
        ),
    ],
)
def test_what_does_not_fit_is_refused_by_name(edit: Any, message: str, make: Any) -> None:
    folder, _, _ = make(CASES["deebert-bert"], edit=edit)
    with pytest.raises(ModelError, match=message):
        import_checkpoint(folder, "deebert")


@pytest.mark.parametrize("labels", [["a"], ["a", "b", "b"], ["a", "b", "c", "d"]])
def test_a_wrong_number_of_names_is_refused(labels: list[str], make: Any) -> None:
    folder, _, _ = make(CASES["deebert-bert"])
    with pytest.raises(ModelError, match="expected 3 different labels"):
        import_checkpoint(folder, "deebert", labels=labels)


def test_options_that_cannot_be(make: Any) -> None:
    folder, _, _ = make(CASES["pabee-bert"])
    with pytest.raises(ConfigError, match="unknown layout 'pabbe'. Did you mean 'pabee'"):
        import_checkpoint(folder, "pabbe")
    with pytest.raises(ConfigError, match="'pabee' has one"):
        import_checkpoint(folder, "pabee", last_exit="highway")
    with pytest.raises(ConfigError, match="unknown last exit 'ramp'"):
        import_checkpoint(folder, "deebert", last_exit="ramp")  # type: ignore[arg-type]


class Runs:
    """Would run code where a pickle is opened without care."""

    def __reduce__(self) -> Any:
        return print, ("code was run",)


@pytest.mark.parametrize("content", [Runs(), {"a": Runs()}, b"no pickle", ["a list"], {"a": "b"}])
def test_a_pickle_is_never_run(content: Any, make: Any, capsys: pytest.CaptureFixture[str]) -> None:
    folder, _, _ = make(CASES["pabee-bert"], pickled=True)
    path = folder / "pytorch_model.bin"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(ModelError, match="holds more than tensors, and is not opened|expected a state dict"):
        import_checkpoint(folder, "pabee")
    assert "code was run" not in capsys.readouterr().out


def test_folders_that_hold_no_checkpoint(make: Any, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="expected the folder of a checkpoint, but .*nowhere does not exist"):
        import_checkpoint(tmp_path / "nowhere", "pabee")
    folder, config, _ = make(CASES["pabee-bert"])
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelError, match="config.json is cut off"):
        import_checkpoint(folder, "pabee")
    (folder / "config.json").write_text("[]")
    with pytest.raises(ModelError, match="expected an object"):
        import_checkpoint(folder, "pabee")
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(ModelError, match="is no safetensors file, or its header is cut off"):
        import_checkpoint(folder, "pabee")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"holds no weights.*with config\.json and model\.safetensors"):
        import_checkpoint(folder, "pabee")
