"""`offramp bench coverage`: how often guaranteed thresholds hold on rows that did not choose them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from offramp._core.errors import DataError
from offramp.calibration.target import FORMS
from offramp.cli.common import (
    DataOptions,
    JsonFlag,
    Seed,
    Threads,
    finish_bench,
    limit_threads,
    load_for,
    note,
)
from offramp.cli.paths import PathOption, results_folder, writing


def bench_coverage(
    model: PathOption,
    data: str,
    *,
    criteria: tuple[str, ...] = ("confidence",),
    alphas: tuple[float, ...] = (0.02, 0.05),
    delta: float = 0.1,
    split: str = "validation",
    examples: int = 5000,
    calibration: int | None = None,
    splits: int = 200,
    seed: Seed = 0,
    output: PathOption | None = None,
    reading: DataOptions = DataOptions(),
    threads: Threads = None,
    json: JsonFlag = False,
) -> None:
    """Choose guaranteed thresholds on random samples of the rows, and measure their risk on the remaining rows.

    For example `offramp bench coverage runs/sweet movies`. Each guarantee of `offramp tune --guarantee` is checked at
    every alpha, with one threshold for all exits and with own thresholds where it covers both. A risk measured on few
    rows is noisy (by 1.6 points for a risk of 5 % on 200 rows). Guarantees then seem to fail more often than they do.

    Args:
        model: folder that `offramp train` wrote.
        data: the data that the model was trained on.
        criteria: exit rules.
        alphas: the largest risks.
        delta: the probability with which the risk of a Learn-then-Test threshold may exceed alpha.
        split: the split whose rows are divided; of train, those that the model was not trained on.
        examples: the largest number of rows.
        calibration: rows that a threshold is chosen on; by default a fifth of all.
        splits: how often the rows are divided.
        seed: chooses the rows and divides them.
        output: folder of the record; by default `bench-promises` inside the model's folder.
    """
    limit_threads(threads)
    from offramp.bench.coverage_check import GuaranteeSpec, check_coverage
    from offramp.inference.tracing import trace

    guarantees = [
        GuaranteeSpec(guarantee, alpha, delta, thresholds)
        for guarantee, forms in FORMS.items()
        for thresholds in forms
        for alpha in alphas
    ]
    started, folder = datetime.now(UTC), results_folder(model, "bench-promises", output)
    with writing(folder, "bench promises"):
        texts = reading.load(data)
        loaded = load_for(model, texts, split, device="auto")
        rows = texts[split]
        if split == "train":
            rows = unseen(rows, loaded.trained_on, model)
        rows = rows.shuffle(seed=seed).select(range(min(examples, len(rows))))
        note(f"{len(rows)} rows of {split} that the model was not trained on")
        table = check_coverage(
            trace(loaded, rows, progress=True),
            criteria,
            guarantees,
            calibration=calibration or len(rows) // 5,
            splits=splits,
            seed=seed,
            progress=True,
        )
        config = {"data": data, "split": split, "examples": len(rows), "exit_layers": loaded.exit_layers}
        finish_bench(
            folder,
            "bench promises",
            {"promises": table},
            config,
            started,
            seed=seed,
            title="promises on rows left out",
            json_output=json,
            names=4,
        )


def unseen(rows: Any, trained_on: Any, model: Path) -> Any:
    """The rows that a model was not trained on.

    Raises:
        DataError: the model does not record the rows it was trained on, or none are left.
    """
    import numpy as np

    from offramp.data import row_hashes

    if trained_on is None:
        raise DataError(f"{model} does not record which rows it was trained on: give --split validation")
    left = np.flatnonzero(~np.isin(row_hashes(rows), trained_on))
    if not len(left):
        raise DataError(
            f"{model} was trained on all rows of train: give --split validation, or leave --train-size out"
        )
    return rows.select(left)
