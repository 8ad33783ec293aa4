"""The endurance run in `deploy`, in short."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from offramp.bench.service_peers import free_port

SCRIPT = Path(__file__).parents[2] / "deploy" / "endure.py"
FULL = Path("/dev/full")


@pytest.mark.slow
@pytest.mark.skipif(not FULL.exists(), reason="needs Linux")
def test_good_clients_get_their_answers_among_bad_ones_and_kills(exported: Path, tmp_path: Path) -> None:
    texts = tmp_path / "texts"
    texts.write_text("".join(f"a good film {i}\n" for i in range(50)))
    options = f"--minutes 0.35 --kill-every 5 --log {FULL} --port {free_port()} --other-port {free_port()}"
    command = [sys.executable, str(SCRIPT), str(exported), str(texts), *options.split()]
    ended = subprocess.run(command, capture_output=True, text=True)
    result = json.loads(ended.stdout)
    assert result["failures"] == []
    assert ended.returncode == 0
    assert result["kills"] >= 1
    assert sum(count for name, count in result["statuses"].items() if name.startswith("good |")) > 50
