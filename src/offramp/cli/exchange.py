"""`offramp import` and `offramp export`: checkpoints of other code, and folders that run without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from offramp._core.errors import ConfigError
from offramp._core.files import policy_file
from offramp.cli.common import DataOptions, JsonFlag, Threads, emit, limit_threads, note, refuse_filled, show

MOST_LOST = 0.005  # accuracy: half a point


def export(
    model: Path,
    *,
    output: Path,
    precision: Literal["fp32", "int8"] = "fp32",
    policy: Path | None = None,
    data: str | None = None,
    examples: int = 300,
    compared: int = 1000,
    reading: DataOptions = DataOptions(),
    threads: Threads = None,
    json: JsonFlag = False,
) -> None:
    """Export a model as ONNX, one graph for each stretch between exits, and compare it with the original.

    For example `offramp export runs/sweet --output served --precision int8 --data movies`. The folder holds graphs,
    tokenizer, policy and a manifest with checksums, and runs with onnxruntime, tokenizers and numpy alone:
    `Engine("served").predict("a gripping film")`.

    Args:
        model: folder that `offramp train` wrote.
        output: output folder: new, empty, or an earlier export, which is replaced.
        precision: fp32, or int8 with scales fixed on real texts, which needs `--data`.
        policy: a policy file; by default the one beside the model, if there is one.
        data: the data that the model was trained on. Its calibration split gives the scales of int8, its validation
            split the texts on which the export is compared.
        examples: texts taken from the calibration split.
        compared: texts taken from the validation split.
    """
    limit_threads(threads)
    from offramp.exporting.run import export as run

    if precision == "int8" and data is None:
        raise ConfigError("int8 takes its scales from real texts: give --data, what the model was trained on")
    usual = model / policy_file("confidence")
    manifest = run(
        model,
        output,
        precision=precision,
        policy=policy or (usual if usual.is_file() else None),
        data=None if data is None else reading.load(data),
        calibration_examples=examples,
        compared_examples=compared,
    )
    if not manifest.policy:
        note("no policy beside the model: pass one to the engine, or tune one first and export again")
    show(f"{precision} against the model", [manifest.checks])
    lost = manifest.checks.get("model_accuracy", 0.0) - manifest.checks.get("accuracy", 0.0)
    if lost > MOST_LOST:
        note(f"{precision} loses {100 * lost:.1f} points of accuracy here: try more --examples, or fp32")
    note(f"export: {output}")
    result = {"precision": precision, "policy": manifest.policy, "checks": manifest.checks}
    emit(json, {"output": str(output), **result})


def import_checkpoint(
    checkpoint: Path,
    *,
    layout: Literal["deebert", "pabee", "elasticbert"],
    output: Path,
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
