"""Export a trained model: a folder that runs with onnxruntime, tokenizers and numpy alone."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from offramp._core.environment import versions
from offramp._core.errors import ConfigError, ModelError, unknown_name
from offramp._core.text import clean_text
from offramp.engine.manifest import FILE_NAME, Manifest, sha256
from offramp.engine.onnx import OnnxSegments
from offramp.engine.policy import Policy
from offramp.engine.segment_times import measure_segments
from offramp.export.parity import TEXTS, check_export, refuse_wrong_graph, single_differs

if TYPE_CHECKING:
    from offramp.engine.batching import Encoding
    from offramp.model.base import SegmentedModel
    from offramp.model.encoding import TextEncoder

Precision = Literal["fp32", "int8"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")
POLICY = "policy.json"
SINGLE = "single.onnx"
TOKENIZER = "tokenizer.json"
MIN_CALIBRATION = 16
FEW = 32  # texts on which the graphs that int8 is made from are compared with the model
LARGEST = 1_800_000_000  # a protobuf file ends at 2 GiB; larger models run as segments alone


@dataclass(frozen=True)
class Texts:
    """Real texts that an export needs.

    Attributes:
        calibration: a `datasets.Dataset` on which int8 scales are taken; never the one that is reported on.
        comparison: one on which the export is compared with its model; None takes a few built-in sentences.
    """

    calibration: Any = None
    comparison: Any = None


def export_model(
    model: SegmentedModel | str | Path,
    output: str | Path,
    *,
    precision: Precision = "fp32",
    policy: Policy | str | Path | None = None,
    texts: Texts = Texts(),
) -> Manifest:
    """Export a multi-exit model or a cascade as ONNX graphs, one a segment, with all that is needed to run them.

    Args:
        model: a trained model, or the folder of one.
        output: the folder to write: new, empty, or an earlier export, which is replaced as a whole.
        precision: `fp32`, or `int8` for static quantisation, which needs `texts.calibration`.
        policy: when to leave, a `Policy` or its file; without one it has to be passed to the engine.
        texts: for calibration and comparison.

    Returns:
        The manifest; its `checks` say how the export compares with the model.

    Raises:
        ModelError: no tokenizer, an architecture that cannot be exported, or a folder with other things in it.
        ConfigError: an unknown precision, or int8 without texts to calibrate on.
        CriterionError: a policy for another model.
        MissingExtraError: without `onnxscript` or `onnx`.
    """
    from offramp.data import fitting_labels
    from offramp.model import read_model
    from offramp.model.encoding import TextEncoder

    if precision not in PRECISIONS:
        raise ConfigError(unknown_name("precision", precision, PRECISIONS))
    folder = check_output(Path(output))
    loaded = read_model(model) if isinstance(model, str | Path) else model
    chosen = Policy.load(policy) if isinstance(policy, str | Path) else policy
    if chosen is not None:
        chosen.check(loaded.exit_layers, loaded.kind, loaded.gates)
    encoder = TextEncoder.of(loaded)
    calibration = None if texts.calibration is None else encoder.dataset(texts.calibration)[0]
    if precision == "int8" and (calibration is None or len(calibration) < MIN_CALIBRATION):
        raise ConfigError(
            f"int8 takes the ranges of its activations from real texts: give at least {MIN_CALIBRATION}, "
            f"got {len(calibration or ())}"
        )
    compared = encoder(list(TEXTS)) if texts.comparison is None else encoder.dataset(texts.comparison)[0]
    labels = None
    if texts.comparison is not None:
        labels = fitting_labels(texts.comparison, loaded.labels, loaded.kind)
    if labels is None:
        compared = [one for one in compared if one["input_ids"]]  # some tokenizers give no token for no text
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch:
        draft = Path(scratch) / "fp32"
        draft.mkdir()
        manifest = write_graphs(loaded, encoder, chosen, draft)
        if precision == "int8":
            refuse_wrong_graph(compare_exports(loaded, draft, compared[:FEW], chosen))
            fp32, draft = draft, Path(scratch) / "int8"
            manifest = write_int8(loaded, manifest, fp32, draft, calibration or [], compared, labels)
        else:
            manifest = seal(manifest, draft, loaded, chosen, compared, labels)
            refuse_wrong_graph(manifest.checks)
        shutil.rmtree(folder, ignore_errors=True)
        draft.rename(folder)
    return manifest


def check_output(folder: Path) -> Path:
    """The folder as an absolute path, or a `ModelError` where it holds anything but an earlier export."""
    folder = folder.resolve()  # `.` has no name, and a link would be replaced instead of what it points to
    if not folder.exists():
        return folder
    held = {path.name for path in folder.iterdir()} if folder.is_dir() else {folder.name}
    try:  # an attack keeps a file of this name too: what is replaced is what the manifest of an export lists
        own = {FILE_NAME, *Manifest.load(folder).files}
    except ModelError:
        own = set()
    if foreign := sorted(held - own):
        raise ModelError(
            f"{folder} holds other things than an export ({', '.join(foreign[:3])}): choose a new folder, or empty it"
        )
    return folder


def write_graphs(
    model: SegmentedModel, encoder: TextEncoder, policy: Policy | None, folder: Path
) -> Manifest:
    """The segments' graphs in float32, tokenizer, policy, and a manifest without checks."""
    from offramp.export.graphs import OPSET, export_graphs

    names = tuple(encoder([""])[0])
    graphs = export_graphs(model, names, folder)
    write_tokenizer(encoder, folder / TOKENIZER)
    if policy is not None:
        policy.save(folder / POLICY)
    model.flops(_lengths([1]))  # counts the coefficients where nobody has asked for them yet
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
    from offramp.export.quantise import quantise

    folder.mkdir()
    quantise(source, folder, fp32, calibration)
    for name in {fp32.tokenizer, fp32.policy or fp32.tokenizer}:
        shutil.copyfile(source / name, folder / name)
    policy = Policy.load(folder / fp32.policy) if fp32.policy else None
    manifest = replace(fp32, precision="int8", single="", single_rule="")
    return seal(manifest, folder, model, policy, compared, labels)


def add_single(manifest: Manifest, folder: Path, policy: Policy | None) -> Manifest:
    """Write the single graph too, where the policy's rule can be decided in one."""
    from offramp.export.fused_graph import RULES, write_single

    if policy is None or policy.criterion.name not in RULES or len(manifest.segments) == 1:
        return manifest
    if sum((folder / part.file).stat().st_size for part in manifest.segments) > LARGEST:
        return manifest
    write_single(folder, manifest, policy.criterion.name, folder / SINGLE)
    return replace(manifest, single=SINGLE, single_rule=policy.criterion.name)


def seal(
    manifest: Manifest,
    folder: Path,
    model: SegmentedModel,
    policy: Policy | None,
    compared: Sequence[Encoding],
    labels: Any = None,
) -> Manifest:
    """Write the single graph too, take the checksums, compare the folder with its model, and write the manifest."""
    manifest = add_single(manifest, folder, policy)
    files = {path.name: sha256(path) for path in sorted(folder.iterdir()) if path.name != FILE_NAME}
    manifest = replace(manifest, files=files, checks={})
    manifest.save(folder)
    checks = compare_exports(model, folder, compared, policy, labels)
    exported = OnnxSegments(folder, threads=1, verify=False)
    if manifest.single and policy is not None:
        checks["single_differs"] = single_differs(exported, policy, compared)
    times: dict[str, Any] = {}
    if policy is not None:
        longest = max(compared, key=lambda one: len(one["input_ids"]))
        times = measure_segments(exported, longest, threads=1, longest=manifest.max_length).to_dict()
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
    found = [one.ids for one in Tokenizer.from_file(str(path)).encode_batch(texts)]
    if found != [one["input_ids"] for one in encoder(texts)]:
        raise ModelError(
            "this tokenizer does more in transformers than its tokenizer.json says: it cannot be exported, run the "
            "model with backend='torch'"
        )


def _lengths(lengths: Sequence[int]) -> Any:
    import numpy as np

    return np.asarray(lengths, dtype=np.int64)
