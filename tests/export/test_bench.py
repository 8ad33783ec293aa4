"""The race: every peer answers the same batches, and answers them right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from offramp._core.errors import ConfigError
from offramp._core.records import read_record
from offramp.engine.policy import Policy
from offramp.engine.timing import Timing
from offramp.export.bench import race, requests, summary
from offramp.export.peers import PEERS, Contest, prepare
from offramp.export.run import Texts
from offramp.model.encoding import TextEncoder

FULL = [name for name in PEERS if "full" in name]


@pytest.fixture(scope="module")
def contest(
    tiny_models: dict[str, Any], exports: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Contest:
    folder = tmp_path_factory.mktemp("bench")
    tiny_models["multi_exit"].save_pretrained(folder / "model")
    Policy.load(exports["multi_exit"] / "policy.json").save(folder / "policy.json")
    return Contest(folder / "model", folder / "work", 1)


def test_every_peer_meets_the_same_requests() -> None:
    encodings = [{"input_ids": [i]} for i in range(10)]
    seen: list[list[Any]] = [[], []]
    calls = [requests(lambda batch, log=log: log.append(batch), encodings, 3, 0) for log in seen]  # type: ignore[misc]
    for _ in range(5):
        for call in calls:
            call()
    assert seen[0] == seen[1]
    assert seen[0][0] == seen[0][3] != seen[0][1]
    assert all(len(batch) == 3 for batch in seen[0])


def test_the_summary_worked_out_by_hand() -> None:
    row = summary(Timing(np.array([0.001, 0.002, 0.003])), Timing(np.array([0.002, 0.002, 0.012])), 4)
    assert (row["p50"], row["low"], row["high"]) == pytest.approx((2.0, 1.5, 2.5))
    assert row["throughput"] == pytest.approx(4 * 3 / 0.006)
    assert row["speedup"] == pytest.approx(2.0)  # the median of 2, 1 and 4


@pytest.mark.slow
def test_peers_agree_and_the_race_is_run(
    contest: Contest, tiny_models: dict[str, Any], tiny_data: Any
) -> None:
    policy = Policy.load(contest.model.parent / "policy.json")
    prepare(contest.model, contest.work, policy, Texts(tiny_data["calibration"], tiny_data["validation"]))
    encodings = TextEncoder.of(tiny_models["multi_exit"]).dataset(tiny_data["validation"])[0]
    full = [PEERS[name](contest)(encodings) for name in FULL]
    np.testing.assert_array_equal(full[0], full[1])
    ours = [PEERS[name](contest)(encodings) for name in ("ours-torch", "ours-fp32")]
    np.testing.assert_array_equal(ours[0], ours[1])
    rows = race(contest, encodings, tiny_data["validation"]["label"], batch_sizes=(1, 4), repeats=2)
    assert [(row["peer"], row["batch_size"]) for row in rows] == [(n, b) for b in (1, 4) for n in PEERS]
    for row in rows:
        assert 0 < row["low"] <= row["p50"] <= row["high"] <= row["p99"]
        assert row["peak_mib"] > 20
        assert 0 <= row["score"] <= 1
    assert rows[0]["speedup"] == 1
    with pytest.raises(ConfigError, match=r"must lie in 1\.\.48"):
        race(contest, encodings, None, batch_sizes=(64,))


@pytest.mark.slow
def test_from_the_command_line(contest: Contest, tiny_data: Any, tmp_path: Path) -> None:
    from offramp.cli.main import run

    rows = [f"{row['text']},{row['label']}" for split in tiny_data.values() for row in split]
    (tmp_path / "own.csv").write_text("\n".join(["text,label", *rows]))
    command = ["bench", str(contest.model), str(tmp_path / "own.csv"), "--repeats", "2", "--examples", "20"]
    command += ["--policy", str(contest.model.parent / "policy.json"), "--batch-sizes", "1", "4"]
    assert run([*command, "--output", str(tmp_path / "out")]) == 0
    assert len(read_record(tmp_path / "out" / "record.json")["tables"]["bench"]) == 2 * len(PEERS)
