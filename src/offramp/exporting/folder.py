"""The contents of an exported folder: graphs, tokenizer, policy, checks and manifest."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from offramp._core.environment import versions
from offramp._core.errors import ModelError
from offramp._core.text import clean_text
from offramp.engine.batching import Encoding, batches
from offramp.engine.manifest import FILE_NAME, Manifest, sha256
from offramp.engine.onnx import OnnxSegments, OnnxState
from offramp.engine.policy import Policy
from offramp.engine.segment_times import measure_segments
from offramp.exporting.fused_graph import RULES, write_fused
from offramp.exporting.graphs import INLINE_BYTES, OPSET, export_graphs
from offramp.exporting.parity import TEXTS, compare_exports
from offramp.exporting.quantise import quantise_graph
from offramp.model.base import SegmentedModel
from offramp.model.encoding import TextEncoder

POLICY = "policy.json"
FUSED = "single.onnx"
TOKENIZER = "tokenizer.json"
LINEAR = "layer-0.npz"


def write_graphs(
    model: SegmentedModel, encoder: TextEncoder, policy: Policy | None, folder: Path
) -> Manifest:
    """Write the segments' graphs in float32, tokenizer and policy. Return a manifest without checks."""
    names = tuple(encoder([""])[0])
    needed = policy is not None and policy.criterion.needs_residual
    graphs = export_graphs(model, names, folder, residuals=needed)
    write_tokenizer(encoder, folder / TOKENIZER)
    if model.linear is not None:
        model.linear.stage.save(folder / LINEAR)
    if policy is not None:
        policy.save(folder / POLICY)
    model.flops(np.array([1]))  # counts the coefficients if they are not known yet
    assert model.config.costs is not None
    manifest = Manifest(
        precision="fp32",
        kind=model.kind,
        labels=model.labels,
        exit_layers=model.exit_layers,
        gates=model.gates,
        max_length=model.max_length,
        inputs=names,
        pad_values={name: encoder.pad_values[name] for name in names},
        costs=model.config.costs,
        segments=graphs.segments,
        shared=graphs.shared,
        reads_padding=model.reads_padding,
        pair=model.pair,
        architecture=str(model.config.backbone.model_type),
        opset=OPSET,
        policy="" if policy is None else POLICY,
        tokenizer=TOKENIZER,
        linear="" if model.linear is None else LINEAR,
        versions=versions(),
    )
    manifest.save(folder)
    return manifest


def write_int8(
    model: SegmentedModel,
    fp32: Manifest,
    source: Path,
    folder: Path,
    calibration: Sequence[Encoding],
    compared: Sequence[Encoding],
    labels: Any = None,
) -> Manifest:
    """Write the int8 version of a float32 folder, and compare it with the torch model.

    Args:
        model: the torch model.
        fp32: manifest of the float32 folder.
        source: the float32 folder.
        folder: the folder to write.
        calibration: a few hundred real texts, which give the ranges of the activations.
        compared: texts on which the graphs are compared with the model.
        labels: of these texts.
    """
    folder.mkdir()
    segments = OnnxSegments(source, verify=False)
    feeds: list[list[OnnxState]] = [[] for _ in fp32.segments]
    for _, batch in batches(calibration, 16, fp32.pad_values, alike=segments.reads_padding):
        state = segments.start(batch)
        for k, segment in enumerate(fp32.segments):
            feeds[k].append({name: state[name] for name in segment.inputs})
            state, _ = segments.run(k + segments.ahead, state)
    for segment, inputs in zip(fp32.segments, feeds, strict=True):
        quantise_graph(source / segment.file, folder / segment.file, inputs)
    for name in {fp32.tokenizer, fp32.policy, fp32.linear} - {""}:
        shutil.copyfile(source / name, folder / name)
    policy = Policy.load(folder / fp32.policy) if fp32.policy else None
    manifest = replace(fp32, precision="int8", fused_graph="", fused_rule="")
    return seal(manifest, folder, model, policy, compared, labels)


def seal(
    manifest: Manifest,
    folder: Path,
    model: SegmentedModel,
    policy: Policy | None,
    compared: Sequence[Encoding],
    labels: Any = None,
) -> Manifest:
    """Write the fused graph, compare the folder with its model, and write the manifest with checksums."""
    sizes = [(folder / segment.file).stat().st_size for segment in manifest.segments]
    joinable = len(sizes) > 1 and sum(sizes) <= INLINE_BYTES  # larger models run only as segments
    if joinable and policy is not None and policy.criterion.name in RULES and not policy.recall:
        rule = policy.criterion.name
        write_fused(folder, manifest, rule, folder / FUSED)
        manifest = replace(manifest, fused_graph=FUSED, fused_rule=rule, fused_thresholds=True)
    files = {path.name: sha256(path) for path in sorted(folder.iterdir()) if path.name != FILE_NAME}
    manifest = replace(manifest, files=files, checks={})
    manifest.save(folder)
    checks = compare_exports(model, folder, compared, policy, labels)
    times: dict[str, Any] = {}
    if policy is not None:
        exported = OnnxSegments(folder, threads=1, verify=False)
        longest = max(compared, key=lambda encoding: len(encoding["input_ids"]))
        times = asdict(measure_segments(exported, longest, threads=1, longest=manifest.max_length))
    manifest = replace(manifest, checks=checks, times=times)
    manifest.save(folder)
    return manifest


def write_tokenizer(encoder: TextEncoder, path: Path) -> None:
    """Write the fast tokenizer with the model's truncation, and check that the file alone gives the same ids."""
    from tokenizers import Tokenizer

    core = Tokenizer.from_str(encoder.tokenizer.backend_tokenizer.to_str())
    core.no_padding()
    core.enable_truncation(encoder.max_length, direction=encoder.tokenizer.truncation_side)
    core.save(str(path))
    texts = [clean_text(text) for text in TEXTS]
    ids = [encoding.ids for encoding in Tokenizer.from_file(str(path)).encode_batch(texts)]
    if ids != [encoding["input_ids"] for encoding in encoder(texts)]:
        raise ModelError(
            "this tokenizer gives other ids in transformers than from its tokenizer.json alone and cannot be exported: "
            "run the model with backend='torch'"
        )
