"""Gradient conflict for the page: the cosine of every pair of exits in every layer, as tables with coloured cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from offramp.evaluation.arrow_tables import to_pandas
from offramp.reports.text_table import number

if TYPE_CHECKING:
    import pyarrow as pa

NOTE = (
    "Mean cosine of the gradients of two exits in a layer: below 0, a step that helps one exit harms the other. "
    "Empty: one of the two exits lies below the layer. Underlined: negative in at least half of the batches."
)


@dataclass(frozen=True)
class Cell:
    """A cosine as text, as a strength between −1 and 1 for its colour, and whether most batches have it below 0."""

    text: str
    strength: float
    negative: bool


@dataclass(frozen=True)
class HeatMap:
    """A table of cosines: `header` names pairs of exits, `rows` hold a layer and a cell for each pair, or None."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell | None, ...]], ...]


def cosine_maps(label: str, table: pa.Table) -> list[HeatMap]:
    """A map for each measured training step, of the rows of `evaluation.conflict.conflict_table`."""
    frame = to_pandas(table)
    steps = frame["step"].unique().tolist()
    maps: list[HeatMap] = []
    for step in steps:
        rows = frame[frame["step"] == step]
        pairs = sorted({(row.exit_layer, row.other_exit_layer) for row in rows.itertuples()})
        cells = {
            (row.layer, row.exit_layer, row.other_exit_layer): Cell(
                number(row.cosine, 2), max(-1.0, min(1.0, row.cosine)), row.negative_share >= 0.5
            )
            for row in rows.itertuples()
        }
        layers = sorted(rows["layer"].unique().tolist(), reverse=True)  # the deepest on top, as in the model
        header = ("layer", *(f"exits {first} and {second}" for first, second in pairs))
        lines = tuple((f"{layer}", tuple(cells.get((layer, *pair)) for pair in pairs)) for layer in layers)
        title = f"Do the exits' gradients agree? {label}" + (f", step {step}" if len(steps) > 1 else "")
        maps.append(HeatMap(title, header, lines))
    return maps
