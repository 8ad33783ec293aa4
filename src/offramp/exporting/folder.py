"""The contents of an exported folder: graphs, tokenizer, policy, checks and manifest."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from offramp._core.environment import versions
from offramp._core.errors import ModelError
from offramp._core.text import clean_text
from offramp.engine.manifest import FILE_NAME, Manifest, sha256
from offramp.engine.onnx import OnnxSegments
from offramp.engine.policy import Policy
from offramp.engine.segment_times import measure_segments
from offramp.exporting.parity import TEXTS, check_export, fused_differs

if TYPE_CHECKING:
    from offramp.engine.batching import Encoding
    from offramp.model.base import SegmentedModel
    from offramp.model.encoding import TextEncoder

POLICY = "policy.json"
FUSED = "single.onnx"
TOKENIZER = "tokenizer.json"
LARGEST = 1_800_000_000  # a protobuf file ends at 2 GiB; larger models run as segments alone


def write_graphs(
    model: SegmentedModel, encoder: TextEncoder, policy: Policy | None, folder: Path
) -> Manifest:
    """The segments' graphs in float32, tokenizer, policy, and a manifest without checks."""
    from offramp.exporting.graphs import OPSET, export_graphs

    names = tuple(encoder([""])[0])
    graphs = export_graphs(model, names, folder)
    write_tokenizer(encoder, folder / TOKENIZER)
    if policy is not None:
        policy.save(folder / POLICY)
    model.flops(np.array([1]))  # counts the coefficients where nobody has asked for them yet
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
        architecture=str(model.config.backbone.model_type),
        opset=OPSET,
        policy="" if policy is None else POLICY,
        tokenizer=TOKENIZER,
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
    """The int8 twin of a float32 folder, compared with the torch model too."""
    from offramp.exporting.quantise import quantise

    folder.mkdir()
    quantise(source, folder, fp32, calibration)
    for name in {fp32.tokenizer, fp32.policy or fp32.tokenizer}:
        shutil.copyfile(source / name, folder / name)
    policy = Policy.load(folder / fp32.policy) if fp32.policy else None
    manifest = replace(fp32, precision="int8", fused_graph="", fused_rule="")
    return seal(manifest, folder, model, policy, compared, labels)


def add_fused_graph(manifest: Manifest, folder: Path, policy: Policy | None) -> Manifest:
    """Write the fused graph too, if the policy's rule can be decided in one."""
    from offramp.exporting.fused_graph import RULES, write_fused

    if policy is None or policy.criterion.name not in RULES or len(manifest.segments) == 1:
        return manifest
    if sum((folder / segment.file).stat().st_size for segment in manifest.segments) > LARGEST:
        return manifest
    write_fused(folder, manifest, policy.criterion.name, folder / FUSED)
    return replace(manifest, fused_graph=FUSED, fused_rule=policy.criterion.name)


def seal(
    manifest: Manifest,
    folder: Path,
    model: SegmentedModel,
    policy: Policy | None,
    compared: Sequence[Encoding],
    labels: Any = None,
) -> Manifest:
    """Write the fused graph, compare the folder with its model, and write the manifest with checksums."""
    manifest = add_fused_graph(manifest, folder, policy)
    files = {path.name: sha256(path) for path in sorted(folder.iterdir()) if path.name != FILE_NAME}
    manifest = replace(manifest, files=files, checks={})
    manifest.save(folder)
    checks = compare_exports(model, folder, compared, policy, labels)
    exported = OnnxSegments(folder, threads=1, verify=False)
    if manifest.fused_graph and policy is not None:
        checks["single_differs"] = fused_differs(exported, policy, compared)
    times: dict[str, Any] = {}
    if policy is not None:
        longest = max(compared, key=lambda encoding: len(encoding["input_ids"]))
        times = asdict(measure_segments(exported, longest, threads=1, longest=manifest.max_length))
    manifest = replace(manifest, checks=checks, times=times)
    manifest.save(folder)
    return manifest


def compare_exports(
    model: SegmentedModel,
    folder: Path,
    compared: Sequence[Encoding],
    policy: Policy | None,
    labels: Any = None,
) -> dict[str, Any]:
    """How the graphs of a folder answer beside the model; see `parity.check_export`."""
    from offramp.inference.segments import TorchSegments

    exported = OnnxSegments(folder, threads=1, verify=False)
    return check_export(
        TorchSegments(model), exported, compared, exported.manifest.pad_values, policy, labels
    )


def write_tokenizer(encoder: TextEncoder, path: Path) -> None:
    """The fast tokenizer with the model's truncation in it, and a check that the file alone gives the same ids."""
    from tokenizers import Tokenizer

    core = Tokenizer.from_str(encoder.tokenizer.backend_tokenizer.to_str())
    core.no_padding()
    core.enable_truncation(encoder.max_length, direction=encoder.tokenizer.truncation_side)
    core.save(str(path))
    texts = [clean_text(text) for text in TEXTS]
    ids = [encoding.ids for encoding in Tokenizer.from_file(str(path)).encode_batch(texts)]
    if ids != [encoding["input_ids"] for encoding in encoder(texts)]:
        raise ModelError(
            "this tokenizer gives other ids in transformers than from its tokenizer.json alone: it cannot be exported, "
            "run the model with backend='torch'"
        )
