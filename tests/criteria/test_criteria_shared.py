"""What holds for every exit rule."""

from dataclasses import fields, replace
from itertools import pairwise

import numpy as np
import pytest
from criteria_table import EXITS, ROWS, make_trace, random_trace
from hypothesis import given, settings
from hypothesis import strategies as st

from offramp._core.errors import CriterionError
from offramp._core.trace import Evidence
from offramp.criteria import CRITERIA, first_exit, make_criterion, scores, threshold_grid, with_threshold
from offramp.engine.policy import Policy

every_rule = pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
seeds = st.integers(0, 10**6)


def bfloat16(values):
    """Float32 rounded to the nearest bfloat16 (ties to even), by its bits."""
    bits = np.asarray(values, dtype=np.float32).view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    return rounded.astype(np.uint32).view(np.float32)


FORMATS = {
    "fp16": (65504.0, np.float16),
    "bf16": (3.38e38, bfloat16),
    "fp32": (float(np.finfo(np.float32).max), np.float32),
}


def extremes(top, classes):
    """Logits `(examples, exits, classes)`: the largest values of a format in every arrangement that hurts."""
    rows = np.zeros((10, classes))
    rows[0, 0], rows[1, -1] = top, -top
    rows[2] = top
    rows[3] = -top
    rows[4], rows[4, 0] = -top, top
    rows[5, :2] = top
    rows[6, 0], rows[7, 0] = 1e4, -1e4
    rows[8] = np.linspace(-top, top, classes) if top < 1e30 else np.linspace(-1, 1, classes) * top
    rows[9, 0] = 6e-8
    return np.stack([np.roll(rows, shift, axis=0) for shift in range(EXITS)], axis=1)


def test_the_table_has_every_rule_and_every_option():
    assert {row.rule.name for row in ROWS.values()} == set(CRITERIA)
    for rule in CRITERIA.values():
        options = {f.name: f.default for f in fields(rule) if f.name != "threshold"}
        rows = [row.rule for row in ROWS.values() if type(row.rule) is rule]
        assert all(any(getattr(r, option) != default for r in rows) for option, default in options.items())


@every_rule
@pytest.mark.parametrize("classes", [2, 5, 3000])
@pytest.mark.parametrize("name", FORMATS)
def test_scores_are_finite_and_in_range_for_every_finite_logit(row, name, classes):
    top, cast = FORMATS[name]
    trace = make_trace(np.asarray(cast(extremes(top, classes)), dtype=np.float32), row.kind)
    assert np.isfinite(trace.logits).all()
    table = scores(row.rule, trace)
    assert table.dtype == np.float64
    assert np.isfinite(table).all()
    if row.rule.tunable and not row.rule.whole:  # those that count start at 0, below their first threshold
        low, high = row.rule.threshold_range
        assert (low <= table).all()
        assert (table < high).all()


@every_rule
def test_scores_of_torch_half_formats_are_finite(row):
    torch = pytest.importorskip("torch")
    for dtype in (torch.float16, torch.bfloat16):
        logits = torch.tensor(extremes(torch.finfo(dtype).max, 3), dtype=torch.float64).to(dtype).float()
        assert np.isfinite(scores(row.rule, make_trace(logits.numpy(), row.kind))).all()


def test_bfloat16_rounding_is_that_of_torch():
    torch = pytest.importorskip("torch")
    values = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    assert (bfloat16(values) == torch.tensor(values).bfloat16().float().numpy()).all()


@every_rule
@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("exit", range(EXITS))
def test_a_broken_logit_is_an_error_that_names_the_exit(row, broken, exit):
    trace = random_trace(1, row.kind)
    trace.logits[[2, 5], exit, 0] = broken
    with pytest.raises(CriterionError, match=rf"at exit {exit + 1} \(counted from 1\) in 2 of 12 examples"):
        scores(row.rule, trace)


def test_a_broken_gate_is_an_error_that_names_the_exit():
    trace = random_trace(1)
    trace.gates[3, 2] = np.nan
    with pytest.raises(CriterionError, match=r"finite gates, got NaN or infinity at exit 3"):
        scores(ROWS["learned"].rule, trace)


def test_residuals_must_be_there_and_finite():
    trace = random_trace(1)
    trace.residuals[3, 2] = np.nan
    with pytest.raises(CriterionError, match=r"finite residuals, got NaN or infinity at exit 3"):
        scores(ROWS["cap"].rule, trace)
    with pytest.raises(
        CriterionError, match="'cap' needs the residuals .* trace the model again, or export it"
    ):
        scores(ROWS["cap"].rule, replace(trace, residuals=None))


@every_rule
@given(seed=seeds)
@settings(max_examples=15, deadline=None)
def test_a_stricter_threshold_never_leaves_earlier(row, seed):
    table = scores(row.rule, random_trace(seed, row.kind))
    exits = [first_exit(with_threshold(row.rule, t), table) for t in row.thresholds]
    for lax, strict in pairwise(exits):
        assert (lax <= strict).all()


@every_rule
@given(seed=seeds)
@settings(max_examples=15, deadline=None)
def test_a_rule_that_leaves_at_once_does(row, seed):
    table = scores(row.rule, random_trace(seed, row.kind))
    low, high = row.rule.threshold_range
    lax = with_threshold(row.rule, high if row.rule.leaves_below else low)
    assert lax.leaves_at_once == (row.rule.tunable and not row.rule.whole)
    assert not (lax.leaves_at_once and first_exit(lax, table).any())
    assert not row.rule.leaves_at_once


@every_rule
@given(seed=seeds)
@settings(max_examples=25, deadline=None)
def test_the_scan_is_the_step_loop_with_rows_dropped(row, seed):
    """Rows that leave go, others are lost at random and the rest is shuffled: as engines do."""
    rng = np.random.default_rng(seed)
    trace = random_trace(seed, row.kind)
    expected = first_exit(row.rule, scores(row.rule, trace))
    alive, memory = np.arange(len(trace)), {}
    for exit in range(trace.exits):
        leave, memory = row.rule.step(trace.take(alive).evidence(exit), memory)
        assert leave.tolist() == (expected[alive] == exit).tolist()
        stay = rng.permutation(np.flatnonzero(~leave & (rng.uniform(size=len(alive)) < 0.9)))
        alive, memory = alive[stay], {name: array[stay] for name, array in memory.items()}
    assert len(alive) == 0


@every_rule
@given(seed=seeds)
@settings(max_examples=10, deadline=None)
def test_the_order_of_the_examples_does_not_matter(row, seed):
    trace = random_trace(seed, row.kind)
    order = np.random.default_rng(seed).permutation(len(trace))
    assert (scores(row.rule, trace.take(order)) == scores(row.rule, trace)[order]).all()


@every_rule
@given(seed=seeds)
@settings(max_examples=10, deadline=None)
def test_the_names_of_the_classes_do_not_matter(row, seed):
    rng = np.random.default_rng(seed)
    trace = make_trace(rng.normal(size=(9, EXITS, 4)), row.kind, seed)
    if row.kind == "regression":
        return
    order = rng.permutation(4)
    renamed = replace(trace, logits=trace.logits[:, :, order], labels=np.argsort(order)[trace.labels])
    np.testing.assert_allclose(scores(row.rule, renamed), scores(row.rule, trace), rtol=1e-12, atol=1e-12)


@every_rule
@given(seed=seeds)
@settings(max_examples=15, deadline=None)
def test_a_text_that_layer_0_does_not_recognise_takes_the_way_of_a_model_without_it(row, seed):
    trace = replace(random_trace(seed, row.kind), exit_layers=(0, 1, 2, 3))
    trace.logits[::2, 0] = 0
    silent = trace.take(slice(None, None, 2))
    behind = replace(
        silent,
        logits=silent.logits[:, 1:],
        exit_layers=(1, 2, 3),
        flops=silent.flops[:, 1:],
        gates=silent.gates[:, 1:],
        residuals=silent.residuals[:, 1:],
    )
    options = {f.name: getattr(row.rule, f.name) for f in fields(row.rule)}
    shorter = type(row.rule)(**{name: v[1:] if isinstance(v, tuple) else v for name, v in options.items()})
    if not row.rule.tunable:  # see the next test
        return
    tables = scores(row.rule, silent), scores(shorter, behind)
    assert np.isinf(tables[0][:, 0]).all()
    np.testing.assert_array_equal(tables[0][:, 1:], tables[1])
    for threshold in threshold_grid(row.rule, scores(row.rule, trace)):
        exits = [first_exit(with_threshold(row.rule, threshold), table) for table in tables]
        assert (exits[0] == exits[1] + 1).all()


def test_the_oracle_waits_for_an_answer_and_a_fixed_exit_is_taken():
    trace = replace(make_trace(np.zeros((3, EXITS, 2))), exit_layers=(0, 1, 2, 3), labels=np.zeros(3, int))
    assert (first_exit(make_criterion("oracle"), scores(make_criterion("oracle"), trace)) == 1).all()
    assert (first_exit(make_criterion("fixed", 1), scores(make_criterion("fixed"), trace)) == 0).all()


@every_rule
def test_an_empty_batch_has_no_scores(row):
    assert scores(row.rule, random_trace(0, row.kind).take(slice(0, 0))).shape == (0, EXITS)


@every_rule
def test_the_last_exit_takes_everybody(row):
    trace = random_trace(4, row.kind)
    strict = with_threshold(row.rule, row.thresholds[-1])
    leave, _ = strict.step(trace.evidence(EXITS - 1), {})
    assert leave.all()


@every_rule
def test_a_policy_file_gives_the_rule_back(row, tmp_path):
    policy = Policy(row.rule, (1, 2, 4, 6), (1.0, 2.0, 0.5, 1.5), "data", {"max_cost": 0.5})
    policy.save(tmp_path / "policy.json")
    assert Policy.load(tmp_path / "policy.json") == policy
    for end in (row.thresholds[0], row.thresholds[-1]):
        policy = Policy(with_threshold(row.rule, end), (1, 2, 4, 6))
        policy.save(tmp_path / "policy.json")
        assert Policy.load(tmp_path / "policy.json") == policy


@every_rule
def test_regression_is_refused_where_a_rule_needs_classes(row):
    trace = random_trace(0, "regression")
    if type(row.rule).regression:
        assert scores(row.rule, trace).shape == (12, EXITS)
        return
    with pytest.raises(CriterionError, match="but the task is regression: use 'patience'"):
        scores(row.rule, trace)


@pytest.mark.parametrize("name", ["confidence", "entropy", "normalized_entropy", "margin", "vote"])
def test_one_column_has_no_probabilities(name):
    with pytest.raises(CriterionError, match="at least two classes, got 1 at exit 1"):
        make_criterion(name).score(Evidence(0, 2, np.zeros((3, 1))), {})


@pytest.mark.parametrize("name", CRITERIA)
def test_every_rule_has_a_default_and_says_where_it_comes_from(name):
    rule = make_criterion(name)
    assert rule == make_criterion(name, rule.default_threshold)
    documented = CRITERIA[name].__doc__.replace("−", "-").lower()
    assert "source:" in documented or not rule.tunable
    stated = {"energy": "default of -3", "oracle": "threshold is 1"}.get(name, f"default {rule.threshold:g}")
    assert stated in documented


@pytest.mark.parametrize(
    ("name", "threshold", "message"),
    [
        ("confidence", -0.1, "'confidence' expected a number from 0 to 2 as threshold, got -0.1"),
        ("confidence", 95, "from 0 to 2 as threshold, got 95: write 0.95 for 95 %"),
        ("confidence", float("nan"), "got nan"),
        ("confidence", "0.9", "got '0.9'"),
        ("confidence", True, "got True"),
        ("margin", 3, "from 0 to 2"),
        ("entropy", -1, "from 0 to 1000"),
        ("normalized_entropy", 2.5, "from 0 to 2"),
        ("patience", 0, "'patience' expected a whole number of at least 1 as threshold, got 0"),
        ("patience", 1.5, "a whole number of at least 1 as threshold, got 1.5"),
        ("patience_confidence", 0, "at least 1"),
        ("vote", -1, "from 0 to 1000"),
        ("learned", -0.5, "from 0 to 2"),
        ("energy", float("inf"), "a number that is finite as threshold, got inf"),
        ("fixed", 0, "a whole number of at least 1"),
        ("oracle", 0.5, "from 1 to 1"),
    ],
)
def test_thresholds_out_of_range_are_refused(name, threshold, message):
    with pytest.raises(CriterionError, match=message):
        make_criterion(name, threshold)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("patience", {"tolerance": -1.0}, "'patience' expected a number of at least 0 as tolerance, got -1"),
        (
            "patience_confidence",
            {"confidence": 1.5},
            "from 0 to 1 as confidence, got 1.5: write 0.015 for 1.5 %",
        ),
        ("learned", {"low": [0.1], "high": [0.2, 0.3]}, "one low ≤ high per exit"),
        ("learned", {"low": [0.5], "high": [0.2]}, "one low ≤ high per exit"),
        ("learned", {"low": [-0.5], "high": [0.2]}, "from 0 to 1 as low"),
        ("energy", {"temperatures": [1.0, 0.0]}, "as temperatures, got 0"),
        ("vote", {"weights": [0.5, -1.0]}, "from 0 to 100 as weights, got -1"),
        ("vote", {"weighting": "costs"}, "weighting.*'costs'.*Did you mean 'cost'"),
        ("vote", {"reset": 1}, "'vote': .*reset"),
        ("cap", {"alpha": -1}, "'cap' expected a number from 0 to 1000 as alpha, got -1"),
        (
            "patience",
            {"tolerence": 1.0},
            "unknown option of 'patience' 'tolerence'. Did you mean 'tolerance'",
        ),
        ("confidence", {"tolerance": 1.0}, "unknown option of 'confidence' 'tolerance'"),
    ],
)
def test_options_out_of_range_are_refused(name, options, message):
    with pytest.raises(CriterionError, match=message):
        make_criterion(name, **options)


def test_an_unknown_name_brings_the_near_miss():
    with pytest.raises(CriterionError, match=r"unknown criterion 'confidense'\. Did you mean 'confidence'"):
        make_criterion("confidense")


def test_numpy_thresholds_become_plain_numbers():
    assert type(make_criterion("patience", np.int64(3)).threshold) is int
    assert type(make_criterion("patience", 3.0).threshold) is int
    assert type(make_criterion("confidence", np.float32(0.5)).threshold) is float


def test_what_does_not_fit_the_model_is_refused():
    with pytest.raises(CriterionError, match="'patience' needs at least 2 exits, but the model has 1"):
        make_criterion("patience").check(1, "classification", False)
    with pytest.raises(CriterionError, match="'learned' needs learned gates"):
        make_criterion("learned").check(4, "classification", False)
    with pytest.raises(CriterionError, match="fitted on 4 exits, the model has 3"):
        ROWS["learned"].rule.check(3, "classification", True)
    with pytest.raises(CriterionError, match="has 4 temperatures, the model 3 exits"):
        ROWS["energy"].rule.check(3, "classification", False)
    with pytest.raises(CriterionError, match="an exit number from 1 to 3, got 4"):
        make_criterion("fixed", 4).check(3, "classification", False)
    with pytest.raises(CriterionError, match="'oracle' needs the true labels"):
        scores(make_criterion("oracle"), replace(random_trace(0), labels=None))
    make_criterion("patience", 99).check(3, "classification", False)  # never fires: the full model, allowed


def test_own_thresholds_are_checked_one_by_one():
    rule = make_criterion("confidence", np.array([0.5, np.float32(0.75)]))
    assert rule.threshold == (0.5, 0.75)
    assert [rule.threshold_at(k) for k in range(3)] == [0.5, 0.75, 0.75]
    assert make_criterion("patience", [3.0, 2]).threshold == (3, 2)
    assert make_criterion("confidence", [0.0, 0.9]).leaves_at_once
    assert not make_criterion("confidence", [0.9, 0.0]).leaves_at_once
    rule.check(3, "classification", False)
    with pytest.raises(
        CriterionError, match="has 2 thresholds, one for each exit but the last, but the model has 4"
    ):
        rule.check(4, "classification", False)
    for values, message in (
        ([0.5, 50], "expected a number from 0 to 2 as a threshold, got 50: write 0.5 for 50 %"),
        ([0.5, float("nan")], "as a threshold, got nan"),
        ([0.5, "x"], "as a threshold, got 'x'"),
        ([[0.5]], "as a threshold, got"),
        ([], "an empty list of thresholds: give one for each exit but the last"),
    ):
        with pytest.raises(CriterionError, match=message):
            make_criterion("confidence", values)
    for name in ("fixed", "oracle"):
        with pytest.raises(CriterionError, match="takes one number for all exits, got"):
            make_criterion(name, [1, 1])
