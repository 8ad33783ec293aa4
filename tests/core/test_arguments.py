"""Checks of arguments: what counts as a number, a flag, a name, a list; what comes back."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from offramp._core.arguments import as_python, choice, flag, name_list, number, seed_number, sequence, whole
from offramp._core.errors import ConfigError
from offramp._core.seeding import generator

NO_NUMBERS = (True, np.bool_(True), "8", b"8", None, [1], np.array([1]), 1j, float("nan"), torch.tensor([1]))


@given(st.integers(0, 2**32 - 1))
def test_a_whole_number_of_any_library_is_an_int(value: int) -> None:
    for given_value in (value, np.int64(value), np.array(value), torch.tensor(value)):
        taken = whole("n", given_value)
        assert (type(taken), taken) == (int, value)
    assert seed_number(np.int64(value)) == value
    assert generator(np.int64(value)).random() == generator(value).random()  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [*NO_NUMBERS, 1.5, 1.0, np.float32(2), -1, 2**32])
def test_what_is_no_seed(value: Any) -> None:
    expected = f"seed must be a whole number from 0 to 4294967295, got {as_python(value)!r}"
    with pytest.raises(ConfigError, match=re.escape(expected)):
        seed_number(value)


@pytest.mark.parametrize("value", [*NO_NUMBERS, 0, -0.5, float("inf")])
def test_what_is_no_number_that_fits(value: Any) -> None:
    with pytest.raises(ConfigError, match="rate must be above 0, got"):
        number("rate", value, "above 0", lambda n: n > 0)


@pytest.mark.parametrize("value", [np.float32(0.5), np.array(0.5), torch.tensor(0.5), 0.5])
def test_a_number_of_any_library_can_be_recorded(value: Any) -> None:
    assert json.dumps(number("rate", value, "any", lambda n: True)) == "0.5"


def test_a_flag_is_true_or_false() -> None:
    assert flag("gates", np.bool_(True)) is True
    for value in (1, "yes", None, np.array([True])):
        with pytest.raises(ConfigError, match="gates must be True or False, got"):
            flag("gates", value)


def test_a_choice_is_one_of_the_names() -> None:
    assert type(choice("precision", np.str_("fp32"), ("fp32", "int8"))) is str
    for value in ("fp23", ["fp32"], None, 3):
        with pytest.raises(ConfigError, match="unknown precision .* Known: fp32, int8"):
            choice("precision", value, ("fp32", "int8"))


def test_a_sequence_is_read_once() -> None:
    for value in ((1, 2), [np.int64(1), 2], np.array([1, 2]), torch.tensor([1, 2]), (i for i in (1, 2))):
        items = sequence("exits", value, "layers")
        assert [(type(item), item) for item in items] == [(int, 1), (int, 2)]
    for value in ("1,2", {1: 2}, {1, 2}, 4, None, np.array(4), torch.tensor(4)):
        with pytest.raises(ConfigError, match="exits must be a list of layers, got"):
            sequence("exits", value, "layers")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("pos", "labels must be a list of class names, got str: 'pos'"),
        ({"neg": 0, "pos": 1}, "labels must be a list of class names, got dict"),
        (["neg", "neg"], "labels must differ from each other, got 'neg' twice"),
        (["neg", " "], "labels must be strings that are not blank, got ' '"),
        (["neg", ""], "not blank, got ''"),
        (["neg", 1], "not blank, got 1: give class names"),
        (["neg", None], "not blank, got None"),
    ],
)
def test_names_are_different_strings(labels: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        name_list("labels", labels, "class names")
    assert name_list("labels", (name for name in ("neg", "pos")), "class names") == ("neg", "pos")
