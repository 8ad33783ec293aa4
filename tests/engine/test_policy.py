from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from offramp._core.errors import ConfigError, CriterionError, OfframpError
from offramp._core.numbers import softmax
from offramp._core.trace import Trace
from offramp.criteria import CRITERIA, make_criterion
from offramp.engine.policy import Policy, read_policy

LOGITS = np.array(
    [
        [[0.0, 4.0], [0.0, 4.0]],
        [[1.0, 0.0], [0.0, 2.0]],
    ],
    dtype=np.float32,
)
TRACE = Trace(
    LOGITS,
    exit_layers=(3, 6),
    flops=np.array([[10.0, 20.0], [30.0, 60.0]]),
    full_flops=np.array([19.0, 59.0]),
)


def test_decide_by_hand() -> None:
    decisions = Policy(make_criterion("confidence", 0.9), (3, 6)).decide(TRACE)
    assert decisions.exit.tolist() == [0, 1]
    assert decisions.layer.tolist() == [3, 6]
    assert decisions.prediction.tolist() == [1, 1]
    assert decisions.flops.tolist() == [10.0, 60.0]
    np.testing.assert_allclose(decisions.probability, [1 / (1 + np.exp(-4)), 1 / (1 + np.exp(-2))])
    assert len(decisions) == 2


def test_temperature_changes_who_leaves() -> None:
    decisions = Policy(make_criterion("confidence", 0.9), (3, 6), temperatures=(8.0, 2.0)).decide(TRACE)
    assert decisions.exit.tolist() == [1, 1]
    np.testing.assert_allclose(decisions.probability, [1 / (1 + np.exp(-2)), 1 / (1 + np.exp(-1))])


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_softmax_stands_saturated_logits(dtype: type) -> None:
    found = softmax(np.array([[6e4, -6e4, 0], [0, 0, 0]], dtype=dtype))
    np.testing.assert_allclose(found, [[1, 0, 0], [1 / 3, 1 / 3, 1 / 3]])


@pytest.mark.parametrize("name", CRITERIA)
@pytest.mark.parametrize("temperatures", [None, (1.5, 0.25)])
def test_every_rule_survives_the_file(
    name: str, temperatures: tuple[float, ...] | None, tmp_path: Path
) -> None:
    policy = Policy(make_criterion(name), (3, 6), temperatures, "9f2c", {"max_accuracy_drop": 0.01})
    policy.save(tmp_path / "new" / "policy.json")
    assert Policy.load(tmp_path / "new" / "policy.json") == policy


def test_options_survive_the_file(tmp_path: Path) -> None:
    learned = make_criterion("learned", 0.5, low=(0.1, 0.2), high=(0.8, 0.9))
    policy = Policy(learned, (3, 6), target={"max_cost": np.float32(0.5), "reached": float("nan")})
    policy.save(tmp_path / "policy.json")
    loaded = Policy.load(tmp_path / "policy.json")
    assert loaded.criterion == learned
    assert loaded.target == {"max_cost": 0.5, "reached": None}

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    json.loads((tmp_path / "policy.json").read_text(), parse_constant=refuse)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CriterionError, match=r"no policy at .*none.json: make one with 'offramp tune'"):
        Policy.load(tmp_path / "none.json")
    with pytest.raises(CriterionError, match=r"is not a policy file, since it is a folder.*offramp tune"):
        Policy.load(tmp_path)


GOOD = '"exit_layers": [3, 6], "temperatures": null'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not a policy file"),
        ("[1, 2]", "is not a policy file"),
        ("3", "is not a policy file"),
        ("{}", "KeyError: 'criterion'"),
        ('{"criterion": "confidence", ' + GOOD + "}", "is not a policy file"),
        ('{"criterion": {"name": "confidense"}, ' + GOOD + "}", "Did you mean 'confidence'"),
        ('{"criterion": {"name": "confidence", "treshold": 1}, ' + GOOD + "}", "x.json: unknown option"),
        ('{"criterion": {"name": "confidence", "threshold": 0.5}, ' + GOOD + ', "extra": 1}', "'extra'"),
        (
            '{"criterion": {"name": "confidence"}, "exit_layers": 3, "temperatures": null}',
            "not a policy file",
        ),
        (
            '{"criterion": {"name": "confidence"}, "exit_layers": [3, 6], "temperatures": [1]}',
            r"one positive temperature for each of the exits \[3, 6\], got \[1\]",
        ),
        ("{\x00", "is not a policy file"),
    ],
)
def test_broken_files(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(CriterionError, match=message):
        Policy.load(path)


def test_every_truncation_of_a_file_is_an_error_that_says_so(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    Policy(make_criterion("vote"), (3, 6), (1.0, 2.0)).save(path)
    content = path.read_bytes().rstrip()
    for cut in range(len(content)):
        path.write_bytes(content[:cut])
        with pytest.raises(CriterionError, match="offramp tune"):
            Policy.load(path)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "policy.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CriterionError, match="is not a policy file"):
        Policy.load(tmp_path / "policy.json")


@pytest.mark.parametrize(
    "temperatures", [(1.0,), (1.0, 0.0), (1.0, -1.0), (1.0, float("nan")), (1.0, float("inf"))]
)
def test_impossible_temperatures(temperatures: tuple[float, ...]) -> None:
    with pytest.raises(CriterionError, match="one positive temperature for each of the exits"):
        Policy(make_criterion("confidence"), (3, 6), temperatures)


def test_unwritable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OfframpError, match=r"cannot write .*a file stands where a folder is needed"):
        Policy(make_criterion("confidence"), (3, 6)).save(tmp_path / "file" / "policy.json")


def test_policy_for_other_exits() -> None:
    with pytest.raises(CriterionError, match=r"for exits \[1, 2\], the model has \[3, 6\]: tune it again"):
        Policy(make_criterion("confidence"), (1, 2)).decide(TRACE)


def test_a_policy_for_other_outputs_is_refused() -> None:
    policy = Policy(make_criterion("confidence"), (1, 4), outputs=2)
    policy.check((1, 4), "classification", False, 2)
    policy.check((1, 4), "classification", False)  # unknown, as for a policy file of an earlier version
    with pytest.raises(
        CriterionError, match="is for exits with 2 outputs, those of the model have 3: tune it"
    ):
        policy.check((1, 4), "classification", False, 3)


@pytest.mark.parametrize("layers", [[1, 4], np.array([1, 4]), (layer for layer in (1, 4))])
def test_a_policy_holds_plain_numbers(layers: Any, tmp_path: Path) -> None:
    policy = Policy(make_criterion("energy", temperatures=np.array([1, 2.5])), layers, np.array([1, 2.5]))
    policy.save(tmp_path / "policy.json")
    assert Policy.load(tmp_path / "policy.json") == policy
    assert policy.exit_layers == (1, 4)
    assert policy.temperatures == (1.0, 2.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("confidence", (1, 4)),
            "expected an exit rule, got 'confidence': make one with offramp.make_criterion",
        ),
        ((make_criterion("confidence"), 4), "exit_layers must be a list of layers"),
        ((make_criterion("confidence"), "1,4"), "exit_layers must be a list of layers"),
        ((make_criterion("confidence"), (1, 4), (1.0, float("nan"))), "one positive temperature"),
        ((make_criterion("confidence"), (1, 4), (1.0, True)), "one positive temperature"),
    ],
)
def test_what_is_no_policy(arguments: Any, message: str) -> None:
    with pytest.raises(OfframpError, match=message):
        Policy(*arguments)


def test_a_policy_argument_is_a_policy_or_its_file(tmp_path: Path) -> None:
    policy = Policy(make_criterion("confidence"), (1, 4))
    policy.save(tmp_path / "policy.json")
    assert read_policy(tmp_path / "policy.json") == read_policy(policy) == policy
    assert read_policy(None) is None
    with pytest.raises(ConfigError, match="expected a Policy or its file as policy, got 3"):
        read_policy(3)  # type: ignore[arg-type]


def test_own_thresholds_and_recall_survive_the_file(tmp_path: Path) -> None:
    policy = Policy(make_criterion("confidence", [0.7, 0.9]), (1, 2, 3), recall=True)
    policy.save(tmp_path / "policy.json")
    assert Policy.load(tmp_path / "policy.json") == policy
    content = json.loads((tmp_path / "policy.json").read_text())
    assert content["criterion"]["threshold"] == [0.7, 0.9]
    content.pop("recall")  # as in files of earlier versions
    content["criterion"]["threshold"] = 0.7
    (tmp_path / "policy.json").write_text(json.dumps(content))
    assert Policy.load(tmp_path / "policy.json") == Policy(make_criterion("confidence", 0.7), (1, 2, 3))


def test_recall_answers_with_the_most_confident_exit_that_has_run() -> None:
    logits = np.array(
        [
            [[0.0, 4.0], [2.0, 0.0], [1.0, 0.0]],  # leaves at the second exit, and the first was surer
            [[1.0, 0.0], [0.0, 2.0], [9.0, 0.0]],  # leaves at the second exit, the surest so far
            [[0.5, 0.0], [0.0, 0.5], [0.0, 0.4]],  # of two equally sure exits the deeper one answers
        ],
        dtype=np.float32,
    )
    trace = Trace(logits, (1, 2, 3), np.tile([1.0, 2.0, 3.0], (3, 1)), np.full(3, 3.0))
    policy = Policy(make_criterion("confidence", [0.99, 0.8]), (1, 2, 3), recall=True)
    decisions = policy.decide(trace)
    assert decisions.exit.tolist() == [1, 1, 2]
    assert decisions.answer_exit.tolist() == [0, 1, 1]
    assert decisions.prediction.tolist() == [1, 1, 1]
    assert decisions.flops.tolist() == [2.0, 2.0, 3.0]
    np.testing.assert_allclose(decisions.probability[0], 1 / (1 + np.exp(-4)))
    assert policy.answers(trace)[:, -1].tolist() == [1, 0, 1]


def test_recall_needs_confidences() -> None:
    policy = Policy(make_criterion("patience"), (1, 2), recall=True)
    with pytest.raises(CriterionError, match="exits of a regression have no confidence: tune without recall"):
        policy.check((1, 2), "regression", False)
    with pytest.raises(ConfigError, match="recall must be True or False, got 1"):
        Policy(make_criterion("confidence"), (1, 2), recall=1)  # type: ignore[arg-type]
