"""Single graph, pools, OpenVINO and threads: on real exports, all decide as the segments do one by one."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from offramp._core.environment import usable_cores
from offramp._core.errors import ConfigError, CriterionError
from offramp.criteria import make_criterion, with_threshold
from offramp.engine.agreement import run_reference
from offramp.engine.cores import Cores
from offramp.engine.manifest import Manifest
from offramp.engine.onnx import OnnxSegments, SpinningGraph
from offramp.engine.onnx_engine import FusedGraph, fits
from offramp.engine.policy import Policy
from offramp.engine.pools import PoolingEngine
from offramp.engine.segment_times import SegmentTimes
from offramp.exporting.fused_graph import write_fused
from offramp.inference.engine import Engine

KINDS = ["multi_exit", "cascade", "int8"]


@pytest.fixture
def texts(tiny_data: Any) -> list[str]:
    return [*tiny_data["validation"]["text"], "", "the plot was very dull " * 9]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rule", ["confidence", "margin", "entropy"])
def test_the_single_graph_decides_as_the_segments_do(
    kind: str, rule: str, exports: dict[str, Path], texts: list[str], tmp_path: Path
) -> None:
    segments = OnnxSegments(exports[kind], threads=1)
    write_fused(exports[kind], segments.manifest, rule, tmp_path / "single.onnx")
    manifest = replace(segments.manifest, fused_graph="single.onnx", fused_rule=rule)
    encodings = segments.encoder()(texts)
    logits = np.concatenate([segments.run(0, segments.start(as_batch(one)))[1].logits for one in encodings])
    for temperatures in (None, (0.5, 2.0)):
        policy = Policy(make_criterion(rule), segments.exit_layers, temperatures)
        policy = replace(policy, criterion=with_threshold(policy.criterion, middle(policy, logits)))
        expected = run_reference(segments, policy, encodings)
        assert len(np.unique(expected.exit)) == 2
        single = FusedGraph(tmp_path, manifest, policy, threads=1)
        for row, one in enumerate(encodings):
            found = single(one)
            assert (found.exit, found.logits.argmax()) == (expected.exit[row], expected.prediction[row])
            assert found.score == pytest.approx(expected.score[row], abs=1e-5)
            assert found.probability == pytest.approx(expected.probability[row], abs=1e-5)


def as_batch(encoding: dict[str, list[int]]) -> dict[str, Any]:
    return {name: np.array([values], dtype=np.int64) for name, values in encoding.items()}


def middle(policy: Policy, logits: Any) -> float:
    """Between the two middle scores of the first exit."""
    from offramp._core.trace import Evidence

    found = np.sort(policy.criterion.score(Evidence(0, 2, logits).scaled(policy.temperatures), {})[0])
    return float(found[len(found) // 2 - 1 : len(found) // 2 + 1].mean())


def test_an_export_carries_a_single_graph_for_its_rule_alone(exports: dict[str, Path]) -> None:
    manifest = Manifest.load(exports["multi_exit"])
    assert manifest.fused_graph in manifest.files
    assert manifest.checks["single_differs"] == 0
    assert fits(manifest, Policy(make_criterion("confidence"), (1, 3)))
    assert not fits(manifest, Policy(make_criterion("entropy"), (1, 3)))
    with pytest.raises(ConfigError, match="a fused graph needs confidence, margin, entropy, got 'patience'"):
        write_fused(exports["multi_exit"], manifest, "patience", exports["multi_exit"] / "never.onnx")


@pytest.mark.parametrize("kind", KINDS)
def test_every_engine_decides_alike_at_every_batch_size(
    kind: str, exports: dict[str, Path], texts: list[str]
) -> None:
    engine = Engine(exports[kind], threads=1, batch_size=5)
    slow = run_reference(engine.segments, engine.compacting.policy, engine.encoder(texts, None))
    always = SegmentTimes((9.0, 9.0), (0.0, 0.0), (0.0, 0.0), 0.0)
    pools = PoolingEngine(engine.segments, engine.compacting.policy, always, batch_size=4)
    found = [engine.decide(texts), pools.run(engine.encoder(texts, None))]
    found += [Engine(exports[kind], threads=1, batch_size=1).decide(texts)]
    for decisions in found:
        np.testing.assert_array_equal(decisions.exit, slow.exit)
        np.testing.assert_array_equal(decisions.prediction, slow.prediction)
        np.testing.assert_allclose(decisions.probability, slow.probability, atol=1e-5)


def test_a_stream_answers_in_order(exports: dict[str, Path], texts: list[str]) -> None:
    expected = Engine(exports["multi_exit"], threads=1).predict(texts)
    for pools in (False, True):
        engine = Engine(exports["multi_exit"], threads=1, batch_size=2, pools=pools)
        found = list(engine.stream(iter(texts)))
        assert [(p.label, p.exit_layer, p.cost) for p in found] == [
            (p.label, p.exit_layer, p.cost) for p in expected
        ]
    pairs = [(text, "so it goes") for text in texts[:5]]
    paired = Engine(exports["multi_exit"], threads=1).predict(texts[:5], ["so it goes"] * 5)
    assert [p.label for p in engine.stream(pairs)] == [p.label for p in paired]
    assert list(engine.stream([])) == []


def test_threads_share_one_engine(exports: dict[str, Path], texts: list[str]) -> None:
    engine = Engine(exports["int8"], threads=1, batch_size=3)
    alone = engine.predict(texts)
    with ThreadPoolExecutor(6) as pool:
        assert all(found == alone for found in pool.map(engine.predict, [texts] * 12))


def test_a_device_that_is_not_there(exports: dict[str, Path]) -> None:
    import onnxruntime

    with pytest.raises(ConfigError, match="Did you mean 'cpu'"):
        Engine(exports["int8"], device="cpus")
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        with pytest.raises(ConfigError, match="has no cuda: install onnxruntime-gpu"):
            Engine(exports["int8"], device="cuda")


def test_fewer_operators_give_the_same(exports: dict[str, Path], texts: list[str], tmp_path: Path) -> None:
    import onnx

    from offramp.engine.onnx import open_session
    from offramp.exporting.quantise import quantise_graph

    plain = OnnxSegments(exports["multi_exit"], threads=1)
    part = plain.manifest.segments[0]
    feeds = [as_batch(one) for one in plain.encoder()(texts) if one["input_ids"]]
    feeds = [{name: feed[name] for name in part.inputs} for feed in feeds]
    found = []
    for fold in (True, False):
        path = tmp_path / f"{fold}.onnx"
        quantise_graph(exports["multi_exit"] / part.file, path, feeds, fold=fold)
        kinds = [node.op_type for node in onnx.load(path).graph.node]
        assert ("MatMulIntegerToFloat" in kinds) == fold
        assert ("Attention" in kinds) == fold
        assert ("MatMul" in kinds) != fold
        session = open_session(path, 1)
        found.append(np.concatenate([session.run(["logits"], feed)[0] for feed in feeds]))
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)


def test_the_single_graph_takes_a_threshold_for_each_exit(
    exports: dict[str, Path], texts: list[str], tmp_path: Path
) -> None:
    """And a graph that takes one for all, as earlier exports have, is left out for own thresholds and for recall."""
    segments = OnnxSegments(exports["multi_exit"], threads=1)
    manifest = segments.manifest
    shared = Policy.load(exports["multi_exit"] / manifest.policy)
    own = replace(shared, criterion=with_threshold(shared.criterion, (shared.criterion.threshold,)))
    encodings = segments.encoder()(texts)
    expected = run_reference(segments, own, encodings)
    single = FusedGraph(exports["multi_exit"], manifest, own, threads=1)
    assert [single(one).exit for one in encodings] == expected.exit.tolist()
    older = replace(manifest, fused_thresholds=False)
    assert fits(older, shared)
    assert not fits(older, own)
    assert not fits(manifest, replace(shared, recall=True))


@pytest.mark.parametrize("threads", [2, usable_cores() + 1])
def test_threads_that_share_a_text_answer_as_one_does(
    threads: int, exports: dict[str, Path], texts: list[str]
) -> None:
    """Also more threads than cores, which have none of their own."""
    expected = Engine(exports["multi_exit"], threads=1).decide(texts)
    found = Engine(exports["multi_exit"], threads=threads, batch_size=1).decide(texts)
    np.testing.assert_array_equal(found.exit, expected.exit)
    np.testing.assert_allclose(found.logits, expected.logits, atol=1e-5)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity") or usable_cores() < 2, reason="no cores to deal out")
def test_threads_of_the_single_graph_have_cores_of_their_own(exports: dict[str, Path]) -> None:
    before = os.listdir("/proc/self/task")
    manifest = Manifest.load(exports["multi_exit"])
    graph = SpinningGraph(exports["multi_exit"] / manifest.fused_graph, 2, manifest)
    started = [int(thread) for thread in os.listdir("/proc/self/task") if thread not in before]
    assert graph.inputs
    assert Cores(2).sets[1] in [os.sched_getaffinity(thread) for thread in started]


@pytest.mark.parametrize("batch_size", [1, 4])
def test_recall_on_an_export(batch_size: int, exports: dict[str, Path], texts: list[str]) -> None:
    policy = replace(Policy.load(exports["multi_exit"] / "policy.json"), recall=True)
    engine = Engine(exports["multi_exit"], policy, threads=1, batch_size=batch_size)
    slow = run_reference(engine.segments, policy, engine.encoder(texts, None))
    found = engine.decide(texts)
    np.testing.assert_array_equal(found.answer_exit, slow.answer_exit)
    np.testing.assert_array_equal(found.prediction, slow.prediction)
    assert (found.answer_exit < found.exit).any()


def test_an_export_for_another_rule_is_refused(exports: dict[str, Path]) -> None:
    message = (
        "'cap' needs the residuals of the exits, and .* was exported without them: export the model with this"
    )
    with pytest.raises(CriterionError, match=message):
        Engine(exports["multi_exit"], Policy(make_criterion("cap"), (1, 3)))
