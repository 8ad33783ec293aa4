"""Alarms on streams that shift: none before the shift, soon after it, and a policy that keeps the promise again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from offramp._core.errors import ConfigError
from offramp.bench.drift import watch_stream
from offramp.calibration import tune
from offramp.cli.main import run
from tests.calibration.calibration_traces import classifier

POLICY = tune(classifier(n=1000, classes=2), "confidence", max_accuracy_drop=0.02)


def stages() -> dict[str, Any]:
    same = classifier(seed=1, n=600, classes=2)
    harder = classifier(seed=2, n=600, classes=2)
    loud = replace(harder, logits=harder.logits * np.array([3.0, 1.0, 1.0, 1.0])[:, None])
    return {"same": same, "unsure": replace(harder, logits=harder.logits / 3), "too sure": loud}


def test_alarms_come_with_the_shift_and_not_before() -> None:
    same, unsure, sure = watch_stream(POLICY, stages(), texts=800, audit_share=0.5, runs=4)
    assert (same["drift_alarmed"], same["audit_alarmed"]) == (0, 0)
    assert np.isnan(same["drift_delay"])
    assert np.isnan(same["audit_delay"])
    assert same["disagreement"] <= same["promise"]
    assert (unsure["stage"], unsure["drift_alarmed"]) == ("unsure", 1)  # deeper, so the answers stay right
    assert 0 < unsure["drift_delay"] < 200
    assert unsure["depth"] > same["depth"]
    assert unsure["audit_alarmed"] == 0
    assert (sure["drift_alarmed"], sure["audit_alarmed"]) == (1, 1)  # shallower, and wrong
    assert sure["disagreement"] > sure["promise"]
    assert sure["retuned_disagreement"] < sure["promise"] + 0.03
    assert sure["retuned_cost"] > sure["cost"]


def test_the_same_seed_draws_the_same_stream() -> None:
    options = {"texts": 100, "runs": 2, "audit_share": 0.2}
    first, again = (watch_stream(POLICY, stages(), **options) for _ in range(2))
    assert json.dumps(first) == json.dumps(again)


def test_what_is_no_stream_is_refused() -> None:
    for options, message in (
        ({"stages": {}}, "a stream needs stages, got none: give at least one trace"),
        ({"texts": 0}, "texts must be a whole number of at least 1, got 0"),
        ({"audit_share": 5}, "audit_share is a share above 0 and at most 1, got 5: write 0.05 for 5 %"),
    ):
        with pytest.raises(ConfigError) as caught:
            watch_stream(POLICY, **{"stages": stages(), **options})
        assert str(caught.value) == message


def test_the_command_records_every_stage(
    tiny_encoder: Path, tiny_data: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "reviews.jsonl"
    rows = [row for split in tiny_data.values() for row in split]
    lines = [json.dumps({"text": row["text"], "label": ["bad", "good"][row["label"]]}) for row in rows]
    data.write_text("\n".join(dict.fromkeys(lines)) + "\n", encoding="utf-8")
    model = tmp_path / "joint"
    train = [
        "train",
        str(data),
        "--backbone",
        str(tiny_encoder),
        "--output",
        str(model),
        "--strategy",
        "joint",
    ]
    assert run([*train, "--exits", "1", "4", "--max-steps", "1"]) == 0
    assert run(["attack", str(model), str(data), "--recipe", "random-char", "--similarity", "none"]) == 0
    options = ["--texts", "40", "--runs", "2", "--attacked", str(model / "attack-random-char"), "--json"]
    capsys.readouterr()
    assert run(["bench", "drift", str(model), str(data), "--then", str(data), *options]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [row["stage"] for row in result["rows"]] == [str(data), f"attacked {data}"]
    assert Path(result["record"]).parent == model / "bench-drift"
    assert run(["report", str(model / "bench-drift")]) == 0
