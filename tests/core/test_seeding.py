from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from offramp._core.errors import ConfigError
from offramp._core.seeding import generator


def draw(*arguments: object) -> list[int]:
    return generator(*arguments).integers(0, 2**62, 4).tolist()  # type: ignore[arg-type]


def test_same_seed_and_scope_same_numbers() -> None:
    assert draw(3, "attack", 17) == draw(3, "attack", 17)


def test_seed_and_each_part_of_the_scope_matter() -> None:
    scopes = [
        (3,),
        (4,),
        (3, "a"),
        (3, "b"),
        (3, "a", 1),
        (3, "a", 2),
        (3, 1),
        (3, "1"),
        (3, 1, "a"),
        (3, ("a", 1)),
    ]
    assert len({tuple(draw(*scope)) for scope in scopes}) == len(scopes)


def test_order_of_use_does_not_matter() -> None:
    forward = [draw(0, "example", i) for i in range(5)]
    backward = [draw(0, "example", i) for i in reversed(range(5))]
    assert forward == backward[::-1]


def test_another_process_gives_the_same_numbers() -> None:
    # Python's own hash() of a string differs from process to process.
    code = (
        "from offramp._core.seeding import generator; "
        "print(generator(3, 'attack', 17).integers(0, 2**62, 4).tolist())"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == str(draw(3, "attack", 17))


def test_global_state_is_neither_used_nor_changed() -> None:
    np.random.seed(0)  # noqa: NPY002
    before = np.random.get_state()[1].tolist()  # noqa: NPY002
    first = draw(5, "x")
    np.random.seed(1)  # noqa: NPY002
    assert draw(5, "x") == first
    np.random.seed(0)  # noqa: NPY002
    draw(5, "x")
    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002


def test_text_that_is_no_unicode_can_be_a_scope() -> None:
    assert draw(1, "\ud800") == draw(1, "\ud800") != draw(1, "\ud801")


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least 0, got -1"):
        generator(-1, "attack")
