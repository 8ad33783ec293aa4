"""A model tells the rows that it was trained on, and what was kept, copied or damaged of them is told too."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from offramp._core.errors import DataError, ModelError
from offramp.data import row_hashes
from offramp.model import MultiExitForSequenceClassification, read_model
from offramp.model.prune_exits import prune_exits
from offramp.model.trained_on import FILE, refuse_trained_on


def rows(*texts: str, pairs: list[str] | None = None) -> Dataset:
    return Dataset.from_dict({"text": list(texts)} | ({"text_pair": pairs} if pairs else {}))


def test_rows_are_told_by_text_and_pair_in_any_order_and_once() -> None:
    assert row_hashes(rows("a", "b", "a")).tolist() == row_hashes(rows("b", "a")).tolist()
    assert len({*row_hashes(rows("a", "b")), *row_hashes(rows("a", pairs=["b"]))}) == 3
    assert row_hashes(rows("")).dtype == np.uint64


def test_some_by_chance_are_told_and_more_are_refused(caplog: pytest.LogCaptureFixture) -> None:
    data = rows(*map(str, range(200)))
    refuse_trained_on(None, data, "m")
    refuse_trained_on(row_hashes(rows("x")), data, "m")
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        refuse_trained_on(row_hashes(rows("0", "1", "x")), data, "m and validation")
    assert "m and validation: 2 of 200 rows were trained on" in caplog.text
    with pytest.raises(DataError, match="3 of 200 rows were trained on: .*--data-seed"):
        refuse_trained_on(row_hashes(rows("0", "1", "2")), data, "m")


def test_they_are_saved_and_copied_with_the_weights(tiny_encoder: Path, tmp_path: Path) -> None:
    model: Any = MultiExitForSequenceClassification.from_backbone(str(tiny_encoder), [1, 2, 4])
    model.save_pretrained(tmp_path / "unknown")
    assert read_model(tmp_path / "unknown").trained_on is None

    model.trained_on = row_hashes(rows("a", "b"))
    prune_exits(model, [1, 4]).save_pretrained(tmp_path / "known")
    again = read_model(tmp_path / "known").trained_on
    assert again is not None
    assert again.tolist() == model.trained_on.tolist()

    for damage, problem in ((b"", "is empty: delete it"), (b"no array", "cannot be read")):
        (tmp_path / "known" / FILE).write_bytes(damage)
        with pytest.raises(ModelError, match=f"{FILE} {problem}"):
            read_model(tmp_path / "known")
    np.save(tmp_path / "known" / FILE, np.zeros(2))
    with pytest.raises(ModelError, match="has no hashes of rows"):
        read_model(tmp_path / "known")
