"""The file of inner products of the exits' gradients by training step, read without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offramp._core.errors import DataError
from offramp._core.files import atomic_write

Products = NDArray[np.float64]  # (batches, layers, exits, exits)

FILE = "products.npz"


def write_products(path: Path, products: dict[int, Products]) -> None:
    """Write the products of each step."""
    arrays: dict[str, Any] = {str(step): products[step] for step in sorted(products)}
    with atomic_write(path) as draft, open(draft, "wb") as file:
        np.savez_compressed(file, **arrays)


def read_products(path: Path) -> dict[int, Products]:
    """Products by step; empty without a file.

    Raises:
        DataError: the file is damaged.
    """
    if not path.exists():
        return {}
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {int(step): stored[step] for step in stored.files}
    except Exception as error:  # zip, zlib and numpy each raise their own
        raise DataError(f"{path} cannot be read ({type(error).__name__}: {error}): delete it") from error
