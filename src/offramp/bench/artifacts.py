"""The exports that all baselines of a benchmark are built from."""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from offramp._core.environment import versions
from offramp._core.errors import MissingExtraError
from offramp._core.records import write_text
from offramp.data import fingerprint, fitting_labels
from offramp.engine.batching import PaddedBatch, batches
from offramp.engine.manifest import sha256
from offramp.engine.policy import Policy
from offramp.exporting.folder import write_int8
from offramp.exporting.graphs import silent
from offramp.exporting.joining import write_cut
from offramp.exporting.quantise import quantise_graph
from offramp.exporting.run import Texts, export_model
from offramp.model import read_model
from offramp.model.encoding import TextEncoder


def prepare(model: Path, work: Path, policy: Policy, texts: Texts) -> None:
    """Export a model for every baseline: segments in float32 and int8, and one graph for each static model.

    Existing exports of the same model, policy and texts are reused.

    Args:
        model: folder of the trained model.
        work: folder for the exports.
        policy: of our engines.
        texts: on which int8 scales are taken, and exports compared.
    """
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
    labels = fitting_labels(texts.comparison, loaded.labels, loaded.kind, pair=loaded.pair)
    write_int8(loaded, manifest, work / "fp32", work / "int8", encodings, compared, labels)
    full = work / "full"
    full.mkdir(parents=True, exist_ok=True)
    (full / "nncf.xml").unlink(missing_ok=True)  # the one file that is not always made anew
    padded = [batch for _, batch in batches(encodings, 16, manifest.pad_values)]
    feeds = [{name: batch[name] for name in manifest.inputs} for batch in padded]
    with tempfile.TemporaryDirectory(dir=work) as scratch:
        for exit, layer in enumerate(manifest.exit_layers):
            last = exit == len(manifest.exit_layers) - 1
            source = full / "fp32.onnx" if last else Path(scratch) / "cut.onnx"
            write_cut(work / "fp32", manifest, exit, source)
            quantise_graph(source, full / ("static.onnx" if last else f"cut-{layer}.onnx"), feeds)
    quantise_dynamically(full / "fp32.onnx", full / "dynamic.onnx")
    if importlib.util.find_spec("nncf") and importlib.util.find_spec("openvino"):
        quantise_with_nncf(full / "fp32.onnx", full / "nncf.xml", feeds)
    write_text(done, stamp)


def stamp_of(model: Path, policy: Policy, texts: Texts) -> str:
    """A hash of model files, policy, calibration texts and versions, which identifies a set of exports."""
    files = [sha256(path) for path in sorted(model.iterdir()) if path.suffix in (".safetensors", ".json")]
    parts = (files, policy, fingerprint(texts.calibration), versions())
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def quantise_dynamically(source: Path, target: Path) -> None:
    """ONNX Runtime's dynamic quantisation, the usual choice: int8 weights, activations scaled by each batch."""
    try:
        from onnxruntime.quantization import QuantType, quantize_dynamic
    except ImportError as error:
        raise MissingExtraError("onnx", "export") from error
    with silent():
        quantize_dynamic(source, target, per_channel=True, weight_type=QuantType.QInt8)


def quantise_with_nncf(source: Path, target: Path, feeds: Sequence[PaddedBatch]) -> None:
    """Quantisation by OpenVINO's own tool, with its settings for transformers."""
    import nncf
    import openvino

    with silent():
        quantised = nncf.quantize(
            openvino.Core().read_model(str(source)),
            nncf.Dataset(feeds),
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(feeds),
        )
    openvino.save_model(quantised, str(target))
