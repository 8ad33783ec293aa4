"""`offramp import`: read a checkpoint of released early-exit code."""

from __future__ import annotations

from typing import Literal

from offramp._core.files import check_writable
from offramp._core.progress import progress
from offramp.cli.common import JsonFlag, emit, note, refuse_filled
from offramp.cli.paths import PathOption

MOST_LOST = 0.005  # accuracy: half a point


def import_checkpoint(
    checkpoint: PathOption,
    *,
    layout: Literal["deebert", "pabee", "elasticbert"],
    output: PathOption,
    labels: list[str] | None = None,
    order: list[str] | None = None,
    tokenizer: str | None = None,
    last_exit: Literal["classifier", "highway"] = "classifier",
    max_length: int | None = None,
    json: JsonFlag = False,
) -> None:
    """Import a checkpoint of DeeBERT, PABEE or ElasticBERT code: the same logits, an exit after every layer.

    For example `offramp import sst2-deebert --layout deebert --labels negative positive --output runs/deebert`. The
    imported model can be tuned, evaluated, attacked and exported like a model of `offramp train`.

    Args:
        checkpoint: folder with config.json, and model.safetensors or pytorch_model.bin.
        layout: the code that wrote it: deebert (BERT, RoBERTa), pabee (BERT, ALBERT) or elasticbert.
        output: folder of the model, new or empty.
        labels: class names in the order of the outputs, as your data calls them; by default those in config.json.
        order: the same names in the order of your data, if it differs, as for MNLI.
        tokenizer: packaged encoder, folder or hub id with the tokenizer, if the checkpoint has none.
        last_exit: head of the last exit of deebert: classifier, or highway for the last off-ramp, which DeeBERT does
            not train.
        max_length: longest input in tokens.
    """
    refuse_filled(output)
    check_writable(output)
    with progress(f"import {checkpoint.name}"):
        from offramp.model import import_checkpoint as load

        model = load(
            checkpoint,
            layout,
            labels=labels,
            order=order,
            tokenizer=tokenizer,
            last_exit=last_exit,
            max_length=max_length,
        )
        model.save_pretrained(output / "model")
    answers = ", ".join(model.labels) or "one value"
    note(f"{len(model.exit_layers)} exits on {model.config.backbone.model_type}; answers: {answers}")
    note(f"model: {output / 'model'}")
    described = {"kind": model.kind, "labels": model.labels, "exit_layers": model.exit_layers}
    emit(json, {"model": str(output / "model"), "layout": layout, **described})
