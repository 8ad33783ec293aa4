from __future__ import annotations

import numpy as np
import pytest

from offramp._core.errors import DataError
from offramp.evaluation import (
    efficacy,
    efficiency_drop,
    gain_drop,
    robustness,
    robustness_by,
)
from offramp.evaluation.robustness import metric_names
from tests.evaluation.made_up import LAYERS, attack_row

ROWS = [
    attack_row(0, 2, words=4, words_changed=2, similarity=0.8, forward_queries=10, seconds=1.0),
    attack_row(0, 1, words=6, words_changed=1, similarity=None, adversarial_prediction=0),
    attack_row(1, 1, words=10, words_changed=0, similarity=1.0, label=0),
    attack_row(1, 2, words=20, words_changed=3, similarity=0.6, gradient_queries=6),
]


def test_every_number_by_hand() -> None:
    found = robustness(ROWS, LAYERS, resamples=100)
    assert found.examples == 4
    assert found["clean_depth"] == 1.5
    assert found["adversarial_depth"] == 3
    assert found["clean_cost"] == 1.5 / 4
    assert found["adversarial_cost"] == 3 / 4
    assert found["clean_layer_speedup"] == pytest.approx(4 / 1.5)
    assert found["adversarial_layer_speedup"] == pytest.approx(4 / 3)
    assert found["efficiency_drop"] == pytest.approx(1 - 0.25 / 0.625)
    assert found["gain_drop"] == pytest.approx(1 - (1 / 3) / (5 / 3))
    # Clean: half at cost .25, all at .5. Adversarial: none at .25, half at .5, all at 1.
    assert found["clean_efficacy"] == pytest.approx(0.25 * 0.25 + 0.25 * 0.75 + 0.5)
    assert found["adversarial_efficacy"] == pytest.approx(0.25 * 0.25 + 0.5 * 0.75)
    assert (found["clean_accuracy"], found["adversarial_accuracy"]) == (0.75, 0.5)
    assert (found["success"], found["reached_last"]) == (0.75, 0.5)
    assert (found["words"], found["words_changed"]) == (10, 1.5)
    assert found["words_changed_share"] == pytest.approx(0.15)
    assert found["similarity"] == pytest.approx(0.8)  # of the three that have one
    assert (found["forward_queries"], found["gradient_queries"], found["seconds"]) == (40, 3, 0.625)
    assert found.reasons == {}
    assert tuple(found.intervals) == metric_names()


def test_intervals_hold_their_estimates_and_are_reproducible() -> None:
    found = robustness(ROWS * 20, LAYERS, resamples=300, seed=4)
    for name in ("clean_depth", "adversarial_cost", "efficiency_drop"):
        interval = found.intervals[name]
        assert interval.low < interval.estimate < interval.high
    assert found.intervals == robustness(ROWS * 20, LAYERS, resamples=300, seed=4).intervals


def test_longer_adversarial_texts_are_measured_by_their_own_full_cost() -> None:
    row = attack_row(0, 2, adversarial_cost=900.0, adversarial_full_cost=900.0)
    assert robustness([row], LAYERS, resamples=10)["adversarial_cost"] == 1


def test_nothing_saved_leaves_nothing_to_lose() -> None:
    found = robustness([attack_row(2, 2)] * 3, LAYERS, resamples=20)
    assert np.isnan([found["efficiency_drop"], found["gain_drop"]]).all()
    assert (
        found.reasons["efficiency_drop"] == "the clean cost is 1.000 of the full model's: nothing was saved"
    )
    assert "no gain to lose" in found.reasons["gain_drop"]
    table = {row["name"]: row for row in found.table.to_pylist()}
    assert table["efficiency_drop"]["reason"].startswith("the clean cost")
    assert table["clean_depth"]["reason"] == ""


def test_missing_labels_similarity_and_words_have_reasons() -> None:
    rows = [
        attack_row(0, 2, label=None, similarity=None, words=0, words_changed=0),
        attack_row(0, 1, similarity=None, words=0),
    ]
    found = robustness(rows, LAYERS, resamples=20)
    assert found.reasons == {
        "clean_accuracy": "some attacked examples have no label",
        "adversarial_accuracy": "some attacked examples have no label",
        "similarity": "the attack reported no similarity",
        "words_changed_share": "no words were counted",
    }


def test_an_empty_table_has_no_numbers_but_a_reason() -> None:
    found = robustness([], LAYERS)
    assert found.examples == 0
    assert np.isnan(list(found.metrics.values())[1:]).all()
    assert set(found.reasons.values()) == {"no example was attacked"}
    assert found.table.num_rows == len(metric_names())


def test_other_metrics_take_the_place_of_accuracy() -> None:
    rows = [
        attack_row(0, 2, label=v, clean_prediction=v + 0.1, adversarial_prediction=-v)
        for v in (0.5, 2.0, 3.5)
    ]
    found = robustness(rows, LAYERS, metric="pearson", resamples=20)
    assert (found["clean_pearson"], found["adversarial_pearson"]) == pytest.approx((1, -1))


@pytest.mark.parametrize(
    ("clean", "adversarial", "expected"),
    [
        (0.4, 0.4, 0),
        (0.4, 1.0, 1),
        (0.4, 0.7, 0.5),
        (0.4, 1.3, 1.5),
        (0.4, 0.1, -0.5),
        (1.0, 1.0, np.nan),
        (1.2, 1.3, np.nan),
    ],
)
def test_efficiency_drop(clean: float, adversarial: float, expected: float) -> None:
    assert float(efficiency_drop(clean, adversarial)) == pytest.approx(expected, nan_ok=True)


def test_gain_drop() -> None:
    assert float(gain_drop(3.0, 2.0)) == pytest.approx(0.5)
    assert np.isnan(gain_drop(1.0, 1.0))
    assert gain_drop([np.inf, np.inf, 2.0], [2.0, np.inf, np.inf]).tolist() == [1, 0, -np.inf]


def test_a_model_whose_texts_all_leave_at_layer_0() -> None:
    layers = (0, 2, 4)
    before = {"clean_layer": 0, "clean_cost": 0.4}
    after = {"adversarial_layer": 0, "adversarial_cost": 0.4}
    still = robustness([attack_row(0, 0, **before, **after)] * 3, layers, resamples=20)
    assert still["clean_layer_speedup"] == still["adversarial_layer_speedup"] == np.inf
    assert (still["gain_drop"], still["efficiency_drop"]) == (0, 0)
    slowed = robustness([attack_row(0, 1, **before)] * 3, layers, resamples=20)
    assert (slowed["clean_layer_speedup"], slowed["adversarial_layer_speedup"]) == (np.inf, 2)
    assert slowed["gain_drop"] == 1
    assert slowed["clean_efficacy"] == pytest.approx(1, abs=0.002)


def test_efficacy_by_hand() -> None:
    costs = [0.25, 0.5, 1.0]
    assert float(efficacy([1, 0, 0], costs)) == pytest.approx(0.125 + 0.75)
    assert float(efficacy([0, 0, 1], costs)) == pytest.approx(0.25)
    assert float(efficacy([0.5, 0.5, 0], costs)) == pytest.approx(0.0625 + 0.25 * 0.75 + 0.5)
    assert float(efficacy([0, 1, 0], [1, 2, 4])) == pytest.approx(
        float(efficacy([0, 1, 0], costs))
    )  # ends at 1


def test_exits_that_nobody_took_cost_what_their_layers_say() -> None:
    found = robustness([attack_row(0, 0)], LAYERS, resamples=10)
    assert found["clean_efficacy"] == pytest.approx(0.125 + 0.75)


def test_by_recipe() -> None:
    rows = [*ROWS, *(attack_row(0, 0, recipe="random") for _ in range(3))]
    found = robustness_by(rows, LAYERS, resamples=20)
    assert list(found) == ["same-word", "random"]
    assert found["random"]["efficiency_drop"] == 0
    assert found["same-word"].metrics == robustness(ROWS, LAYERS, resamples=20).metrics
    table = found["random"].table
    assert table["name"].to_pylist() == list(metric_names())
    assert table["estimate"].to_pylist()[:6] == pytest.approx(list(found["random"].metrics.values())[1:7])


def test_rows_of_another_model_or_version_are_refused() -> None:
    with pytest.raises(DataError, match="adversarial_layer does not fit the exits") as caught:
        robustness([attack_row(0, 1, adversarial_layer=3)], LAYERS)
    assert "exit layers of the model that was attacked" in str(caught.value)
    with pytest.raises(DataError, match="clean_layer does not fit"):
        robustness([attack_row(2, 2)], (1, 4))
    broken = attack_row(0, 1)
    del broken["words"]
    with pytest.raises(DataError, match="an attack table needs the columns words"):
        robustness([broken], LAYERS)


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_reads_what_the_attacks_write(kind: str) -> None:
    from offramp.attacks.result import AttackResult

    result = AttackResult.of(ROWS, {"kind": kind})
    assert (
        robustness(result.table, LAYERS, resamples=20).metrics
        == robustness(ROWS, LAYERS, resamples=20).metrics
    )
