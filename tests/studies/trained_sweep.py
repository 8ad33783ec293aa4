"""A sweep trained for real on a tiny encoder, its models kept: what attack studies attack."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from offramp.studies.grid import run_grid
from offramp.studies.training.plan import make_sweep

FAST: dict[str, Any] = {"top_n": 4, "beam": 1, "rounds": 1}


def write_reviews(path: Path, data: Any) -> Path:
    """The tiny data, every text twice, as one CSV file."""
    pairs = [(row["text"], row["label"]) for split in data.values() for row in split]
    rows = [f"{text}{end},{label}" for text, label in pairs for end in ("", " story")]
    path.write_text("\n".join(["text,label", *rows]) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_data: Any, tiny_encoder: Path) -> dict[str, Any]:
    """`models`, the folder of a sweep with gates, and the keys of a small study on it."""
    folder = tmp_path_factory.mktemp("trained")
    task = str(write_reviews(folder / "reviews.csv", tiny_data))
    plan = make_sweep(
        {
            "backbones": {str(tiny_encoder): [1, 2, 4]},
            "tasks": [task],
            "strategies": {"joint": {"gates": True}, "sweet": None},
            "seeds": [0, 1],
            "learning_rate": 2e-3,
            "training": {"max_steps": 30, "batch_size": 16},
        }
    )
    assert run_grid(plan, folder / "models", keep_models=True) == {}
    keys: dict[str, Any] = {
        "models": str(folder / "models"),
        "tasks": {task: [0, 1]},
        "strategies": ["joint", "sweet"],
        "criteria": ["confidence", "patience"],
        "recipes": {"same-word": None, "floor": {"recipe": "random-word"}},
        "options": FAST,
        "examples": 6,
        "similarity": "none",
    }
    return {"models": folder / "models", "task": task, "keys": keys}
