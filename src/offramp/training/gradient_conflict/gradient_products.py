"""The file of inner products of the exits' gradients by training step, read without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offramp._core.files import atomic_write
from offramp._core.run_files import GRADIENT_FILE, read_gradients

Products = NDArray[np.float64]  # (batches, layers, exits, exits)

FILE = GRADIENT_FILE


def write_products(path: Path, products: dict[int, Products]) -> None:
    """Write the products of each step."""
    arrays: dict[str, Any] = {str(step): products[step] for step in sorted(products)}
    with atomic_write(path) as draft, open(draft, "wb") as file:
        np.savez_compressed(file, **arrays)


def read_products(path: Path) -> dict[int, Products]:
    """Products by step; empty without a file, `DataError` for a damaged one."""
    return read_gradients(path) if path.exists() else {}
