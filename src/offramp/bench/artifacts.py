"""The exports that all baselines of a benchmark are built from."""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from offramp._core.environment import versions
from offramp._core.errors import MissingExtraError
from offramp._core.records import write_text
from offramp.bench.baselines import BenchArtifacts, graph, in_batches, int8_graph
from offramp.bench.measures import depth_costs
from offramp.bench.optimum_peers import FOLDER as OPTIMUM
from offramp.bench.optimum_peers import OptimumEnvironment, write_checkpoint
from offramp.bench.setfit_peer import SetFitClassifier
from offramp.bench.text_peers import (
    FOLDER,
    SETFIT,
    STATIC,
    TUNED,
    StaticEmbeddings,
    Text,
    columns,
    fit_classifier,
    save_text_peers,
    training_rows,
    tune_cascades,
)
from offramp.data import fingerprint, fitting_labels
from offramp.data.text_data import TextData
from offramp.engine.batching import PaddedBatch, batches
from offramp.engine.manifest import sha256
from offramp.engine.policy import Policy
from offramp.exporting.folder import write_int8
from offramp.exporting.graphs import silent
from offramp.exporting.joining import write_cut
from offramp.exporting.quantise import quantise_graph
from offramp.exporting.run import Texts, export_model
from offramp.model import read_model
from offramp.model.base import SegmentedModel
from offramp.model.encoding import TextEncoder

DONE = "prepared"  # file that says of what the exports are


def prepare(model: Path, work: Path, policy: Policy, texts: Texts) -> None:
    """Export a model for every baseline: segments in float32 and int8, and one graph for each static model.

    Existing exports of the same model, policy and texts are reused.

    Args:
        model: folder of the trained model.
        work: folder for the exports.
        policy: of our engines.
        texts: on which int8 scales are taken, and exports compared.
    """
    done, stamp = work / DONE, stamp_of(model, policy, texts)
    if is_done(done, stamp):
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
    layers = [layer for layer in manifest.exit_layers if layer]  # layer 0 is no graph
    with tempfile.TemporaryDirectory(dir=work) as scratch:
        for segment, layer in enumerate(layers):
            source = full / "fp32.onnx" if layer == layers[-1] else Path(scratch) / "cut.onnx"
            write_cut(work / "fp32", manifest, segment, source)
            quantise_graph(source, full / int8_graph(layer, layers), feeds)
    quantise_dynamically(full / "fp32.onnx", full / "dynamic.onnx")
    if importlib.util.find_spec("nncf") and importlib.util.find_spec("openvino"):
        quantise_with_nncf(full / "fp32.onnx", full / "nncf.xml", feeds)
    write_text(done, stamp)


def is_done(file: Path, stamp: str) -> bool:
    """Whether a file says that the same work was finished before."""
    return file.is_file() and file.read_text(encoding="utf-8") == stamp


def prepare_text_peers(
    work: Path, model: SegmentedModel, data: TextData, drop: float, names: Collection[str]
) -> None:
    """Fit the classifiers of baselines that read texts, and tune their cascades with the static int8 models.

    Args:
        work: the folder that `prepare` filled.
        model: the trained model.
        data: its data: the training rows fit the classifiers, the calibration rows the thresholds.
        drop: how far the score of a cascade may be below the whole model's on the calibration rows.
        names: of the baselines.
    """
    learned = [fingerprint(data[split]) for split in ("train", "calibration")]
    stamp = repr((sha256(work / DONE), learned, drop, sorted(names)))
    if not names or is_done(work / FOLDER / DONE, stamp):
        return
    layers = tuple(layer for layer in model.exit_layers if layer)
    words, classes = training_rows(data["train"], model, data.name)
    classifier = fit_classifier(words, classes, model.kind)
    rows, cascades = data.sample("calibration", TUNED), {}
    if model.kind == "classification":
        encodings = TextEncoder.of(model).dataset(rows)[0]
        labels = np.asarray(fitting_labels(rows, model.labels, model.kind, pair=model.pair))
        costs = dict(zip(layers, depth_costs(work, encodings), strict=True))
        artifacts = BenchArtifacts(work, work, 1, layers)
        answers = {
            layer: in_batches(graph(artifacts, int8_graph(layer, layers), lean=True), encodings)
            for layer in layers
        }
        cascades = tune_cascades(classifier, columns(rows), labels, costs, answers, data.metrics[0], drop)
    save_text_peers(work / FOLDER, classifier, cascades)
    if STATIC in names:
        StaticEmbeddings.distil(model, words, classes, work / FOLDER / STATIC)
    if SETFIT in names:
        SetFitClassifier.train(model, words, classes, work / FOLDER / SETFIT)
    write_text(work / FOLDER / DONE, stamp)


def prepare_optimum(
    work: Path, model: SegmentedModel, texts: Sequence[Text], environment: OptimumEnvironment
) -> None:
    """Write what the peers of another environment read, which then make their own exports.

    Args:
        work: the folder that `prepare` filled.
        model: the trained model.
        texts: on which int8 scales are taken.
        environment: with packages of other versions, the exports are made anew.
    """
    folder, stamp = work / OPTIMUM, repr((sha256(work / DONE), environment.versions))
    if not is_done(folder / DONE, stamp):
        shutil.rmtree(folder, ignore_errors=True)
        write_checkpoint(model, folder, texts)
        write_text(folder / DONE, stamp)


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
