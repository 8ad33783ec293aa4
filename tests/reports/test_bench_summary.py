"""The answers of benchmarks, from rows with values by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest

from offramp.reports.bench_summary import attacked, noticed, served, streamed, trained, under_attack


def test_a_service_stands_beside_the_fastest_other_at_the_largest_requests() -> None:
    rows = [
        {"peer": peer, "rows": rows, "texts_per_second": speed}
        for peer, rows, speed in (
            *(("offramp serve", 1, 900.0), ("plain", 1, 1000.0)),
            *(("offramp serve", 16, 2400.0), ("plain", 16, 600.0), ("other", 16, 1200.0)),
        )
    ]
    (sentence,) = served(rows)
    assert sentence == (
        "offramp serve answers 2,400 texts a second, at 16 texts a request: 2.0 times as many as the fastest other "
        "service, other."
    )
    assert served([row for row in rows if row["peer"] == "offramp serve"])[0].endswith("16 texts a request.")
    assert served([row for row in rows if row["peer"] == "plain"]) == []


def test_the_largest_attack_counts() -> None:
    rows: list[dict[str, Any]] = [
        {"service": service, "attacked_share": share, "rise": rise}
        for service, share, rise in (
            *(("offramp serve", 0.2, 0.3), ("offramp serve", 0.5, 1.43)),
            ("offramp serve, work budget", 0.5, 0.1),
        )
    ]
    (sentence,) = under_attack(rows)
    assert "While 50 % of the traffic" in sentence
    assert sentence.endswith("rises by 143 %, with a work budget by 10 %.")
    assert under_attack(rows[2:]) == []
    assert under_attack([]) == []


def test_training_names_the_cheapest_and_the_dearest() -> None:
    plain = {"name": "plain", "times_plain": 1.0}
    assert trained([plain]) == []
    one = trained([plain, {"name": "joint", "times_plain": 1.1}])
    assert one == ["A training step of joint takes 1.10 times as long as plain fine-tuning."]
    rows = [plain, *({"name": name, "times_plain": t} for name, t in (("pcgrad", 3.5), ("joint", 1.1)))]
    (sentence,) = trained(rows)
    assert "step of joint takes 1.10" in sentence
    assert "the least of 2 strategies; one of pcgrad takes 3.50 times as long." in sentence


def test_an_old_record_of_attacks_has_no_interval() -> None:
    row = {"name": "same-word", "times_faster": 11.46, "examples": 32}
    assert "same-word is 11.5 times as fast" in attacked([row])[0]
    assert "is 11.5 [9.0, 14.0] times" in attacked([row | {"lowest": 9.0, "highest": 14.0}])[0]


def test_a_stream_is_judged_by_its_second_half() -> None:
    rows = [
        {"mode": mode, "texts": 100 * k, "seconds": 10.0 * k, "resident_mib": 500.0 + min(k, 3)}
        for mode in ("batches", "pools")
        for k in range(1, 6)
    ]
    sentences = streamed(rows)
    assert len(sentences) == 2
    assert sentences[0] == (
        "With batches, 500 texts are answered at 10 a second; memory changes by +0 MiB in the second half."
    )


@pytest.mark.parametrize("missing", [None, math.nan])
def test_shifts_that_are_noticed(missing: float | None) -> None:
    def stage(name: str, drift: float | None, audit: float | None, alarmed: float = 0.0) -> dict[str, Any]:
        alarms = {"drift_alarmed": alarmed, "audit_alarmed": 0.0}
        return {"stage": name, "drift_delay": drift, "audit_delay": audit, **alarms}

    rows = [stage("own", missing, missing, 0.05), stage("a", 240, missing), stage("b", missing, missing)]
    assert noticed(rows) == [
        "1 of 2 shifts are noticed in most streams, the slowest after 240 texts.",
        "Before the texts change, 5 % of the streams raise a false alarm.",
    ]
    assert len(noticed(rows[:1])) == 1
