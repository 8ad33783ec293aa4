"""The rows that a model was trained on, saved with its weights to keep them out of reports."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offramp._core.damaged_files import file_problem
from offramp._core.errors import DataError, ModelError
from offramp._core.paths import UserPath, user_path
from offramp.data import row_hashes

_LOG = logging.getLogger(__name__)

FILE = "trained_on.npy"
CHANCE = 0.01  # share of rows that other data may have in common; they change a score by at most a point

Rows = NDArray[np.uint64]  # see `row_hashes`: no text can be recovered


def load_rows(folder: UserPath) -> Rows | None:
    """The rows in a model's folder; None without such a file or folder, `ModelError` for a damaged file."""
    path = user_path(folder) / FILE
    if not path.is_file():
        return None
    try:
        rows = np.load(path, allow_pickle=False)
    except Exception as error:  # EOFError, OSError or ValueError
        raise ModelError(
            f"{path} {file_problem(path, error)}: delete it; the training rows can then no longer be recognised"
        ) from error
    if rows.dtype != np.uint64 or rows.ndim != 1:
        raise ModelError(f"{path} has no hashes of rows: delete it, or train again")
    return np.asarray(rows)


def refuse_trained_on(trained_on: Rows | None, rows: Any, what: str) -> None:
    """Refuse rows that a model was trained on; a few, which may be chance, are reported in the log.

    Args:
        trained_on: the hashes of a model's training rows, or None if unknown.
        rows: a data set for measuring or calibration.
        what: the name of both, for the message.

    Raises:
        DataError: more than 1 % of the rows were trained on.
    """
    if trained_on is None:
        return
    hashes = row_hashes(rows)
    seen = int(np.isin(hashes, trained_on).sum())
    message = f"{what}: {seen} of {len(hashes)} rows were trained on"
    if seen > CHANCE * len(hashes):
        raise DataError(
            f"{message}: read the data as for training, with the same --data-seed, or give other data"
        )
    if seen:
        _LOG.warning("%s; what is measured there is a little too good", message)
