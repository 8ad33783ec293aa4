from __future__ import annotations

import subprocess
import sys

HEAVY = ("torch", "transformers", "datasets", "matplotlib", "sklearn", "pyarrow", "scipy")


def test_evaluation_imports_nothing_heavy() -> None:
    code = f"import sys, offramp.evaluation; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
