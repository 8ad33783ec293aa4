"""`offramp conflict`: where in a model the gradients of the exits conflict."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from offramp.cli.common import (
    DataOptions,
    JsonFlag,
    Seed,
    Threads,
    emit,
    limit_threads,
    load_for,
    note,
    show,
    write_tables,
)
from offramp.cli.paths import PathOption, results_folder, writing

if TYPE_CHECKING:
    from offramp.evaluation.conflict import Conflict
    from offramp.model.base import SegmentedModel
    from offramp.training.gradient_conflict.measure import Products


def conflict(
    model: PathOption,
    *,
    data: str,
    split: str = "train",
    batches: int = 8,
    batch_size: int = 16,
    graph: Literal["own", "joint"] = "own",
    seed: Seed = 0,
    output: PathOption | None = None,
    reading: DataOptions = DataOptions(),
    threads: Threads = None,
    json: JsonFlag = False,
) -> None:
    """Measure gradient conflict, layer by layer: the cosine between two exits' gradients, and who owns the update.

    For example `offramp conflict runs/joint --data movies --batches 8 --batch-size 16`. To measure it during
    training, give `offramp train` the steps: `--conflict-steps 0 60 120`.

    Args:
        model: folder that `offramp train` wrote.
        data: labelled texts for the losses.
        split: the split to use.
        batches: batches to average over, chosen by `seed`.
        batch_size: examples per batch.
        graph: own, the graph of the model's training, in which the exits of sweet share no layers and cannot conflict;
            joint, a graph in which all exits update all layers below them.
        seed: chooses the examples.
        output: folder of the results; by default `conflict` inside the model's folder.
    """
    limit_threads(threads)
    from offramp.training.gradient_conflict.measure import measure_products

    started, folder = datetime.now(UTC), results_folder(model, "conflict", output)
    with writing(folder, "conflict"):
        content = reading.load(data)
        net = load_for(model, content, device="auto")
        cut = None if graph == "own" else False
        rows = content[split]
        products = measure_products(
            net, rows, batches=batches, batch_size=batch_size, seed=seed, cut=cut, progress=True
        )
        config = {"data": data, "split": split, "batches": batches, "batch_size": batch_size, "graph": graph}
        config |= {"strategy": net.config.strategy}
        metrics = record_conflict({0: products}, net.exit_layers, folder, config, seed, started)
    emit(json, metrics)


def record_conflict(
    products: Mapping[int, Products],
    exit_layers: tuple[int, ...],
    folder: PathOption,
    config: dict[str, Any],
    seed: int,
    started: datetime,
) -> dict[str, Any]:
    """Record the conflict at each training step in `folder`: numbers, tables and figures."""
    from offramp._core.records import write_record
    from offramp.evaluation import conflict as numbers
    from offramp.reports.conflict import conflict_figure, owners_figure
    from offramp.reports.style import save_figure

    conflicts = {step: numbers.conflict(values, exit_layers) for step, values in products.items()}
    last = conflicts[max(conflicts)]
    metrics: dict[str, Any] = {"exit_layers": exit_layers, "steps": sorted(conflicts)}
    metrics |= numbers.conflict_metrics(last) | numbers.owner_shares(last)
    show_conflict(last)
    tables = {
        "conflict": numbers.conflict_table(conflicts),
        "next_exit": numbers.following_table(conflicts),
        "owners": numbers.owners_table(conflicts),
    }
    write_record(
        folder,
        command="conflict",
        config=config,
        metrics=metrics,
        seed=seed,
        tables=write_tables(folder, tables),
        started=started,
    )
    if len(exit_layers) > 1:
        strategy = config["strategy"]
        save_figure(conflict_figure(conflicts, f"Gradient conflict, {strategy}"), folder / "conflict")
        save_figure(owners_figure(conflicts, f"Who owns a layer's update, {strategy}"), folder / "owners")
    note(f"conflict: {folder}")
    return metrics


def conflict_watch(
    model: SegmentedModel, data: Any, steps: list[int] | None, run: Path, seed: int
) -> tuple[tuple[Any, ...], Callable[[], None]]:
    """The callbacks that measure conflict at some steps of training, and the function that records it afterwards."""
    if not steps:
        return (), lambda: None
    from offramp._core.run_files import read_gradients
    from offramp.training.gradient_conflict.measure import ConflictCallback

    started, folder = datetime.now(UTC), run / "conflict"
    callback = ConflictCallback(model, data["train"], steps, folder, seed=seed)

    def record() -> None:
        products = read_gradients(callback.path)
        config = {"data": data.name, "split": "train", "steps": steps, "strategy": model.config.strategy}
        if products:
            record_conflict(products, model.exit_layers, folder, config, seed, started)
        else:  # a finished run is loaded, not trained
            note(
                f"no conflict was measured: {run} holds a finished run, or one of fewer than {min(steps)} steps"
            )

    return (callback,), record


def show_conflict(measured: Conflict) -> None:
    """Show the cosines of all pairs of exits, of the next against all later ones, and each exit's share of norms."""
    names, cosines, _ = measured.columns()
    rows = [
        {"layer": layer, **dict(zip(names, row, strict=True))}
        for layer, row in enumerate(cosines.tolist(), start=1)
    ]
    show("mean cosine between the gradients of two exits, by layer", rows)
    shares = [
        {
            "layer": layer,
            **{f"exit {exit}": share for exit, share in zip(measured.exit_layers, row, strict=True)},
        }
        for layer, row in enumerate(measured.owners.norm_share.tolist(), start=1)
    ]
    show("share of each exit in the norms of the gradients, by layer", shares)
