"""The exports that all baselines of a benchmark are built from."""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import tempfile
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from offramp._core import progress as display
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
from offramp.calibration.thresholds import tune_threshold
from offramp.data import fingerprint, fitting_labels
from offramp.data.text_data import TextData
from offramp.engine.batching import PaddedBatch, batches
from offramp.engine.manifest import Manifest, sha256
from offramp.engine.policy import Policy
from offramp.exporting.folder import write_int8
from offramp.exporting.graphs import silent
from offramp.exporting.joining import write_cut
from offramp.exporting.quantise import quantise_graph
from offramp.exporting.run import Texts, export_model
from offramp.inference.tracing import trace
from offramp.model import read_model
from offramp.model.base import SegmentedModel
from offramp.model.encoding import TextEncoder

DONE = "prepared"  # file that says of what the exports are
SEGMENTS = ("segments in fp32", "segments in int8")


def prepare(model: Path, work: Path, policy: Policy, texts: Texts, *, progress: bool = False) -> None:
    """Export a model for every baseline: segments in float32 and int8, and one graph for each static model.

    Existing exports of the same model, policy and texts are reused.

    Args:
        model: folder of the trained model.
        work: folder for the exports.
        policy: of our engines.
        texts: on which int8 scales are taken, and exports compared.
        progress: show a progress bar.
    """
    done, stamp = work / DONE, stamp_of(model, policy, texts)
    if is_done(done, stamp):
        return
    done.unlink(missing_ok=True)
    loaded = read_model(model)
    layers = [layer for layer in loaded.exit_layers if layer]  # layer 0 is no graph
    named = (*SEGMENTS, *(f"layer {layer} in int8" for layer in layers), "int8 by other tools")
    stages = iter(enumerate(named))

    def begin() -> None:
        done, name = next(stages)
        update(done, None, name)

    with display.progress("make exports", len(named), show=progress) as update:
        manifest, feeds = _export_segments(loaded, work, policy, texts, begin)
        _export_whole(work, manifest, layers, feeds, begin)
    write_text(done, stamp)


def _export_segments(
    model: SegmentedModel, work: Path, policy: Policy, texts: Texts, begin: Callable[[], None]
) -> tuple[Manifest, list[PaddedBatch]]:
    """Segments in float32 and int8; returns their manifest, and the batches that int8 scales are taken on."""
    begin()
    manifest = export_model(model, work / "fp32", policy=policy, texts=texts)
    begin()
    encoder = TextEncoder.of(model)
    encodings = encoder.dataset(texts.calibration)[0]
    shutil.rmtree(work / "int8", ignore_errors=True)
    compared = encoder.dataset(texts.comparison)[0]
    labels = fitting_labels(texts.comparison, model.labels, model.kind, pair=model.pair)
    write_int8(model, manifest, work / "fp32", work / "int8", encodings, compared, labels)
    padded = [batch for _, batch in batches(encodings, 16, manifest.pad_values)]
    return manifest, [{name: batch[name] for name in manifest.inputs} for batch in padded]


def _export_whole(
    work: Path,
    manifest: Manifest,
    layers: Sequence[int],
    feeds: Sequence[PaddedBatch],
    begin: Callable[[], None],
) -> None:
    """One graph for each static model, from the segments in float32."""
    full = work / "full"
    full.mkdir(parents=True, exist_ok=True)
    (full / "nncf.xml").unlink(missing_ok=True)  # the one file that is not always made anew
    with tempfile.TemporaryDirectory(dir=work) as scratch:
        for segment, layer in enumerate(layers):
            begin()
            source = full / "fp32.onnx" if layer == layers[-1] else Path(scratch) / "cut.onnx"
            write_cut(work / "fp32", manifest, segment, source)
            quantise_graph(source, full / int8_graph(layer, layers), feeds)
    begin()
    quantise_dynamically(full / "fp32.onnx", full / "dynamic.onnx")
    if importlib.util.find_spec("nncf") and importlib.util.find_spec("openvino"):
        quantise_with_nncf(full / "fp32.onnx", full / "nncf.xml", feeds)


def tune_points(
    artifacts: BenchArtifacts,
    model: SegmentedModel,
    data: TextData,
    policy: Policy,
    *,
    progress: bool = False,
) -> None:
    """Tune our engine for each of the artifacts' drops, with the rule and the kind of thresholds of a policy.

    Args:
        artifacts: say where the policies belong.
        model: the trained model.
        data: its data, whose calibration rows the thresholds are chosen on.
        policy: of the other entries of the benchmark.
        progress: show a progress bar.
    """
    if not artifacts.drops:
        return
    run = trace(model, data["calibration"], progress=progress)
    own = isinstance(policy.criterion.threshold, tuple)
    for drop in artifacts.drops:
        tuned = tune_threshold(
            run,
            policy.criterion,
            max_accuracy_drop=drop,
            metric=data.metrics[0],
            temperatures=policy.temperatures is not None,
            thresholds="own" if own else "shared",
            recall=policy.recall,
        )
        artifacts.policy_file(drop).parent.mkdir(exist_ok=True)
        tuned.save(artifacts.policy_file(drop))


def is_done(file: Path, stamp: str) -> bool:
    """Whether a file says that the same work was finished before."""
    return file.is_file() and file.read_text(encoding="utf-8") == stamp


def prepare_text_peers(
    work: Path,
    model: SegmentedModel,
    data: TextData,
    drop: float,
    names: Collection[str],
    *,
    progress: bool = False,
) -> None:
    """Fit the classifiers of baselines that read texts, and tune their cascades with the static int8 models.

    Args:
        work: the folder that `prepare` filled.
        model: the trained model.
        data: its data: the training rows fit the classifiers, the calibration rows the thresholds.
        drop: how far the score of a cascade may be below the whole model's on the calibration rows.
        names: of the baselines.
        progress: show a progress bar.
    """
    learned = [fingerprint(data[split]) for split in ("train", "calibration")]
    stamp = repr((sha256(work / DONE), learned, drop, sorted(names)))
    if not names or is_done(work / FOLDER / DONE, stamp):
        return
    words, classes = training_rows(data["train"], model, data.name)
    with display.progress("fit baselines that read words", 3, show=progress) as update:
        update(0, None, "linear classifier")
        classifier = fit_classifier(words, classes, model.kind)
        cascades = _tune_cascades(work, model, data, drop, classifier)
        save_text_peers(work / FOLDER, classifier, cascades)
        update(1, None, STATIC)
        if STATIC in names:
            StaticEmbeddings.distil(model, words, classes, work / FOLDER / STATIC)
        update(2, None, SETFIT)
        if SETFIT in names:
            SetFitClassifier.train(model, words, classes, work / FOLDER / SETFIT)
    write_text(work / FOLDER / DONE, stamp)


def _tune_cascades(
    work: Path, model: SegmentedModel, data: TextData, drop: float, classifier: Any
) -> dict[str, dict[str, float]]:
    """The cascades of the classifier and each static int8 model; none for regression."""
    if model.kind != "classification":
        return {}
    rows = data.sample("calibration", TUNED)
    layers = tuple(layer for layer in model.exit_layers if layer)
    encodings = TextEncoder.of(model).dataset(rows)[0]
    labels = np.asarray(fitting_labels(rows, model.labels, model.kind, pair=model.pair))
    costs = dict(zip(layers, depth_costs(work, encodings), strict=True))
    artifacts = BenchArtifacts(work, work, 1, layers)
    answers = {
        layer: in_batches(graph(artifacts, int8_graph(layer, layers), lean=True), encodings)
        for layer in layers
    }
    return tune_cascades(classifier, columns(rows), labels, costs, answers, data.metrics[0], drop)


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
