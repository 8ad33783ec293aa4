from __future__ import annotations

import inspect

import pytest

from offramp._core import errors
from offramp._core.errors import ConfigError, DataError, MissingExtraError, OfframpError, unknown_name


def test_a_near_miss_is_named_first() -> None:
    message = unknown_name("criterion", "confidense", ["vote", "confidence", "entropy"])
    assert message == (
        "unknown criterion 'confidense'. Did you mean 'confidence'? Known: confidence, entropy, vote"
    )


def test_without_a_near_miss_there_is_no_guess() -> None:
    assert unknown_name("task", "zzz", {"sst2": 1, "cola": 2}) == "unknown task 'zzz'. Known: cola, sst2"


def test_missing_extra_gives_the_install_line() -> None:
    with pytest.raises(ImportError, match=r"onnxruntime is needed .* pip install 'offramp\[onnx\]'"):
        raise MissingExtraError("onnxruntime", "onnx")


@pytest.mark.parametrize(
    "error", [e for _, e in inspect.getmembers(errors, inspect.isclass) if issubclass(e, OfframpError)]
)
def test_every_error_can_be_caught_as_ours(error: type[OfframpError]) -> None:
    assert issubclass(error, OfframpError)
    assert error.__doc__


@pytest.mark.parametrize("error", [DataError, ConfigError])
def test_bad_values_are_value_errors_too(error: type[Exception]) -> None:
    assert issubclass(error, ValueError)
