"""Promises checked on random splits: kept where they should be, seen to be broken where a tuner cheats."""

import numpy as np
import pytest

from offramp._core import progress
from offramp._core.errors import CalibrationError
from offramp.bench.coverage_check import GuaranteeSpec, check_coverage
from offramp.calibration import target
from tests.calibration.calibration_traces import classifier

PROMISES = [
    GuaranteeSpec("accuracy_drop", 0.1),
    GuaranteeSpec("disagreement", 0.2),
    GuaranteeSpec("conformal", 0.2),
]


def test_promises_are_kept_on_rows_left_out(monkeypatch, capsys):
    monkeypatch.setattr(progress, "EVERY", 0)
    rows = check_coverage(
        classifier(seed=1, n=900),
        ["confidence", "patience"],
        PROMISES,
        calibration=400,
        splits=40,
        progress=True,
    )
    assert [(row["criterion"], row["guarantee"]) for row in rows] == [
        (rule, promise.guarantee) for rule in ("confidence", "patience") for promise in PROMISES
    ]
    lines = capsys.readouterr().err.splitlines()
    assert lines[40].startswith("check on random splits: 41 of 240, confidence, disagreement, ")
    assert all(line.endswith(" to go") for line in lines[1:])
    assert all(row["kept"] and row["measured"] == 500 for row in rows)
    assert all(row["mean_risk"] <= row["alpha"] for row in rows)
    assert all(row["mean_risk"] <= row["high_risk"] and 0 < row["cost"] <= 1 for row in rows)
    assert [row["delta"] for row in rows[:3]] == [0.1, 0.1, None]


def test_a_tuner_that_looks_at_nothing_is_found_out(monkeypatch):
    """A threshold for thrice the risk that was promised breaks the promise, and the check says so."""
    honest = target.tune_with_guarantee

    def cheat(trace, rule, *, alpha, delta, **options):
        return honest(trace, rule, alpha=3 * alpha, delta=0.9, **options)

    monkeypatch.setattr(target, "tune_with_guarantee", cheat)
    (row,) = check_coverage(
        classifier(seed=2, n=900),
        ["confidence"],
        [GuaranteeSpec("disagreement", 0.1)],
        calibration=400,
        splits=20,
    )
    assert not row["kept"]
    assert row["held"] < 0.5


def test_the_same_seed_divides_alike():
    trace = classifier(seed=3, n=300)
    once, again, other = (
        check_coverage(trace, ["confidence"], PROMISES[1:], calibration=150, splits=5, seed=seed)
        for seed in (0, 0, 1)
    )
    assert once == again
    assert once != other
    assert np.isfinite([row["mean_risk"] for row in once]).all()


@pytest.mark.parametrize(("calibration", "splits"), [(300, 5), (0, 5), (100, 0)])
def test_rows_have_to_be_left_out(calibration, splits):
    with pytest.raises(CalibrationError, match="the others measure the risk"):
        check_coverage(
            classifier(seed=4, n=300), ["confidence"], PROMISES, calibration=calibration, splits=splits
        )


def test_gaps_are_measured_on_all_rows_and_own_thresholds_beside_shared_ones():
    promises = [
        GuaranteeSpec("accuracy_drop", 0.1, thresholds="own"),
        GuaranteeSpec("accumulated_gap", 0.15),
    ]
    own, gap = check_coverage(classifier(seed=5, n=900), ["confidence"], promises, calibration=500, splits=20)
    assert (own["thresholds"], own["measured"]) == ("own", 400)
    assert (gap["thresholds"], gap["measured"], gap["delta"]) == ("own", 900, 0.1)
    assert own["kept"]
    assert gap["kept"]
    assert 0 < gap["mean_risk"] <= 0.15
