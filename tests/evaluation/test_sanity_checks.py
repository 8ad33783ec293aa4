from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from offramp._core.errors import CalibrationError, DataError
from offramp._core.trace import Trace
from offramp.criteria import make_criterion
from offramp.engine.policy import Policy
from offramp.evaluation import attack_doubts, refuse_unlike, trace_doubts
from offramp.evaluation.sanity_checks.doubts import tally
from tests.evaluation.made_up import attack_row, model_trace, regression_trace, trace_of


def test_good_traces_leave_no_doubt() -> None:
    policy = Policy(make_criterion("confidence"), (1, 4, 6, 12), (1.0,) * 4, calibrated_on="calibration")
    assert trace_doubts(model_trace(), policy) == ()
    refuse_unlike({"a": model_trace(0), "b": model_trace(1)})


def test_traces_of_unlike_data_are_refused() -> None:
    trace = model_trace()
    others = {
        "their data differ": replace(trace, fingerprint="x"),
        "200 and 199 examples": trace.take(slice(1, None)),
        "labels come in another order": trace.take(np.arange(len(trace))[::-1]),
    }
    for reason, other in others.items():
        with pytest.raises(DataError, match=f"cannot compare 'a' with 'b': .*{reason}"):
            refuse_unlike({"a": trace, "b": other})
    with pytest.raises(DataError, match="labelled data"):
        refuse_unlike({"a": trace, "b": replace(trace, labels=None)})


def test_doubts_about_traces() -> None:
    trace = replace(model_trace(examples=50), truncated=5, fingerprint="")
    trace.logits[:, 0] = [0.0, 1.0]
    policy = Policy(make_criterion("confidence"), (1, 4, 6, 12), (1.0,) * 4)
    assert trace_doubts(trace, policy) == (
        "the policy does not say what data its temperatures were fitted on [unknown-calibration]",
        "the trace has no fingerprint: whether it was calibrated on cannot be checked [unknown-calibration]",
        "only 50 examples: intervals are wide [few]",
        "5 examples (10.0%, more than a little) were cut to the maximum length [truncated]",
        "the exit at layer 1 gives every example the same answer [constant-exit]",
    )
    assert trace_doubts(replace(model_trace(), truncated=2)) == (
        "2 examples (1.0%) were cut to the maximum length [truncated]",
    )
    alike = replace(model_trace(), labels=np.zeros(200, dtype=np.int64))
    assert trace_doubts(alike) == ("all labels are the same [one-label]",)


def two_exits(lost: int, won: int, examples: int = 200) -> Trace:
    """Labels by turns; a first exit that errs on `won` examples, a second one that errs on `lost` others."""
    labels = np.arange(examples) % 2
    wrong = np.zeros((examples, 2), dtype=bool)
    wrong[:won, 0] = wrong[won : won + lost, 1] = True
    logits = np.eye(2, dtype=np.float32)[labels[:, None] ^ wrong]
    return trace_of(np.full((examples, 2), 0.9), ~wrong, (1, 4), logits=logits, labels=labels)


def test_a_later_exit_that_is_worse_than_chance_explains() -> None:
    assert trace_doubts(two_exits(lost=30, won=8)) == (
        "the exit at layer 4 is worse than the one at layer 1 on 30 examples, better on 8 [worse-deeper]",
    )
    assert trace_doubts(two_exits(lost=12, won=6)) == ()
    assert trace_doubts(two_exits(lost=6, won=30)) == ()
    assert trace_doubts(two_exits(lost=9, won=0)) == ()  # 1 of 512 by chance
    assert len(trace_doubts(two_exits(lost=10, won=0))) == 1  # 1 of 1,024
    values = regression_trace()
    assert trace_doubts(values) == ()
    values.logits[:, 2] += 3
    assert [told.rsplit("[", 1)[1] for told in trace_doubts(values)] == ["worse-deeper]"]


def test_doubts_of_many_are_told_once() -> None:
    found = [("a", ("x [few]", "y [few]")), ("b", ("z [few]", "w [one-label]")), ("c", ())]
    assert tally(found, "models") == ["2 of 3 models, such as a: x [few]", "b: w [one-label]"]
    assert tally([], "models") == []


def test_calibration_data_are_refused() -> None:
    policy = Policy(make_criterion("confidence"), (1, 4, 6, 12), calibrated_on="made up")
    with pytest.raises(CalibrationError, match="these data"):
        trace_doubts(model_trace(), policy)
    with pytest.raises(DataError, match="empty trace"):
        trace_doubts(model_trace().take(slice(0, 0)))


def test_good_attacks_leave_no_doubt() -> None:
    assert attack_doubts([attack_row(0, 2, id=i) for i in range(100)]) == ()


def test_doubts_about_attacks() -> None:
    rows = [attack_row(0, 2, id=i) for i in range(100)]
    rows[0] = attack_row(2, 1, id=0)
    rows[1] = attack_row(0, 2, id=1, adversarial_text="a good film")
    rows[2] = attack_row(0, 2, id=1)
    assert attack_doubts(rows) == (
        "1 examples ended weaker than they began (an earlier exit than the clean text) [weaker]",
        "1 examples count as successes although no text was changed [success-unchanged]",
        "1 rows repeat an example of the same recipe and seed [repeated-rows]",
    )
    rows[1] |= {"text_pair": "so it was", "adversarial_text_pair": "so it is"}
    assert len(attack_doubts(rows)) == 2  # the second sentence was changed
    assert attack_doubts([]) == ("no example was attacked [nobody]",)
    assert attack_doubts(rows[5:10]) == ("only 5 examples: intervals are wide [few]",)
    with pytest.raises(DataError, match="needs the columns id"):
        attack_doubts([{"text": "a"}])
