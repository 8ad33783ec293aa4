from __future__ import annotations

from pathlib import Path

import pytest

from tests.reports.made_up_runs import write_study


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs; tests only read it."""
    return write_study(tmp_path_factory.mktemp("study") / "runs")
