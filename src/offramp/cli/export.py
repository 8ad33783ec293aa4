"""`offramp export`: write a trained model as a folder that runs without PyTorch."""

from __future__ import annotations

from typing import Literal

from offramp._core.errors import ConfigError
from offramp._core.files import policy_file
from offramp.cli.common import DataOptions, JsonFlag, Threads, emit, limit_threads, note, show
from offramp.cli.paths import PathOption

MOST_LOST = 0.005  # accuracy: half a point


def export(
    model: PathOption,
    *,
    output: PathOption,
    precision: Literal["fp32", "int8"] = "fp32",
    policy: PathOption | None = None,
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
