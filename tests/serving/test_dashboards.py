"""The dashboard and the alerts ask for metrics and labels that the service has."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from offramp.serving.metrics import FAMILIES

ROOT = Path(__file__).parents[2]
DASHBOARD = json.loads((ROOT / "deploy/grafana/offramp.json").read_text(encoding="utf-8"))
RULES = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text(encoding="utf-8"))["groups"][0][
    "rules"
]
PAGE = (ROOT / "docs/operating.md").read_text(encoding="utf-8")

QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
QUERIES += [variable["definition"] for variable in DASHBOARD["templating"]["list"][1:]]
ALERTS = {rule["alert"]: rule["expr"] for rule in RULES}
SUFFIXES = {"Counter": ["_total"], "Histogram": ["_bucket", "_sum", "_count"], "Gauge": [""]}
SAMPLES = {f"offramp_{n}{end}": labels for n, (kind, _, labels) in FAMILIES.items() for end in SUFFIXES[kind]}


@pytest.mark.parametrize("query", [*QUERIES, *ALERTS.values()])
def test_queries_name_metrics_and_labels_that_exist(query) -> None:
    names = re.findall(r"offramp_\w+", query)
    assert names or "up{" in query
    labels = {"le", "job", *(label for name in names for label in SAMPLES[name])}
    asked = re.findall(r"(\w+)=~?\"", query) + re.findall(r"by \(([\w, ]+)\)", query)
    assert {label for group in asked for label in group.split(", ")} <= labels
    assert query.count("(") == query.count(")")


def test_every_metric_is_drawn() -> None:
    drawn = set(re.findall(r"offramp_\w+", " ".join(QUERIES)))
    for name, (kind, _, _) in FAMILIES.items():
        assert drawn & {f"offramp_{name}{end}" for end in SUFFIXES[kind]}, name


def test_the_page_explains_each_metric_and_alarm() -> None:
    for name in FAMILIES:
        assert f"| `offramp_{name}" in PAGE, name
    for alert in ALERTS:
        assert f"| `{alert}`" in PAGE, alert
    assert set(re.findall(r"^\| `(Offramp\w+)`", PAGE, flags=re.MULTILINE)) == set(ALERTS)


def test_labels_of_alerts_survive_their_aggregation() -> None:
    for rule in RULES:
        asked = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
        grouped = [set(group.split(", ")) for group in re.findall(r"by \(([\w, ]+)\)", rule["expr"])]
        assert all(asked <= group for group in grouped), rule["alert"]


def test_panels_do_not_overlap() -> None:
    corners = [(p["gridPos"]["x"], p["gridPos"]["y"]) for p in DASHBOARD["panels"]]
    assert len(set(corners)) == len(corners)
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(corners)
