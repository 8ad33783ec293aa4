"""Baselines that read words: a linear classifier on TF-IDF, alone and before a second model; model2vec, and SetFit.

They show whether a task needs a transformer for every text, and whether it needs exits in the middle of one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from offramp._core.errors import DataError
from offramp._core.records import write_text
from offramp._core.trace import Kind
from offramp.bench.setfit_peer import SetFitClassifier
from offramp.metrics import score

if TYPE_CHECKING:
    from offramp.model.base import SegmentedModel

Text = tuple[str, ...]  # one text, or the two of a pair
Second = Callable[[Sequence[Text]], NDArray[Any]]  # texts to answers (examples,)

FOLDER, CLASSIFIER, CASCADES = "text-peers", "tfidf.joblib", "cascades.json"
TUNED = 1000  # calibration rows on which cascades are tuned
ALONE = "tfidf"
WHOLE, CUT = "tfidf-full", "tfidf-cut"  # cascades: then the whole model, or one of its first layers
STATIC, SETFIT = "model2vec", "setfit"
# Of peers that need them; model2vec's extra `distill` asks for transformers < 5.4, but works with later ones.
PACKAGES = {STATIC: ("model2vec", "skeletoken"), SETFIT: ("setfit",)}


def text_peers(kind: Kind, layers: Sequence[int]) -> tuple[str, ...]:
    """Names of the baselines for a task and exit layers; a regression has no probability that passes a text on."""
    if kind == "regression":
        return (ALONE,)
    cut = (CUT,) if sum(map(bool, layers)) > 1 else ()
    installed = (name for name, packages in PACKAGES.items() if all(map(find_spec, packages)))
    return (ALONE, WHOLE, *cut, *installed)


def columns(rows: Any) -> list[Text]:
    """The texts of a data set."""
    names = [name for name in ("text", "text_pair") if name in rows.column_names]
    return list(zip(*(rows[name] for name in names), strict=True))


def training_rows(rows: Any, model: SegmentedModel, what: str) -> tuple[list[str], NDArray[Any]]:
    """The texts and labels of a training split that a model was trained on.

    Args:
        rows: the training split.
        model: whose classes the labels are.
        what: the data, for the message.

    Raises:
        DataError: the model was trained on other rows.
    """
    from offramp.data import fitting_labels, row_hashes

    if model.trained_on is not None:
        rows = rows.select(np.flatnonzero(np.isin(row_hashes(rows), model.trained_on)))
    if not len(rows):
        raise DataError(
            f"the model was trained on no row of the training split of {what}, but a baseline learns from the same "
            "rows: give the data that the model was trained on, with the same --data-seed"
        )
    labels = np.asarray(fitting_labels(rows, model.labels, model.kind, pair=model.pair))
    return [" ".join(text) for text in columns(rows)], labels


def fit_classifier(words: Sequence[str], labels: NDArray[Any], kind: Kind) -> Any:
    """Fit TF-IDF of word 1–2-grams with a logistic regression (ridge for regression), as scikit-learn documents it.

    Raises:
        DataError: there is nothing to learn.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline

    last: Any = Ridge() if kind == "regression" else LogisticRegression(max_iter=1000)
    features = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    try:
        return make_pipeline(features, last).fit(words, labels)
    except ValueError as error:  # one class, or no words
        raise DataError(
            f"the baseline {ALONE} cannot learn from the model's training rows ({error}): they need two classes, and "
            "words"
        ) from error


class StaticEmbeddings:
    """The classifier of model2vec on static embeddings, as the package documents it.

    Args:
        folder: where `distil` wrote it.
    """

    def __init__(self, folder: Path) -> None:
        from model2vec.inference import StaticModelPipeline

        self.pipeline = StaticModelPipeline.from_pretrained(str(folder))

    def predict(self, words: Sequence[str]) -> NDArray[np.int64]:
        """Classes `(examples,)`."""
        return np.asarray(self.pipeline.predict(list(words))).astype(np.int64)

    @staticmethod
    def distil(model: SegmentedModel, words: Sequence[str], labels: NDArray[Any], folder: Path) -> None:
        """Distil the encoder that a model started from, and train the classifier on words and classes."""
        from model2vec.distill import distill_from_model
        from model2vec.train import StaticModelForClassification

        from offramp.backbones import load_backbone

        encoder, tokenizer = load_backbone(model.config.backbone_config["_name_or_path"])
        static = distill_from_model(model=encoder, tokenizer=tokenizer)
        classifier = StaticModelForClassification.from_static_model(model=static)
        classifier.fit(list(words), [str(label) for label in labels.tolist()])
        classifier.to_pipeline().save_pretrained(str(folder))


@dataclass(frozen=True)
class TextPeer:
    """Answers with the linear classifier, or with a second model where its probability is below a threshold.

    Attributes:
        classifier: a fitted pipeline.
        threshold: 0 for the classifier alone.
        second: answers the other texts.
        layer: the last layer of the second model; 0 for none.
    """

    classifier: Any
    threshold: float = 0.0
    second: Second | None = None
    layer: int = 0

    def __call__(self, texts: Sequence[Text]) -> NDArray[Any]:
        words = [" ".join(text) for text in texts]
        if self.second is None:
            return np.asarray(self.classifier.predict(words))
        answers, sure = first_answers(self.classifier, words)
        rest = np.flatnonzero(sure < self.threshold)
        if len(rest):
            answers[rest] = self.second([texts[row] for row in rest.tolist()])
        return answers

    def passes(self, texts: Sequence[Text]) -> NDArray[np.bool_]:
        """The texts `(examples,)` that the second model answers."""
        if self.second is None:
            return np.zeros(len(texts), dtype=np.bool_)
        return first_answers(self.classifier, [" ".join(text) for text in texts])[1] < self.threshold


def first_answers(classifier: Any, words: Sequence[str]) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Classes and their probabilities, both `(examples,)`."""
    probabilities = classifier.predict_proba(words)
    return classifier.classes_[probabilities.argmax(axis=1)], probabilities.max(axis=1)


def least_threshold(
    sure: NDArray[np.float64],
    first: NDArray[Any],
    second: NDArray[Any],
    labels: ArrayLike,
    metric: str,
    target: float,
) -> float:
    """The threshold that passes on the fewest texts with at least the target score; infinity if none reaches it.

    Args:
        sure, first: probabilities and answers of the first stage `(examples,)`.
        second: answers of the second `(examples,)`.
        labels: true labels `(examples,)`.
        metric: of the score.
        target: the least score.
    """
    for threshold in [0.0, *np.quantile(sure, np.linspace(0, 1, 101))]:
        if score(metric, labels, np.where(sure < threshold, second, first)) >= target:
            return float(threshold)
    return np.inf


def tune_cascades(
    classifier: Any,
    texts: Sequence[Text],
    labels: ArrayLike,
    costs: Mapping[int, float],
    answers: Mapping[int, NDArray[Any]],
    metric: str,
    drop: float,
) -> dict[str, dict[str, float]]:
    """Thresholds of two cascades: with the whole model, and with the cut that makes the cheapest cascade.

    Args:
        classifier: the first stage.
        texts, labels: the calibration rows.
        costs: layers of a second model → its cost as a share of the whole model's; the deepest is the whole one.
        answers: layers → its answers `(examples,)`.
        metric: of the score.
        drop: how far below the whole model's the score may be.

    Returns:
        By name `layer` and `threshold`; the cheapest cut is the deepest one where none keeps the score.
    """
    first, sure = first_answers(classifier, [" ".join(text) for text in texts])
    whole = max(costs)
    target = score(metric, labels, answers[whole]) - drop
    thresholds = {
        layer: least_threshold(sure, first, answers[layer], labels, metric, target) for layer in costs
    }

    def cost(layer: int) -> tuple[bool, float]:
        passed = float((sure < thresholds[layer]).mean())
        return thresholds[layer] == np.inf, passed * costs[layer]

    chosen = {WHOLE: whole}
    if len(costs) > 1:
        chosen[CUT] = min(sorted(set(costs) - {whole}, reverse=True), key=cost)
    return {name: {"layer": layer, "threshold": thresholds[layer]} for name, layer in chosen.items()}


def save_text_peers(folder: Path, classifier: Any, cascades: Mapping[str, Any]) -> None:
    """Write what `read_text_peer` reads."""
    import joblib

    folder.mkdir(parents=True, exist_ok=True)
    joblib.dump(classifier, folder / CLASSIFIER)
    write_text(folder / CASCADES, json.dumps(cascades))


def read_text_peer(folder: Path, name: str, open_second: Callable[[int], Second]) -> TextPeer:
    """A saved peer; `open_second` opens the model of so many layers."""
    import joblib

    if name == STATIC:
        return TextPeer(StaticEmbeddings(folder / STATIC))
    if name == SETFIT:
        return TextPeer(SetFitClassifier(folder / SETFIT))
    classifier = joblib.load(folder / CLASSIFIER)
    if name not in (WHOLE, CUT):
        return TextPeer(classifier)
    cascade = json.loads((folder / CASCADES).read_text(encoding="utf-8"))[name]
    layer = int(cascade["layer"])
    return TextPeer(classifier, float(cascade["threshold"]), open_second(layer), layer)
