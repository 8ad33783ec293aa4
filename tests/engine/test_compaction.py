"""The compacting engine on answers worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from offramp._core.errors import ConfigError, CriterionError, DataError
from offramp.criteria import make_criterion
from offramp.engine.agreement import run_reference
from offramp.engine.compaction import CompactingEngine
from offramp.engine.policy import Decisions, Policy

from .toy_segments import Scripted, texts

SURE, UNSURE = [0.0, 4.0], [0.5, 0.0]  # confidences 0.982 for class 1 and 0.622 for class 0
LEAVES_AT = [2, 0, 1, 0]  # exit index of each text under confidence >= 0.9
SCRIPT = [
    [UNSURE, UNSURE, UNSURE],  # never sure: the last exit takes it
    [SURE, UNSURE, UNSURE],
    [UNSURE, SURE, SURE],
    [SURE, SURE, SURE],
]
LENGTHS = [3, 1, 4, 2]


def policy(net: Scripted, name: str = "confidence", threshold: float = 0.9, **options: object) -> Policy:
    return Policy(make_criterion(name, threshold, **options), net.exit_layers)


def test_worked_example() -> None:
    net = Scripted(SCRIPT)
    decisions = CompactingEngine(net, policy(net), batch_size=4).run(texts(LENGTHS))
    sure, unsure = np.exp(4) / (1 + np.exp(4)), np.exp(0.5) / (1 + np.exp(0.5))
    assert decisions.exit.tolist() == LEAVES_AT
    assert decisions.layer.tolist() == [6, 2, 4, 2]
    assert decisions.prediction.tolist() == [0, 1, 1, 1]
    np.testing.assert_allclose(decisions.probability, [unsure, sure, sure, sure])
    np.testing.assert_allclose(decisions.score, [unsure, sure, sure, sure])
    # length · layer + heads run, by the text's own length and not the batch's
    assert decisions.flops.tolist() == [3 * 6 + 3, 1 * 2 + 1, 4 * 4 + 2, 2 * 2 + 1]


def test_only_survivors_are_taken_and_run_further() -> None:
    net = Scripted(SCRIPT)
    CompactingEngine(net, policy(net), batch_size=4).run(texts(LENGTHS))
    assert net.log == [
        ("start", [2, 0, 3, 1]),  # longest first
        ("run", 0, [2, 0, 3, 1]),
        ("take", 0, [2, 0]),
        ("run", 1, [2, 0]),
        ("take", 1, [0]),
        ("run", 2, [0]),
    ]


@pytest.mark.parametrize("workers", [1, 3])
def test_rows_are_told_as_they_leave(workers: int) -> None:
    told: list[tuple[list[int], Decisions]] = []
    script = SCRIPT * 5
    net, lengths = Scripted(script), LENGTHS * 5
    engine = CompactingEngine(net, policy(net), batch_size=4, workers=workers)
    decisions = engine.run(
        texts(lengths), left=lambda rows, decide: told.append((rows.tolist(), decide(rows)))
    )
    assert sorted(row for rows, _ in told for row in rows) == list(range(20))
    for rows, part in told:
        assert set(part.exit) == {LEAVES_AT[rows[0] % 4]}
        for name, values in vars(part).items():
            np.testing.assert_array_equal(values, getattr(decisions, name)[rows])


def test_nothing_is_taken_where_all_leave_or_none() -> None:
    all_leave, none_leave = Scripted([[SURE, SURE]] * 3), Scripted([[UNSURE, SURE]] * 3)
    for net, segments in ((all_leave, 1), (none_leave, 2)):
        exits = CompactingEngine(net, policy(net)).run(texts([1, 2, 3])).exit
        assert exits.tolist() == [segments - 1] * 3
        assert [entry[0] for entry in net.log] == ["start"] + ["run"] * segments


def test_stops_once_nobody_is_left() -> None:
    net = Scripted([[SURE, SURE, SURE], [UNSURE, SURE, SURE]])
    CompactingEngine(net, policy(net)).run(texts([1, 1]))
    assert ("run", 2, [1]) not in net.log
    assert net.log[-1] == ("run", 1, [1])


def test_one_row_and_one_exit() -> None:
    net = Scripted([[UNSURE]])
    decisions = CompactingEngine(net, policy(net)).run(texts([5]))
    assert decisions.exit.tolist() == [0]
    assert net.log == [("start", [0]), ("run", 0, [0])]


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_no_texts_give_empty_decisions_of_the_usual_types(kind: str) -> None:
    classes = 1 if kind == "regression" else 2
    net = Scripted(np.zeros((2, 3, classes)), kind=kind)
    engine = CompactingEngine(net, policy(net, "patience", 1))
    empty, full = engine.run([]), engine.run(texts([1, 2]))
    for name in vars(full):
        assert len(getattr(empty, name)) == 0, name
        assert getattr(empty, name).dtype == getattr(full, name).dtype, name
    reference = run_reference(net, policy(net, "patience", 1), [])
    trace = policy(net, "patience", 1).decide(net.trace(texts([1, 2])))
    for name in vars(full):
        assert getattr(reference, name).dtype == getattr(full, name).dtype == getattr(trace, name).dtype, name


def test_memory_of_patience_survives_compaction() -> None:
    a, b = [1.0, 0.0], [0.0, 1.0]
    script = [
        [a, a, a, b, b],  # confirmed twice at exit index 2
        [a, b, a, a, a],  # the change resets the counter: twice at index 4
        [b, a, a, a, b],  # twice at index 3, though its answers at 1..3 are those of its neighbours
        [a, b, a, b, a],  # never confirmed
    ]
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2]):
        net = Scripted([script[i] for i in order])
        decisions = CompactingEngine(net, policy(net, "patience", 2), batch_size=4).run(texts([2, 2, 2, 2]))
        assert decisions.exit.tolist() == [[2, 4, 3, 4][i] for i in order]
        assert decisions.score.tolist() == [[2, 2, 2, 0][i] for i in order]


def test_vote_adds_up_over_the_run_of_agreement() -> None:
    # sure (0.982) twice reaches 1.9; an unsure other answer between them starts the sum again
    script = [[SURE, SURE, SURE], [SURE, UNSURE, SURE], [UNSURE, SURE, SURE]]
    net = Scripted(script)
    decisions = CompactingEngine(net, policy(net, "vote", 1.9)).run(texts([1, 2, 3]))
    assert decisions.exit.tolist() == [1, 2, 2]


def test_regression_leaves_with_the_models_own_value() -> None:
    net = Scripted([[[1.0], [1.06], [3.0]], [[1.0], [2.0], [3.0]]], kind="regression")
    rule = Policy(make_criterion("patience", 1, tolerance=0.1), net.exit_layers, temperatures=(0.5, 0.5, 0.5))
    decisions = CompactingEngine(net, rule).run(texts([1, 1]))
    # the temperature doubles |1.06 − 1.0|: no longer within the tolerance
    assert decisions.exit.tolist() == [2, 2]
    no_temperature = CompactingEngine(net, policy(net, "patience", 1, tolerance=0.1)).run(texts([1, 1]))
    assert no_temperature.exit.tolist() == [1, 2]
    assert no_temperature.prediction.dtype == np.float32
    np.testing.assert_allclose(no_temperature.prediction, [1.06, 3.0], rtol=1e-6)
    assert np.isnan(no_temperature.probability).all()


def test_temperatures_scale_probabilities_and_not_answers() -> None:
    net = Scripted([[SURE, SURE]])
    hot = replace(policy(net), temperatures=(4.0, 1.0))
    decisions = CompactingEngine(net, hot).run(texts([1]))
    assert decisions.exit.tolist() == [1], "at temperature 4 the first exit's confidence is 0.73"
    lax = Policy(make_criterion("confidence", 0.7), net.exit_layers, temperatures=(4.0, 1.0))
    at_first = CompactingEngine(net, lax).run(texts([1]))
    np.testing.assert_allclose(at_first.probability, [np.exp(1) / (1 + np.exp(1))])


def test_oracle_leaves_at_the_first_right_exit() -> None:
    script = [[[1, 0], [0, 1], [0, 1]], [[0, 1], [1, 0], [0, 1]], [[1, 0], [1, 0], [1, 0]]]
    net = Scripted(script)
    engine = CompactingEngine(net, policy(net, "oracle", 1), batch_size=2)
    assert engine.run(texts([1, 3, 2]), labels=[1, 0, 1]).exit.tolist() == [1, 1, 2]
    with pytest.raises(CriterionError, match="'oracle' needs the true labels"):
        engine.run(texts([1, 3, 2]))


def test_labels_must_fit() -> None:
    net = Scripted(SCRIPT)
    with pytest.raises(DataError, match=r"one label for each of the 4 texts, got shape \(3,\)"):
        CompactingEngine(net, policy(net)).run(texts(LENGTHS), labels=[0, 1, 0])


def test_policy_of_another_model_is_refused_at_once() -> None:
    net = Scripted(SCRIPT)
    with pytest.raises(
        CriterionError, match=r"for exits \[1, 2, 3\], the model has \[2, 4, 6\]: tune it again"
    ):
        CompactingEngine(net, Policy(make_criterion("confidence", 0.9), (1, 2, 3)))
    with pytest.raises(CriterionError, match="learned gates"):
        CompactingEngine(net, policy(net, "learned", 0.5))
    regression = Scripted(np.zeros((1, 2, 1)), kind="regression")
    with pytest.raises(CriterionError, match="task is regression"):
        CompactingEngine(regression, policy(regression))


def test_batch_size_is_checked_at_once() -> None:
    net = Scripted(SCRIPT)
    with pytest.raises(ConfigError, match="at least 1, got 0"):
        CompactingEngine(net, policy(net), batch_size=0)


def test_pad_values_reach_the_model() -> None:
    seen = []

    class Watching(Scripted):
        def start(self, batch):  # type: ignore[no-untyped-def]
            seen.append(batch["input_ids"].tolist())
            return super().start(batch)

    net = Watching(SCRIPT)
    CompactingEngine(net, policy(net), pad_values={"input_ids": 77}).run(texts([1, 3]))
    assert seen == [[[1, 1, 1], [0, 77, 77]]]


def test_stats_of_a_run() -> None:
    net = Scripted(SCRIPT)
    engine = CompactingEngine(net, policy(net), batch_size=3)
    assert engine.stats.rows == (0, 0, 0)
    for _ in range(2):  # of the last run, not of all
        engine.run(texts(LENGTHS))
        assert engine.stats.rows == (2, 1, 1)
        assert engine.stats.batches == 2
        assert engine.stats.near_threshold == 0


def test_scores_within_float_noise_are_counted_once_a_row_and_not_at_the_last_exit() -> None:
    middle = float(np.exp(0.5) / (1 + np.exp(0.5)))
    net = Scripted([[UNSURE, UNSURE, SURE], [SURE, UNSURE, UNSURE], [[3, 0], [3, 0], UNSURE]])
    for offset, count in ((0.9e-5, 1), (-0.9e-5, 1), (1.1e-5, 0), (-1.1e-5, 0)):
        engine = CompactingEngine(net, policy(net, "confidence", middle + offset))
        engine.run(texts([1, 1, 1]))
        assert engine.stats.near_threshold == count


def test_counting_rules_meet_their_threshold_without_noise() -> None:
    net = Scripted(SCRIPT)
    for name, threshold in (("patience", 1), ("fixed", 2), ("oracle", 1)):
        engine = CompactingEngine(net, policy(net, name, threshold))
        engine.run(texts(LENGTHS), labels=[0, 0, 0, 0])
        assert engine.stats.near_threshold == 0
