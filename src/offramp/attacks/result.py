"""The result of an attack: an Arrow table with one row per example and its own description."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from offramp._core.errors import DataError, MissingExtraError
from offramp._core.files import atomic_write
from offramp._core.numbers import softmax
from offramp._core.paths import UserPath, user_path
from offramp._core.trace import Kind
from offramp.attacks.search.base import Outcome
from offramp.attacks.victims.base import Answer

if TYPE_CHECKING:
    import pandas as pd

_METADATA = b"offramp.attack"
_DEPTHS = {"clean_depth": "clean_layer", "adversarial_depth": "adversarial_layer"}
_SHARES = ("success", "reached_last")
_MEANS = ("words_changed", "similarity", "forward_queries", "gradient_queries", "seconds")


def schema(kind: Kind) -> pa.Schema:
    """Columns of a result.

    Exits count from 0, layers from 1. The columns `…_cost` hold FLOPs (of a function, layers or seconds). `seconds` is
    an example's share of the time. `words` counts the whole text, including words beyond the maximum length. `success`
    means a later exit than before. `words_changed` counts replaced words and words in front. `…_tokens_lost` counts
    tokens cut by the model's maximum length, and is null if unknown. `…_probabilities` holds a list of class
    probabilities for each exit, after the policy's temperatures. It is null for regression, and if the victim does not
    show its logits.
    """
    answer = pa.float64() if kind == "regression" else pa.int64()
    text, number, real = pa.string(), pa.int64(), pa.float64()
    columns: list[tuple[str, pa.DataType]] = [("id", number), ("label", answer)]
    columns += [(name, text) for name in ("text", "text_pair", "adversarial_text", "adversarial_text_pair")]
    for name, dtype in (("exit", number), ("layer", number), ("cost", real), ("full_cost", real)):
        columns += [(f"{side}_{name}", dtype) for side in ("clean", "adversarial")]
    columns += [(f"{side}_prediction", answer) for side in ("clean", "adversarial")]
    columns += [("words", number), ("words_changed", number), ("similarity", real)]
    columns += [("forward_queries", number), ("gradient_queries", number), ("seconds", real)]
    columns += [(f"{what}_gradients", number) for what in ("zero", "broken")]
    columns += [(f"{side}_tokens_lost", number) for side in ("clean", "adversarial")]
    ladder = pa.list_(pa.list_(pa.float32()))
    columns += [(f"{side}_probabilities", ladder) for side in ("clean", "adversarial")]
    columns += [("success", pa.bool_()), ("reached_last", pa.bool_()), ("recipe", text), ("seed", number)]
    return pa.schema(columns)


def make_row(id: int, label: Any, outcome: Outcome) -> dict[str, Any]:
    """One example's row, without `similarity`, tokens lost, `recipe` and `seed`."""
    sides = {"clean": outcome.clean, "adversarial": outcome.adversarial}
    row: dict[str, Any] = {"id": id, "label": label}
    for side, candidate in sides.items():
        prefix = "" if side == "clean" else "adversarial_"
        row |= {f"{prefix}text": candidate.text.text, f"{prefix}text_pair": candidate.text.text_pair}
        answer = candidate.answer
        row |= {f"{side}_{name}": getattr(answer, name) for name in ("exit", "layer", "prediction")}
        row |= {f"{side}_cost": answer.spent, f"{side}_full_cost": answer.full_spent}
        row[f"{side}_probabilities"] = _probabilities(answer)
    text = outcome.adversarial.text
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


def _probabilities(answer: Answer) -> list[list[float]] | None:
    """The probabilities of every class at every exit; None without logits of several classes."""
    return softmax(answer.logits).tolist() if answer.logits.ndim == 2 and answer.logits.shape[1] > 1 else None


@dataclass(frozen=True)
class AttackResult:
    """The effect of an attack on each example.

    Attributes:
        table: one row per example, in the order of the data; see `schema`.
        metadata: recipe, seed, options, policy, exit layers, fingerprints, and the judge of similarity.
    """

    table: pa.Table
    metadata: dict[str, Any]

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]], metadata: Mapping[str, Any]) -> AttackResult:
        """A result from rows. The metadata have the `kind` of the task."""
        return cls(pa.Table.from_pylist(list(rows), schema(metadata["kind"])), dict(metadata))

    def __len__(self) -> int:
        return len(self.table)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows as dicts."""
        return self.table.to_pylist()

    def column(self, name: str) -> np.ndarray[Any, Any]:
        return np.asarray(self.table[name].to_numpy(zero_copy_only=False))

    def summary(self) -> dict[str, float]:
        """Number of examples, and plain means over them.

        Returns:
            `examples`; mean exit layers `clean_depth` and `adversarial_depth`; shares `success` and `reached_last`;
            mean `words_changed`, `similarity` (NaN if not measured), `forward_queries`, `gradient_queries`, `seconds`.
        """
        columns = _DEPTHS | {name: name for name in (*_SHARES, *_MEANS)}
        means = {name: float(self.column(column).astype(float).mean()) for name, column in columns.items()}
        return {"examples": float(len(self)), **means}

    def to_pandas(self) -> pd.DataFrame:
        """The rows as a pandas data frame; see `schema` for the columns."""
        try:
            return self.table.to_pandas()
        except ImportError as error:
            raise MissingExtraError("pandas", "torch") from error

    def save(self, path: UserPath) -> Path:
        """Write one Parquet file, whole or not at all, with the metadata inside."""
        path = user_path(path)
        write_result([self.table], self.table.schema, self.metadata, path)
        return path

    @classmethod
    def load(cls, path: UserPath) -> AttackResult:
        """Read what `save` wrote; a folder means the `attack.parquet` inside.

        Raises:
            DataError: no such file, or a file that is not a result of an attack.
        """
        path = user_path(path)
        path = path / "attack.parquet" if path.is_dir() else path
        try:
            table = pq.read_table(path)
        except (OSError, pa.ArrowInvalid) as error:
            raise _no_result(path, error) from error
        return cls.from_table(table, path)

    @classmethod
    def from_table(cls, table: pa.Table, path: Path) -> AttackResult:
        """A result from the rows in the file at `path`; `DataError` for rows that `save` did not write."""
        try:
            metadata = json.loads(table.schema.metadata[_METADATA])
        except (KeyError, TypeError, ValueError) as error:
            raise _no_result(path, error) from error
        return cls(table.replace_schema_metadata(None), metadata)


def _no_result(path: Path, error: Exception) -> DataError:
    return DataError(f"{path} is not a result of an attack ({error}): make one with 'offramp attack'")


def write_result(
    tables: Iterable[pa.Table], columns: pa.Schema, metadata: Mapping[str, Any], path: Path
) -> None:
    """Write tables as one Parquet file, whole or not at all, with metadata inside."""
    described = columns.with_metadata({_METADATA: json.dumps(metadata)})
    with atomic_write(path) as draft, pq.ParquetWriter(draft, described) as writer:
        for table in tables:
            writer.write_table(table.replace_schema_metadata(described.metadata))


def write_parquet(table: pa.Table, path: Path) -> None:
    """Write a Parquet file whole or not at all."""
    with atomic_write(path) as draft:
        pq.write_table(table, draft)
