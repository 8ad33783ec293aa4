"""`offramp data`: list the packaged sets, or show one data set."""

from __future__ import annotations

from typing import Any

from offramp.cli.common import DataOptions, JsonFlag, emit, note, show

LONGEST = 200  # characters of an example's text that are shown


def data(
    source: str | None = None,
    *,
    examples: int = 3,
    reading: DataOptions = DataOptions(),
    json: JsonFlag = False,
) -> None:
    """Show a data set: its splits, labels and some examples. Without a name, list the packaged sets.

    Args:
        source: a packaged set, a GLUE task or folder, a CSV / TSV / JSON / JSON Lines / Parquet / Arrow file, a folder
            that `datasets` saved, or a hub name.
        examples: how many training examples to show.
    """
    if source is None:
        from offramp.data import GLUE, PACKAGED

        names = [{"name": name, "kind": "packaged"} for name in PACKAGED]
        names += [{"name": name, "kind": "GLUE task: a folder, or the hub when online"} for name in GLUE]
        show("Data sets by name", names)
        emit(json, {"names": [row["name"] for row in names]})
        return
    loaded = reading.load(source)
    splits = [
        {"split": name, "examples": len(rows), **_shares(loaded, rows)} for name, rows in loaded.items()
    ]
    show(f"{loaded.name} ({loaded.kind}, metrics {', '.join(loaded.metrics)})", splits)
    first = [loaded["train"][i] for i in range(min(examples, len(loaded["train"])))]
    for row in first:
        note(str({name: _shortened(value) for name, value in row.items()}))
    described = {name: getattr(loaded, name) for name in ("name", "kind", "labels", "metrics", "pair")}
    emit(json, {**described, "splits": splits, "examples": first})


def _shortened(value: Any) -> Any:
    return f"{value[:LONGEST]} …" if isinstance(value, str) and len(value) > LONGEST else value


def _shares(data: Any, rows: Any) -> dict[str, str]:
    """How often each label occurs, or the range of the scores."""
    import numpy as np

    if "label" not in rows.column_names or not len(rows):
        return {"labels": "none"}
    values = np.asarray(rows["label"])
    if data.kind == "regression":
        return {"labels": f"{values.min():g} to {values.max():g}, mean {values.mean():.2f}"}
    counts = np.bincount(values.astype(int), minlength=data.num_labels)
    shown = [f"{name} {count}" for name, count in zip(data.labels, counts, strict=True)]
    return {"labels": ", ".join(shown[:6]) + (f", … ({len(shown)} classes)" if len(shown) > 6 else "")}
