"""The result of an attack: one row an example, as an Arrow table that carries its own description."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from offramp._core.errors import DataError
from offramp._core.files import atomic_write
from offramp._core.trace import Kind
from offramp.attacks.search.runner import Outcome
from offramp.attacks.text.attacked_text import AttackedText

_METADATA = b"offramp.attack"
_MEANS = {
    "clean_depth": "clean_layer",
    "adversarial_depth": "adversarial_layer",
    "success": "success",
    "reached_last": "reached_last",
    "words_changed": "words_changed",
    "similarity": "similarity",
    "forward_queries": "forward_queries",
    "gradient_queries": "gradient_queries",
    "seconds": "seconds",
}


def schema(kind: Kind) -> pa.Schema:
    """Columns of a result.

    Exits count from 0, layers from 1; costs are FLOPs; `seconds` are an example's share of the time.
    `words` are those of the whole text, also beyond the model's maximum length. `success` means a later
    exit than before. `words_changed` are words replaced and words in front. `…_tokens_lost` are cut away by
    the model's maximum length; missing where that is not known.
    """
    answer = pa.float64() if kind == "regression" else pa.int64()
    text, number, real = pa.string(), pa.int64(), pa.float64()
    pairs: list[tuple[str, pa.DataType]] = [("id", number), ("label", answer)]
    pairs += [(name, text) for name in ("text", "text_pair", "adversarial_text", "adversarial_text_pair")]
    for column, dtype in (("exit", number), ("layer", number), ("cost", real), ("full_cost", real)):
        pairs += [(f"{side}_{column}", dtype) for side in ("clean", "adversarial")]
    pairs += [(f"{side}_prediction", answer) for side in ("clean", "adversarial")]
    pairs += [("words", number), ("words_changed", number), ("similarity", real)]
    pairs += [("forward_queries", number), ("gradient_queries", number), ("seconds", real)]
    pairs += [(f"{what}_gradients", number) for what in ("zero", "broken")]
    pairs += [(f"{side}_tokens_lost", number) for side in ("clean", "adversarial")]
    pairs += [("success", pa.bool_()), ("reached_last", pa.bool_()), ("recipe", text), ("seed", number)]
    return pa.schema(pairs)


def make_row(id: int, label: Any, outcome: Outcome) -> dict[str, Any]:
    """One example's row, but for `similarity`, tokens lost, `recipe` and `seed`."""
    sides = {"clean": outcome.clean, "adversarial": outcome.adversarial}
    row: dict[str, Any] = {"id": id, "label": label}
    for side, found in sides.items():
        prefix = "" if side == "clean" else "adversarial_"
        row |= {f"{prefix}text": found.text.text, f"{prefix}text_pair": found.text.text_pair}
        for name in ("exit", "layer", "cost", "full_cost", "prediction"):
            row[f"{side}_{name}"] = getattr(found.answer, name)
    text: AttackedText = outcome.adversarial.text
    return row | {
        "words": text.num_words,
        "words_changed": text.num_changed,
        "forward_queries": outcome.budget.forward,
        "gradient_queries": outcome.budget.gradient,
        "seconds": outcome.seconds,
        "zero_gradients": outcome.budget.zero_gradients,
        "broken_gradients": outcome.budget.broken_gradients,
        "success": outcome.slower,
        "reached_last": outcome.adversarial.answer.last,
    }


@dataclass(frozen=True)
class AttackResult:
    """What an attack did to each example.

    Attributes:
        table: one row an example, in the order of the data; see `schema`.
        metadata: recipe, seed, options, policy, exit layers, fingerprints, and the judge of similarity.
    """

    table: pa.Table
    metadata: dict[str, Any]

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]], metadata: Mapping[str, Any]) -> AttackResult:
        """A result from rows; the metadata name the `kind` of the task."""
        return cls(pa.Table.from_pylist(list(rows), schema(metadata["kind"])), dict(metadata))

    def __len__(self) -> int:
        return len(self.table)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows as dicts."""
        rows: list[dict[str, Any]] = self.table.to_pylist()
        return rows

    def column(self, name: str) -> np.ndarray[Any, Any]:
        """One column as a numpy array."""
        return np.asarray(self.table[name].to_numpy(zero_copy_only=False))

    def summary(self) -> dict[str, float]:
        """Number of examples, and plain means over them.

        Returns:
            `examples`; mean exit layers `clean_depth` and `adversarial_depth`; shares `success` and
            `reached_last`; mean `words_changed`, `similarity` (where measured), `forward_queries`,
            `gradient_queries`, `seconds`.
        """
        means = {name: float(self.column(column).astype(float).mean()) for name, column in _MEANS.items()}
        return {"examples": float(len(self)), **means}

    def save(self, path: str | Path) -> Path:
        """Write one Parquet file, whole or not at all, with the metadata inside."""
        write_result([self.table], self.table.schema, self.metadata, Path(path))
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> AttackResult:
        """Read what `save` wrote; a folder stands for the `attack.parquet` inside.

        Raises:
            DataError: no such file, or no result of an attack.
        """
        path = Path(path)
        path = path / "attack.parquet" if path.is_dir() else path
        try:
            table = pq.read_table(path)
            metadata = json.loads(table.schema.metadata[_METADATA])
        except (OSError, pa.ArrowInvalid, KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{path} is no result of an attack ({error}): make one with 'offramp attack'"
            ) from error
        return cls(table.replace_schema_metadata(None), metadata)


def write_result(
    tables: Iterable[pa.Table], columns: pa.Schema, metadata: Mapping[str, Any], path: Path
) -> None:
    """Write rows that come some at a time as one Parquet file, whole or not at all, with metadata inside."""
    described = columns.with_metadata({_METADATA: json.dumps(metadata)})
    with atomic_write(path) as draft, pq.ParquetWriter(draft, described) as writer:
        for table in tables:
            writer.write_table(table.replace_schema_metadata(described.metadata))


def write_parquet(table: pa.Table, path: Path) -> None:
    """Write a Parquet file whole or not at all."""
    with atomic_write(path) as draft:
        pq.write_table(table, draft)
