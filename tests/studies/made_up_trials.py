"""Recorded trials of a sweep that was never run: traces made up, records written by the sweep's own code."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from offramp.criteria import make_criterion
from offramp.engine.policy import Policy
from offramp.studies.grid import Plan
from offramp.studies.training.plan import make_sweep
from tests.evaluation.made_up import model_trace

SKILLS = {"joint": 1.0, "multi_model": 1.5, "sweet": 1.2}
LAYERS = (1, 4, 6, 12)
SWEEP: dict[str, Any] = {
    "backbones": {"minilm-l6": list(LAYERS)},
    "tasks": ["sst2", "rte"],
    "strategies": list(SKILLS),
    "seeds": [0, 1, 2],
}


def record_all(folder: Path, content: dict[str, Any] = SWEEP, **skills: float) -> Plan:
    """Write a record for every trial of a sweep; better methods have more skill, and so have larger samples."""
    sweep = make_sweep(content)
    for trial in sweep.trials:
        skill = (SKILLS | skills).get(trial.method.name, 1.0) * (1 + (trial.learning_rate or 0))
        trace = model_trace(
            trial.seed, layers=LAYERS, skill=skill, cascade=trial.method.name == "multi_model", examples=150
        )
        fitted = Policy(make_criterion(trial.rule), LAYERS, [1.0] * len(LAYERS))
        run = replace(trace, fingerprint=trial.task)
        trial.record(folder, run, fitted, "accuracy", {"config": {}, "metrics": {}})
    return sweep
