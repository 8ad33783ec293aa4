"""The rows that a model was trained on, remembered beside its weights, so that nothing is reported on them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offramp._core.errors import DataError, ModelError
from offramp.data import row_hashes

_LOG = logging.getLogger(__name__)

FILE = "trained_on.npy"
CHANCE = 0.01  # so many rows of a split may stand in foreign data too; they move a score by a point at most

Rows = NDArray[np.uint64]  # see `row_hashes`: no text can be read from it


def save_rows(folder: str | Path, rows: Rows) -> None:
    """Write the rows into a model's folder."""
    np.save(Path(folder) / FILE, rows)


def load_rows(folder: str | Path) -> Rows | None:
    """The rows in a model's folder; None where it tells none, or is no folder here.

    Raises:
        ModelError: the file is damaged.
    """
    path = Path(folder) / FILE
    if not path.is_file():
        return None
    try:
        rows = np.load(path, allow_pickle=False)
    except Exception as error:  # EOFError, OSError and ValueError, by where the file is damaged
        raise ModelError(
            f"{path} cannot be read ({error}): delete it, and nothing is known of the rows trained on"
        ) from error
    if rows.dtype != np.uint64 or rows.ndim != 1:
        raise ModelError(f"{path} holds something else than hashes of rows: delete it, or train again")
    return np.asarray(rows)


def refuse_trained_on(known: Rows | None, rows: Any, what: str) -> None:
    """Refuse rows that a model was trained on; a few, which foreign data may hold by chance, are told in the log.

    Args:
        known: the rows that the model was trained on, or None where that is not known.
        rows: a data set that is to be measured or calibrated on.
        what: the name of both, for the message.

    Raises:
        DataError: more than 1 % of the rows were trained on.
    """
    if known is None:
        return
    hashes = row_hashes(rows)
    seen = int(np.isin(hashes, known).sum())
    told = f"{what}: {seen} of {len(hashes)} rows were trained on"
    if seen > CHANCE * len(hashes):
        raise DataError(
            f"{told}: read the data as for training, with the same --data-seed, or give other data"
        )
    if seen:
        _LOG.warning("%s; what is measured there is a little too good", told)
