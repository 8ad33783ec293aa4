"""SetFit as a baseline: a sentence encoder tuned on pairs of training texts, with a linear classifier on top."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from offramp.model.base import SegmentedModel

STEPS = 500  # of 16 pairs; the package draws far more pairs from thousands of rows than a CPU can train on


class SetFitClassifier:
    """The classifier of the package setfit, as it documents it.

    Args:
        folder: where `train` wrote it.

    Source: Tunstall et al. 2022 (Efficient Few-Shot Learning Without Prompts).
    """

    def __init__(self, folder: Path) -> None:
        from setfit import SetFitModel

        self.model = SetFitModel.from_pretrained(str(folder))

    def predict(self, words: Sequence[str]) -> NDArray[np.int64]:
        """Classes `(examples,)`."""
        return np.asarray(self.model.predict(list(words), use_labels=False)).astype(np.int64)

    @staticmethod
    def train(model: SegmentedModel, words: Sequence[str], labels: NDArray[Any], folder: Path) -> None:
        """Tune the encoder that a model started from, and train the classifier on words and classes."""
        from datasets import Dataset
        from setfit import SetFitModel, Trainer, TrainingArguments

        from offramp.backbones import load_backbone

        encoder, tokenizer = load_backbone(model.config.backbone_config["_name_or_path"])
        with tempfile.TemporaryDirectory() as scratch:
            encoder.save_pretrained(scratch)
            tokenizer.save_pretrained(scratch)
            classifier = SetFitModel.from_pretrained(scratch)
            options = TrainingArguments(
                output_dir=scratch,
                batch_size=16,
                max_steps=STEPS,
                save_strategy="no",
                report_to=[],
                show_progress_bar=False,
                seed=0,
            )
            rows = Dataset.from_dict({"text": list(words), "label": labels.tolist()})
            Trainer(model=classifier, args=options, train_dataset=rows).train()
        classifier.save_pretrained(str(folder))
