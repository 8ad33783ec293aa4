"""Export a trained model to a folder that needs only onnxruntime, tokenizers and numpy."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Literal

from offramp._core import progress as display
from offramp._core.arguments import choice, whole
from offramp._core.errors import ConfigError, ModelError
from offramp._core.files import check_writable
from offramp._core.paths import UserPath, user_path
from offramp.data import TextData, check_fit, fitting_labels, require_text_data
from offramp.engine.batching import Encoding
from offramp.engine.manifest import FILE_NAME, Manifest
from offramp.engine.policy import Policy, read_policy
from offramp.exporting.folder import seal, write_graphs, write_int8
from offramp.exporting.parity import TEXTS, compare_exports, refuse_wrong_graph
from offramp.inference.loading import load_model
from offramp.model.base import SegmentedModel
from offramp.model.card import FILE as CARD
from offramp.model.card import write_export_card
from offramp.model.encoding import TextEncoder
from offramp.model.loading import require_model

Precision = Literal["fp32", "int8"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")
STAGES: dict[Precision, int] = {"fp32": 2, "int8": 3}
MIN_CALIBRATION = 16
FEW = 32  # texts for comparing the graphs behind int8 with the model


def export(
    model: SegmentedModel | UserPath,
    output_dir: UserPath,
    *,
    precision: Precision = "fp32",
    policy: Policy | UserPath | None = None,
    data: TextData | None = None,
    calibration_examples: int = 300,
    compared_examples: int = 1000,
    progress: bool = True,
) -> Manifest:
    """Export a model as ONNX, one graph per segment, and compare it with the original.

    Args:
        model: a trained model, or the folder of one.
        output_dir: the folder to write: new, empty, or an earlier export, which is replaced as a whole.
        precision: `fp32`, or `int8` for static quantisation, which needs `data`.
        policy: when to leave, a `Policy` or its file; by default the policy that is saved with the model. An export
            without a policy needs one at run time.
        data: the data that the model was trained on. Its calibration split gives the scales of int8, and its
            validation split the texts for the comparison.
        calibration_examples: texts taken from the calibration split.
        compared_examples: texts taken from the validation split.
        progress: show a live line.

    Returns:
        The manifest; its `checks` hold the comparison with the model.

    Raises:
        ConfigError: an unknown precision, or int8 without texts.
        ModelError: no tokenizer, an architecture that cannot be exported, or a folder with other files in it.
        CriterionError: the policy was made for another model.
        MissingExtraError: without `onnxscript` or `onnx`.
    """
    texts = Texts()
    calibration_examples = whole("calibration_examples", calibration_examples, 1)
    compared_examples = whole("compared_examples", compared_examples, 1)
    if data is not None:
        require_text_data(data)
        texts = Texts(
            data.sample("calibration", calibration_examples, 0),
            data.sample("validation", compared_examples, 0),
        )
    stages = iter(range(STAGES[precision]))
    with display.progress("export", STAGES[precision], show=progress) as update:
        return export_model(
            model,
            output_dir,
            precision=precision,
            policy=policy,
            texts=texts,
            on_stage=lambda stage: update(next(stages), None, stage),
        )


@dataclass(frozen=True)
class Texts:
    """The texts of an export.

    Attributes:
        calibration: a `datasets.Dataset` for the scales of int8; never the reported split.
        comparison: a `datasets.Dataset` for comparing the export with its model; None takes a few built-in
            sentences.
    """

    calibration: Any = None
    comparison: Any = None


def export_model(
    model: SegmentedModel | UserPath,
    output_dir: UserPath,
    *,
    precision: Precision = "fp32",
    policy: Policy | UserPath | None = None,
    texts: Texts = Texts(),
    on_stage: Callable[[str], object] = lambda stage: None,
) -> Manifest:
    """Export a multi-exit model or a cascade with texts from any source; see `export`.

    `on_stage` is called with the name of each of the `STAGES`.
    """
    choice("precision", precision, PRECISIONS)
    folder = check_output(user_path(output_dir, "output_dir"))
    check_writable(folder)
    if isinstance(model, str | PathLike):
        loaded = load_model(model)
        source = str(loaded.name_or_path)
    else:  # it may have changed since it was loaded
        loaded, source = require_model(model), ""
    chosen = read_policy(policy) or loaded.policy
    if chosen is not None:
        chosen.check(loaded.exit_layers, loaded.kind, loaded.gates, loaded.num_labels)
    encoder = TextEncoder.of(loaded)
    calibration, compared, labels = _encode(loaded, encoder, texts)
    if precision == "int8" and len(calibration) < MIN_CALIBRATION:
        raise ConfigError(
            f"int8 takes the ranges of its activations from real texts: give at least {MIN_CALIBRATION}, "
            f"got {len(calibration)}"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch:
        draft = Path(scratch) / "fp32"
        draft.mkdir()
        on_stage("write graphs")
        manifest = write_graphs(loaded, encoder, chosen, draft)
        on_stage("compare")
        if precision == "int8":
            refuse_wrong_graph(compare_exports(loaded, draft, compared[:FEW], chosen))
            on_stage("quantise")
            fp32, draft = draft, Path(scratch) / "int8"
            manifest = write_int8(loaded, manifest, fp32, draft, calibration, compared, labels)
        else:
            manifest = seal(manifest, draft, loaded, chosen, compared, labels)
            refuse_wrong_graph(manifest.checks)
        if (folder / CARD).is_file():  # words of the owner stay
            shutil.copyfile(folder / CARD, draft / CARD)
        exported = {"precision": precision, "checks": manifest.checks}
        write_export_card(draft, loaded.config, source, exported)
        shutil.rmtree(folder, ignore_errors=True)
        draft.rename(folder)
    return manifest


def _encode(
    model: SegmentedModel, encoder: TextEncoder, texts: Texts
) -> tuple[Sequence[Encoding], Sequence[Encoding], Any]:
    """Texts to calibrate on, texts to compare on, and their labels or None."""
    calibration: Sequence[Encoding] = []
    if texts.calibration is not None:
        check_fit(texts.calibration, model.labels, model.kind, pair=model.pair)
        calibration = encoder.dataset(texts.calibration)[0]
    labels = None
    if texts.comparison is None:
        compared = encoder(list(TEXTS))
    else:
        compared = encoder.dataset(texts.comparison)[0]
        labels = fitting_labels(texts.comparison, model.labels, model.kind, pair=model.pair)
    if labels is None:  # some tokenizers have no token for an empty text
        compared = [encoding for encoding in compared if encoding["input_ids"]]
    return calibration, compared, labels


def check_output(folder: Path) -> Path:
    """The folder as an absolute path, or a `ModelError` if it holds anything but an earlier export."""
    folder = folder.resolve()  # "." has no name, and a link would itself be replaced
    if not folder.exists():
        return folder
    held = {path.name for path in folder.iterdir()} if folder.is_dir() else {folder.name}
    try:  # attacks have a file of this name too, so only files that an export's manifest lists are replaced
        own = {FILE_NAME, CARD, *Manifest.load(folder).files}
    except ModelError:
        own = set()
    if foreign := sorted(held - own):
        raise ModelError(
            f"{folder} holds other files than an export ({', '.join(foreign[:3])}): choose a new folder, or empty it"
        )
    return folder
