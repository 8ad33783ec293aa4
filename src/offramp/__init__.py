"""offramp: multi-exit transformers. Train classifiers that leave early, run them fast, attack the savings."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from offramp._core.deferred_configs import defer_configs

if TYPE_CHECKING:
    from offramp._core.errors import OfframpError
    from offramp._core.trace import Trace
    from offramp.attacks import AttackResult, attack
    from offramp.calibration import tune
    from offramp.criteria import make_criterion
    from offramp.data import load_data
    from offramp.engine.policy import Policy
    from offramp.evaluation import evaluate, speed_accuracy
    from offramp.exporting.run import export
    from offramp.inference.engine import Engine
    from offramp.inference.loading import load_model
    from offramp.inference.tracing import trace
    from offramp.model import (
        MultiExitConfig,
        MultiExitForSequenceClassification,
        MultiModelForSequenceClassification,
        import_checkpoint,
    )
    from offramp.training.run import train

__version__ = "0.1.0"

# So that the library's Auto classes read our folders; our module is imported when they do.
defer_configs({"offramp": "offramp.model.loading", "offramp-cascade": "offramp.model.loading"})

# Nothing heavy is imported until a name is used: `import offramp` must cost nothing.
_HOME = {
    "AttackResult": "offramp.attacks",
    "Engine": "offramp.inference.engine",
    "MultiExitConfig": "offramp.model",
    "MultiExitForSequenceClassification": "offramp.model",
    "MultiModelForSequenceClassification": "offramp.model",
    "OfframpError": "offramp._core.errors",
    "Policy": "offramp.engine.policy",
    "Trace": "offramp._core.trace",
    "attack": "offramp.attacks",
    "evaluate": "offramp.evaluation",
    "export": "offramp.exporting.run",
    "import_checkpoint": "offramp.model",
    "load_data": "offramp.data",
    "load_model": "offramp.inference.loading",
    "make_criterion": "offramp.criteria",
    "speed_accuracy": "offramp.evaluation",
    "trace": "offramp.inference.tracing",
    "train": "offramp.training.run",
    "tune": "offramp.calibration",
}

__all__ = [
    "AttackResult",
    "Engine",
    "MultiExitConfig",
    "MultiExitForSequenceClassification",
    "MultiModelForSequenceClassification",
    "OfframpError",
    "Policy",
    "Trace",
    "attack",
    "evaluate",
    "export",
    "import_checkpoint",
    "load_data",
    "load_model",
    "make_criterion",
    "speed_accuracy",
    "trace",
    "train",
    "tune",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'offramp' has no attribute {name!r}")
    try:
        value = getattr(importlib.import_module(_HOME[name]), name)
    except ModuleNotFoundError as error:
        if error.name and error.name.partition(".")[0] in ("torch", "transformers", "datasets", "accelerate"):
            from offramp._core.errors import MissingExtraError

            raise MissingExtraError(error.name, "torch") from error
        raise
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
