"""A folder of runs as the commands leave it: two models, evaluated and compared, one of them attacked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from offramp._core.records import write_record
from offramp.criteria import make_criterion
from offramp.engine.policy import Policy
from offramp.evaluation import (
    compare,
    exit_histogram,
    interval_table,
    per_exit,
    policy_scores,
    speed_accuracy,
    stack_curves,
)
from offramp.evaluation.conflict import conflict, conflict_table
from tests.evaluation.made_up import LAYERS, attack_row, model_trace

HOSTILE = '<script>alert("x")</script> <img src=http://evil.example/x onerror=alert(1)> \u202eback\u200bwards'


def attack_rows(count: int = 12, recipe: str = "same-word") -> list[dict[str, Any]]:
    """Rows of which most go to a later exit; the first holds a hostile text."""
    rows = [attack_row(i % 3, min(i % 3 + i % 2, 2), id=i, recipe=recipe) for i in range(count)]
    rows[0] = attack_row(0, 2, id=0, recipe=recipe, adversarial_text=HOSTILE)
    return rows


def laddered(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with the probabilities of two classes at every exit: the second exit is always sure of class 0."""
    sides = ("clean", "adversarial")
    ladder = [[0.4, 0.6], [0.9, 0.1], [0.25, 0.75]]
    return [row | {f"{side}_probabilities": ladder for side in sides} for row in rows]


def write_conflict(folder: Path) -> None:
    """The gradient conflict of a model at two training steps."""
    random = np.random.default_rng(0)
    gradients = random.normal(size=(6, LAYERS[-1], len(LAYERS), 20))
    products = np.einsum("blid,bljd->blij", gradients, gradients)
    measured = {step: conflict(products, LAYERS) for step in (10, 20)}
    write_record(
        folder / "conflict.json",
        command="offramp conflict runs/sweet movies",
        config={"data": "movies", "split": "train"},
        metrics={},
        seed=0,
        tables={"conflict": conflict_table(measured).to_pylist()},
    )


def write_evaluation(
    folder: Path, name: str, seed: int = 0, skill: float = 1.0, data: str = "movies"
) -> None:
    """A model's training and evaluation."""
    trace = model_trace(seed, examples=80, layers=LAYERS, skill=skill)
    policy = Policy(make_criterion("confidence", 0.8), LAYERS)
    curve = speed_accuracy(trace, "confidence", points=20, resamples=20)
    tables = {
        "per_exit": per_exit(trace, metrics=("accuracy", "f1"), resamples=20),
        "curves": stack_curves({name: curve}),
        "policy": interval_table(policy_scores(trace, policy, resamples=20).values()),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for table, content in tables.items():
        pq.write_table(content, folder / f"{table}.parquet")
    config = {"data": data, "criterion": "confidence", "threshold": 0.8}
    write_record(folder / "train.json", command="offramp train movies", config=config, metrics={}, seed=seed)
    write_record(
        folder / "evaluate.json",
        command="offramp evaluate movies",
        config=config,
        metrics={"name": name, "metric": "accuracy", "doubts": ["2 examples were cut"]},
        seed=seed,
        tables={t: f"{t}.parquet" for t in tables} | {"histogram": exit_histogram(trace, policy).to_pylist()},
    )


def write_attack(folder: Path, rows: list[dict[str, Any]], **metrics: Any) -> None:
    """An attack on the model in this folder."""
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "attack.parquet")
    write_record(
        folder / "attack.json",
        command="offramp attack runs/sweet movies",
        config={"data": "movies"},
        metrics={"exit_layers": LAYERS} | metrics,
        seed=0,
        tables={"attack": "attack.parquet"},
    )


def write_study(root: Path) -> Path:
    """Everything."""
    write_evaluation(root / "joint", "Early-Exit", 1, 0.8)
    write_evaluation(root / "sweet", "SWEET", 2, 1.2)
    write_attack(root / "sweet" / "attack", laddered(attack_rows()), labels=["bad", "good"])
    write_conflict(root / "sweet" / "conflict")
    traces = {
        name: model_trace(seed, examples=80, layers=LAYERS, skill=skill)
        for name, seed, skill in (("Early-Exit", 1, 0.8), ("SWEET", 2, 1.2))
    }
    found = compare(traces, points=20, resamples=20)
    timing = {"threshold": 0.8, "seconds": 1.0, "full_seconds": 2.0, "time_speedup": 2.0}
    timing |= {"speedup_low": 1.9, "speedup_high": 2.1}
    write_record(
        root / "compare.json",
        command="offramp compare runs",
        config={},
        metrics={"metric": "accuracy"},
        seed=0,
        tables={
            "scores": found.scores.to_pylist(),
            "winners": found.winners.to_pydict(),
            "curves": stack_curves(found.curves).to_pylist(),
            "timing": [timing],
            "notes": [{"note": "ignored"}],
        },
    )
    return root
