"""Everything that the peers of a bench are built from, exported once."""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from offramp._core.environment import versions
from offramp._core.errors import MissingExtraError
from offramp._core.records import write_text
from offramp.engine.batching import PaddedBatch, batches
from offramp.engine.manifest import Manifest, sha256
from offramp.engine.policy import Policy
from offramp.exporting.folder import write_int8
from offramp.exporting.run import Texts, export_model


def prepare(model: Path, work: Path, policy: Policy, texts: Texts) -> None:
    """Export a model for every peer: segments in float32 and int8, and one graph for each static model.

    Exports of the same model, policy and texts that are there already are used again.

    Args:
        model: folder of the trained model.
        work: folder for the exports.
        policy: of our engines.
        texts: on which int8 scales are taken, and exports compared.
    """
    from offramp.data import fitting_labels
    from offramp.exporting.joining import write_cut
    from offramp.exporting.quantise import quantise_graph
    from offramp.model import read_model
    from offramp.model.encoding import TextEncoder

    done, stamp = work / "prepared", stamp_of(model, policy, texts)
    if done.is_file() and done.read_text(encoding="utf-8") == stamp:
        return
    done.unlink(missing_ok=True)
    loaded = read_model(model)
    manifest = export_model(loaded, work / "fp32", policy=policy, texts=texts)
    encoder = TextEncoder.of(loaded)
    encodings = encoder.dataset(texts.calibration)[0]
    shutil.rmtree(work / "int8", ignore_errors=True)
    compared = encoder.dataset(texts.comparison)[0]
    labels = fitting_labels(texts.comparison, loaded.labels, loaded.kind)
    write_int8(loaded, manifest, work / "fp32", work / "int8", encodings, compared, labels)
    full = work / "full"
    full.mkdir(parents=True, exist_ok=True)
    (full / "nncf.xml").unlink(missing_ok=True)  # the one file that is not always made anew
    feeds: list[Any] = [dict(batch) for _, batch in batches(encodings, 16, manifest.pad_values)]
    with tempfile.TemporaryDirectory(dir=work) as scratch:
        for exit, layer in enumerate(manifest.exit_layers):
            last = exit == len(manifest.exit_layers) - 1
            source = full / "fp32.onnx" if last else Path(scratch) / "cut.onnx"
            write_cut(work / "fp32", manifest, exit, source)
            given = [{name: feed[name] for name in manifest.inputs} for feed in feeds]
            quantise_graph(source, full / ("static.onnx" if last else f"cut-{layer}.onnx"), given)
    quantise_dynamically(full / "fp32.onnx", full / "dynamic.onnx")
    if importlib.util.find_spec("nncf") and importlib.util.find_spec("openvino"):
        quantise_with_nncf(full / "fp32.onnx", full / "nncf.xml", manifest, feeds)
    write_text(done, stamp)


def stamp_of(model: Path, policy: Policy, texts: Texts) -> str:
    """Tells one set of exports from another: model files, policy, calibration texts and versions, as a hash."""
    from offramp.data import fingerprint

    files = [sha256(path) for path in sorted(model.iterdir()) if path.suffix in (".safetensors", ".json")]
    parts = (files, policy, fingerprint(texts.calibration), versions())
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def quantise_dynamically(source: Path, target: Path) -> None:
    """What the library offers at once, and most people run: weights in int8, activations by the batch at hand."""
    from offramp.exporting.graphs import silent

    try:
        from onnxruntime.quantization import QuantType, quantize_dynamic
    except ImportError as error:
        raise MissingExtraError("onnx", "export") from error
    with silent():
        quantize_dynamic(source, target, per_channel=True, weight_type=QuantType.QInt8)


def quantise_with_nncf(source: Path, target: Path, manifest: Manifest, feeds: Sequence[PaddedBatch]) -> None:
    """What OpenVINO's own tool makes of the model, with its settings for transformers."""
    import nncf
    import openvino

    from offramp.exporting.graphs import silent

    given = [{name: feed[name] for name in manifest.inputs} for feed in feeds]
    with silent():
        quantised = nncf.quantize(
            openvino.Core().read_model(str(source)),
            nncf.Dataset(given),
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(given),
        )
    openvino.save_model(quantised, str(target))
