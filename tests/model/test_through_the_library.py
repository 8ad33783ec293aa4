"""The saved model is a sequence classifier for everyone who loads it through the library."""

from __future__ import annotations

import copy
import json
import pickle
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    Trainer,
    TrainingArguments,
    pipeline,
)

from offramp._core.errors import DataError, ModelError
from offramp.model import (
    MultiExitForSequenceClassification,
    MultiModelForSequenceClassification,
    read_model,
)
from offramp.model.encoding import TextEncoder
from offramp.training.trainer import EncodedDataset

CLASSES = [MultiExitForSequenceClassification, MultiModelForSequenceClassification]
LABELS = ("neg", "pos", "so so")
TEXTS = ["a good film", "the plot is dull , the cast warm and the script a mess"]


@pytest.fixture(scope="module", params=CLASSES)
def folder(request: Any, tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model of three classes that reads 12 tokens."""
    path = tmp_path_factory.mktemp("saved")
    request.param.from_backbone(str(tiny_encoder), [1, 4], labels=LABELS, max_length=12).save_pretrained(path)
    return path


def last_exit(folder: Path, texts: Any, pairs: Any = None) -> torch.Tensor:
    """Probabilities of the last exit `(texts, classes)`, one text at a time."""
    model = read_model(folder)
    encodings = TextEncoder.of(model)(texts, pairs)
    with torch.no_grad():
        rows = [model(**{k: torch.tensor([v]) for k, v in e.items()}).exit_logits[0, -1] for e in encodings]
    return torch.stack(rows).softmax(-1)


def test_a_pipeline_answers_as_the_last_exit(folder: Path) -> None:
    classify = pipeline("text-classification", model=str(folder))
    expected = last_exit(folder, TEXTS)
    for batch_size in (1, 2):
        answers = classify(TEXTS, top_k=None, truncation=True, batch_size=batch_size)
        for answer, row in zip(answers, expected, strict=True):
            scores = {entry["label"]: entry["score"] for entry in answer}
            assert [scores[label] for label in LABELS] == pytest.approx(row.tolist(), abs=1e-5)
    pair = classify({"text": TEXTS[0], "text_pair": "dull"}, top_k=None)
    row = last_exit(folder, [TEXTS[0]], ["dull"])[0]
    assert {e["label"]: e["score"] for e in pair} == pytest.approx(
        dict(zip(LABELS, row.tolist(), strict=True)), abs=1e-5
    )


def test_everybody_cuts_texts_at_the_models_length(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.model_max_length == 12
    assert len(tokenizer("good " * 50, truncation=True)["input_ids"]) == 12


def test_a_regression_pipeline_gives_the_score(tiny_encoder: Path, tmp_path: Path) -> None:
    model = MultiExitForSequenceClassification.from_backbone(str(tiny_encoder), [2, 4], kind="regression")
    model.save_pretrained(tmp_path)
    (answer,) = pipeline("text-classification", model=str(tmp_path))("a good film")
    with torch.no_grad():
        expected = model.eval()(**model.tokenizer("a good film", return_tensors="pt")).logits
    assert answer == {"label": "score", "score": pytest.approx(expected.item(), abs=1e-6)}


def test_the_auto_classes_load_the_classifier(folder: Path) -> None:
    for auto in (AutoModel, AutoModelForSequenceClassification):
        model = auto.from_pretrained(folder)
        assert isinstance(model, tuple(CLASSES))
        assert (model.num_labels, model.labels) == (3, LABELS)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, "bfloat16"])
def test_a_type_of_the_weights_is_that_of_all_weights(dtype: Any, folder: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=dtype)
    expected = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    assert {parameter.dtype for parameter in model.parameters()} == {expected}
    output = model.eval()(**model.tokenizer("a good film", return_tensors="pt"))
    assert output.logits.dtype == torch.float32


def test_half_the_precision_is_saved_and_loaded(folder: Path, tmp_path: Path) -> None:
    read_model(folder).half().save_pretrained(tmp_path)  # type: ignore[operator]
    assert {p.dtype for p in read_model(tmp_path).parameters()} == {torch.float16}


def test_the_library_trainer_predicts_and_evaluates(folder: Path, tmp_path: Path) -> None:
    model = read_model(folder)
    encoder = TextEncoder.of(model)
    rows = EncodedDataset(encoder(TEXTS), [0, 2])
    arguments = TrainingArguments(tmp_path, per_device_eval_batch_size=2, report_to=[], use_cpu=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the library's own data loader
        trainer = Trainer(model=model, args=arguments, processing_class=model.tokenizer)
        output = trainer.predict(rows)
    assert not trainer.model_accepts_loss_kwargs  # a loss is then averaged over accumulated batches
    assert torch.tensor(output.predictions[0]).softmax(-1).numpy() == pytest.approx(
        last_exit(folder, TEXTS).numpy(), abs=1e-5
    )
    assert output.label_ids.tolist() == [0, 2]


def test_what_forward_returns_and_refuses(folder: Path) -> None:
    model = read_model(folder)
    inputs = model.tokenizer(TEXTS, padding=True, truncation=True, return_tensors="pt")
    output = model(**inputs, labels=torch.tensor([0, 2]))
    assert (output.logits.shape, output.exit_logits.shape) == ((2, 3), (2, 2, 3))
    assert torch.equal(output.logits, output.exit_logits[:, -1])
    loss, logits, exits = model(**inputs, labels=torch.tensor([[0], [2]]), return_dict=False)
    assert torch.equal(loss, output.loss)
    assert torch.equal(logits, output.logits)
    assert torch.equal(exits, output.exit_logits)
    for labels in ([0.0, 1.0], [0], [[0, 1, 0], [1, 0, 0]]):
        with pytest.raises(DataError, match=r"expected class indices \(batch,\) as labels for 2 texts, got"):
            model(**inputs, labels=torch.tensor(labels))
    for wanted in ("output_hidden_states", "output_attentions"):
        with pytest.raises(DataError, match="returns no hidden states or attentions"):
            model(**inputs, **{wanted: True})
    with pytest.raises(TypeError, match="lables"):
        model(**inputs, lables=torch.tensor([0, 2]))


def test_scores_are_compared_row_by_row(tiny_encoder: Path) -> None:
    model = MultiExitForSequenceClassification.from_backbone(
        str(tiny_encoder), [2, 4], kind="regression"
    ).eval()
    inputs = model.tokenizer(TEXTS, padding=True, return_tensors="pt")
    flat, column = (model(**inputs, labels=torch.tensor(v)).loss for v in ([1.0, 3.0], [[1.0], [3.0]]))
    assert torch.equal(flat, column)


def test_embeddings_may_stand_alone(tiny_encoder: Path) -> None:
    model = MultiExitForSequenceClassification.from_backbone(str(tiny_encoder), [2, 4]).eval()
    ids = model.tokenizer("a good film", return_tensors="pt")["input_ids"]
    embedded = model.embedding_tables()[0](ids)
    alone, listed = (model(ids, inputs_embeds=given).logits for given in (embedded, [embedded]))
    assert torch.equal(alone, listed)


def test_copies_answer_alike(folder: Path) -> None:
    model = read_model(folder)
    inputs = model.tokenizer("a good film", return_tensors="pt")
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert other.labels == LABELS
        assert torch.equal(other(**inputs).logits, model(**inputs).logits)


def test_the_other_class_of_model_is_named(folder: Path) -> None:
    other = CLASSES[isinstance(read_model(folder), CLASSES[0])]
    with pytest.raises(
        ModelError, match="holds a model of the type 'offramp.*load it with offramp.load_model"
    ):
        other.from_pretrained(folder)


def test_another_tokenizer_is_refused(folder: Path, tmp_path: Path) -> None:
    model = read_model(folder)
    tokenizer = copy.deepcopy(model.tokenizer)
    core = json.loads(tokenizer.backend_tokenizer.to_str())
    core["normalizer"]["lowercase"] = False
    tokenizer._tokenizer = type(tokenizer.backend_tokenizer).from_str(json.dumps(core))
    model.tokenizer = tokenizer
    with pytest.raises(ModelError, match="gives other token ids than the one that the model was made with"):
        TextEncoder.of(model)
    model.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="gives other token ids"):
        read_model(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["tokenizer_check"], config["pair"]  # of models that were saved before these were noted
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert read_model(tmp_path).pair is None
    tokenizer.add_tokens([f"new{i}" for i in range(9)])
    with pytest.raises(ModelError, match=r"the tokenizer has \d+ tokens but the model only \d+"):
        TextEncoder.of(model)
