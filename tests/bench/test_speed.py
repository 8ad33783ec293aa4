"""The race: every peer answers the same batches, and answers them right."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from offramp._core.errors import ConfigError
from offramp._core.records import read_record
from offramp.bench.artifacts import prepare
from offramp.bench.baselines import BenchArtifacts, find_baselines
from offramp.bench.measures import EnergyMeter, OtherCpuLoad, cold_start
from offramp.bench.speed import (
    BenchConfig,
    at_length,
    compared,
    request_batches,
    requests,
    run_benchmark,
    summary,
    typical,
)
from offramp.bench.stream import endless, flatness, stream_series
from offramp.engine.manifest import Manifest
from offramp.engine.policy import Policy
from offramp.engine.timing import Timing
from offramp.exporting.run import Texts
from offramp.inference.engine import Engine
from offramp.model.encoding import TextEncoder


@pytest.fixture(scope="module")
def artifacts(
    tiny_models: dict[str, Any], exports: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> BenchArtifacts:
    folder = tmp_path_factory.mktemp("bench")
    tiny_models["multi_exit"].save_pretrained(folder / "model")
    Policy.load(exports["multi_exit"] / "policy.json").save(folder / "policy.json")
    return BenchArtifacts(folder / "model", folder / "work", 1, (1, 3))


def test_every_peer_meets_the_same_requests() -> None:
    encodings = [{"input_ids": [i]} for i in range(10)]
    seen: list[list[Any]] = [[], []]
    batches = request_batches(encodings, 3, 0)
    made: list[int] = []

    def tokenise(rows: Any) -> list[Any]:
        made.append(len(rows))
        return [encodings[row] for row in rows]

    calls = [requests(lambda batch, log=log: log.append(batch), tokenise, batches) for log in seen]  # type: ignore[misc]
    for _ in range(5):
        for call in calls:
            call()
    assert seen[0] == seen[1]
    assert made == [3] * 10, "every peer's call makes its own token ids"
    assert seen[0][0] == seen[0][3] != seen[0][1]
    assert all(len(batch) == 3 for batch in seen[0])


def test_the_summary_worked_out_by_hand() -> None:
    row = summary(Timing(np.array([0.001, 0.002, 0.003])), Timing(np.array([0.002, 0.002, 0.012])), 4, 0.002)
    assert (row["p50"], row["low"], row["high"]) == pytest.approx((2.0, 1.5, 2.5))
    assert row["throughput"] == pytest.approx(4 / 0.002)
    assert row["speedup"] == pytest.approx(2.0)  # the median of 2, 1 and 4


def test_the_share_of_the_ideal_worked_out_by_hand() -> None:
    half_the_work = compared(0.006, best=0.010, cost=0.5)
    assert half_the_work == pytest.approx({"faster": 10 / 6, "cost": 0.5, "share": 5 / 6})


def test_a_request_counts_with_the_median_of_its_times() -> None:
    # Three rounds of two requests, after three of warm-up: the second request leads.
    timing = Timing(np.array([0.002, 0.001, 0.002, 0.001, 9.0, 0.001]))
    assert typical(timing, 2) == pytest.approx(0.0015)


def test_texts_of_one_length_keep_their_ends() -> None:
    text = {"input_ids": [1, 7, 8, 2], "attention_mask": [1] * 4}
    assert at_length(text, 7) == {"input_ids": [1, 7, 8, 7, 8, 7, 2], "attention_mask": [1] * 7}
    assert at_length(text, 3)["input_ids"] == [1, 7, 2]
    assert at_length({"input_ids": [1, 2]}, 4) == {"input_ids": [1, 1, 1, 2]}


def test_a_stream_is_looked_at_window_by_window(exports: dict[str, Path]) -> None:
    engine = Engine(exports["multi_exit"], threads=1, batch_size=2)
    kept: list[int] = []
    rows = stream_series(
        engine, ["a good film", "dull"], count=70, every=0.0, on_sample=lambda seen: kept.append(len(seen))
    )
    assert kept == [1, 2, 3], "told at every look, not at the end"
    assert [row["texts"] for row in rows] == [32, 64, 70], "sixteen batches of two at a time"
    for row, before in zip(rows[1:], rows, strict=False):
        spent = row["seconds"] - before["seconds"]
        assert row["throughput"] == pytest.approx((row["texts"] - before["texts"]) / spent)
    assert sorted(list(endless("abc", 7, 0))[3:6]) == list("abc")
    with pytest.raises(ConfigError, match="a count of at least 1, got 0 texts, 5"):
        stream_series(engine, [], count=5)


def test_flatness_worked_out_by_hand() -> None:
    series = [
        {"seconds": 10.0 * i, "texts": 100 * i, "throughput": speed, "resident_mib": memory}
        for i, speed, memory in (
            (1, 5.0, 1.0),
            (7, 10.0, 5.0),
            (8, 10.0, 5.0),
            (11, 12.0, 6.0),
            (12, 12.0, 7.0),
        )
    ]
    found = flatness(series)  # a run of two minutes: a fifth of it is 24 s
    assert found == pytest.approx({"throughput": 10.0, "throughput_change": 0.2, "memory_growth_mib": 2.0})


def test_energy_is_read_where_the_machine_tells(tmp_path: Path) -> None:
    assert not EnergyMeter(tmp_path / "none").available
    for name, value in (("intel-rapl:0", 900), ("intel-rapl:1", 50), ("intel-rapl:0:0", 5)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "energy_uj").write_text(f"{value}\n")
        (tmp_path / name / "max_energy_range_uj").write_text("1000\n")
    energy = EnergyMeter(tmp_path)
    before = energy.read()
    assert before == [900, 50], "packages, not their parts"
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("100")  # past its maximum, and from the start again
    (tmp_path / "intel-rapl:1" / "energy_uj").write_text("80")
    assert energy.joules(before, energy.read()) == pytest.approx((200 + 30) / 1e6)
    assert EnergyMeter(tmp_path / "none").joules([], []) is None


def test_other_work_on_the_machine_is_told(tmp_path: Path) -> None:
    stat = tmp_path / "stat"
    stat.write_text("cpu  100 0 0 500 0 0 0 0 0 0\ncpu0 1 2\n")
    load = OtherCpuLoad(stat)
    assert load.cores() == pytest.approx(0, abs=0.01)
    stat.write_text("cpu  1000100 0 0 500 0 0 0 0 0 0\n")
    assert (load.cores() or 0) > 1
    assert OtherCpuLoad(tmp_path / "none").cores() is None


def test_the_first_answer_of_a_model_for_pairs_is_timed(exports: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(exports["multi_exit"], tmp_path / "pairs")
    replace(Manifest.load(folder), pair=True).save(folder)
    assert cold_start(folder, 1, repeats=1).p50 > 0


@pytest.mark.slow
def test_peers_agree_and_the_race_is_run(
    artifacts: BenchArtifacts, tiny_models: dict[str, Any], tiny_data: Any
) -> None:
    policy = Policy.load(artifacts.model.parent / "policy.json")
    prepare(artifacts.model, artifacts.work, policy, Texts(tiny_data["calibration"], tiny_data["validation"]))
    encodings = TextEncoder.of(tiny_models["multi_exit"]).dataset(tiny_data["validation"])[0]
    peers = find_baselines(artifacts)
    assert {"eager-full", "ort-static-int8-full", "cut-1", "eager-exits", "ours-int8"} <= set(peers)
    answers = {
        name: peer.build(artifacts)(encodings) for name, peer in peers.items() if "compiled" not in name
    }
    np.testing.assert_array_equal(answers["eager-full"], answers["ort-fp32-full"])
    for name in ("eager-exits", "eager-compaction"):
        np.testing.assert_array_equal(answers[name], answers["ours-fp32"])
    some = (
        "eager-full",
        "ort-static-int8-full",
        "cut-1",
        "eager-exits",
        "ours-int8",
    )  # each takes a process too
    config = BenchConfig((1, 4), length=12, repeats=2, peers=some)
    rows = run_benchmark(artifacts, encodings, tiny_data["validation"]["label"], config)
    names = list(dict.fromkeys(row["peer"] for row in rows))
    assert [(row["peer"], row["batch_size"]) for row in rows] == [(n, b) for b in (1, 4) for n in names]
    for row in rows:
        assert 0 < row["low"] <= row["p50"] <= row["high"] <= row["p99"]
        assert row["peak_mib"] > 20
        assert 0 <= row["score"] <= 1
        assert row["length"] == 12
        assert (row["cost"] == 1) == (row["kind"] == "full")
        assert row["share"] == pytest.approx(row["faster"] * row["cost"])
    assert rows[0]["speedup"] == 1
    assert max(row["faster"] for row in rows if row["kind"] == "full") == pytest.approx(1)
    assert cold_start(artifacts.work / "int8", 1, repeats=1).p50 > 0
    with pytest.raises(ConfigError, match=r"must lie in 1\.\.48"):
        run_benchmark(artifacts, encodings, None, BenchConfig((64,)))
    with pytest.raises(ConfigError, match="Did you mean 'ours-int8'"):
        run_benchmark(artifacts, encodings, None, BenchConfig((4,), peers=("our-int8",)))
    with pytest.raises(ConfigError, match="add eager-full"):
        run_benchmark(artifacts, encodings, None, BenchConfig((4,), peers=("ours-int8",)))


def test_the_drops_of_other_policies_are_shares_in_order() -> None:
    assert BenchConfig(drops=(0.05, 0, 0.05)).drops == (0, 0.05)
    with pytest.raises(ConfigError, match=r"drops.* 0\.02"):
        BenchConfig(drops=(2,))
    with pytest.raises(ConfigError, match="repeats must be a whole number of at least 1, got 0"):
        BenchConfig(repeats=0)
    with pytest.raises(ConfigError, match="length must be a whole number of at least 0, got -1"):
        BenchConfig(length=-1)


@pytest.mark.slow
def test_from_the_command_line(artifacts: BenchArtifacts, tiny_data: Any, tmp_path: Path) -> None:
    from offramp.cli.main import run
    from offramp.reports import ALL_FIGURES, report

    names = ("no", "so so", "yes")
    given = [row["text"] for split in tiny_data.values() for row in split]
    rows = [f"{text},{names[i % 3]}" for i, text in enumerate(given)]
    (tmp_path / "own.csv").write_text("\n".join(["text,label", *rows]))
    command = ["bench", str(artifacts.model), str(tmp_path / "own.csv"), "--repeats", "2", "--examples", "20"]
    command += ["--policy", str(artifacts.model.parent / "policy.json"), "--batch-sizes", "1", "4"]
    command += ["--peers", "eager-full", "cut-1", "ours-int8", "--drops", "1", "0"]
    assert run([*command, "--output", str(tmp_path / "out")]) == 0
    record = read_record(tmp_path / "out" / "record.json")
    assert len(record["tables"]["bench"]) == 2 * 5
    costs = {row["peer"]: row["cost"] for row in record["tables"]["bench"] if row["kind"] == "point"}
    assert list(costs) == ["ours-int8-drop-0", "ours-int8-drop-1"], "timed though --peers does not name them"
    assert costs["ours-int8-drop-1"] == min(costs.values()) < 0.5, "with any loss allowed all leave at once"
    assert record["metrics"]["cold_start_seconds"] > 0
    stream = ["bench", "stream", str(tmp_path / "out" / "int8"), str(tmp_path / "own.csv"), "--texts", "300"]
    assert run([*stream, "--every", "0.01", "--output", str(tmp_path / "out" / "stream")]) == 0
    series = read_record(tmp_path / "out" / "stream" / "record.json")["tables"]["stream"]
    assert {row["mode"] for row in series} == {"batches", "pools"}
    assert [row["texts"] for row in series if row["mode"] == "pools"][-1] == 300
    written = report(tmp_path / "out", tmp_path / "report", figures=ALL_FIGURES)
    for name in ("bench-1-batch-1.svg", "bench-1-batch-4.png", "stream-1.svg", "bench.md", "stream.md"):
        assert any(path.endswith(name) for path in written), name
