"""Requests drawn from the service's own schema: no answer is the service's fault, and every answer is in the schema."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

pytest.importorskip("fastapi")
pytest.importorskip("schemathesis")

import schemathesis

from offramp.inference.engine import Engine
from offramp.serving.service import Service

from .running import running


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # the fuzzer's own
def test_the_schema_holds(engine: Engine) -> None:
    asked = set()
    with running(Service({"m": engine})) as server:
        schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
        for result in schema.get_all_operations():
            operation = result.ok()

            @settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
            @given(operation.as_strategy())
            def property(case: Any) -> None:
                case.call_and_validate()

            property()
            asked.add(operation.path)
    assert asked >= {"/predict", "/", "/classify", "/v1/classify", "/health", "/info", "/metrics", "/models"}
