"""Turn seeds, which are always arguments, into generators."""

from __future__ import annotations

import zlib

import numpy as np

from offramp._core.arguments import whole


def generator(seed: int, *scope: object) -> np.random.Generator:
    """A generator for `seed`, independent for each `scope`, such as an example's id: order does not matter."""
    key = zlib.crc32(repr(scope).encode("utf-8", "surrogatepass")) if scope else 0
    return np.random.default_rng([whole("seed", seed), key])
