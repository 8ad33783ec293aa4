"""The names of a classifier's modules in the state dicts of released early-exit code, as data."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from offramp.backbones import SPECS

LastExit = Literal["classifier", "highway"]


@dataclass(frozen=True)
class Layout:
    """The names of one code base. `{encoder}` is the encoder's prefix, `{exit}` an exit counted from 0, `{pooler}` the
    path of the encoder's own pooler.

    Attributes:
        encoders: prefix of the encoder's names, to its architecture.
        pooler: the dense layer that reads the first token at an exit; a tanh follows it.
        classifier: the linear layer after it.
        final: pooler and classifier of the model itself, where they are not those of the last exit.
    """

    encoders: dict[str, str]
    pooler: str
    classifier: str
    final: tuple[str, str] | None = None

    def head(self, encoder: str, exit: int) -> tuple[str, str]:
        """Paths of the pooler and the classifier of an exit."""
        return self._path(self.pooler, encoder, exit), self._path(self.classifier, encoder, exit)

    def final_head(self, encoder: str) -> tuple[str, str] | None:
        """Paths of the model's own pooler and classifier, or None."""
        return None if self.final is None else (self._path(self.final[0], encoder), self.final[1])

    def encoder_of(self, keys: Collection[str]) -> str | None:
        """Prefix of the encoder in a state dict, or None for another layout."""
        for encoder in self.encoders:
            if all(f"{path}.weight" in keys for path in self.head(encoder, 0)):
                return encoder
        return None

    def _path(self, template: str, encoder: str, exit: int = 0) -> str:
        return template.format(encoder=encoder, exit=exit, pooler=SPECS[self.encoders[encoder]].pooler)


LAYOUTS: dict[str, Layout] = {
    # Xin et al. 2020 (arXiv 2004.12993). An off-ramp ("highway") after every layer, the last included, and the
    # classifier with which BERT or RoBERTa was fine-tuned.
    "deebert": Layout(
        encoders={"bert": "bert", "roberta": "roberta"},
        pooler="{encoder}.encoder.highway.{exit}.pooler.dense",
        classifier="{encoder}.encoder.highway.{exit}.classifier",
        final=("{encoder}.{pooler}", "classifier"),
    ),
    # Liu et al. 2022 (arXiv 2110.07038), the code for fine-tuning with exits: a pooler and a classifier a layer.
    "elasticbert": Layout(
        encoders={"elasticbert": "bert"},
        pooler="{encoder}.encoder.pooler.{exit}.dense",
        classifier="classifiers.{exit}",
    ),
    # Zhou et al. 2020 (arXiv 2006.04152). One pooler that all exits share, and a classifier a layer.
    "pabee": Layout(
        encoders={"albert": "albert", "bert": "bert"},
        pooler="{encoder}.{pooler}",
        classifier="classifiers.{exit}",
    ),
}
