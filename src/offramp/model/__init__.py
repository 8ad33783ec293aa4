"""Multi-exit classifiers and the Multi-Model cascade, both as `transformers` models."""

from offramp.model.cascade import MultiModelConfig, MultiModelForSequenceClassification
from offramp.model.config import MultiExitConfig
from offramp.model.heads import MultiExitOutput
from offramp.model.importing import import_checkpoint
from offramp.model.loading import read_model, require_model
from offramp.model.multi_exit import MultiExitForSequenceClassification

__all__ = [
    "MultiExitConfig",
    "MultiExitForSequenceClassification",
    "MultiExitOutput",
    "MultiModelConfig",
    "MultiModelForSequenceClassification",
    "import_checkpoint",
    "read_model",
    "require_model",
]
