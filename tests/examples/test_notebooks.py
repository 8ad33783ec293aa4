"""The notebooks run from top to bottom; what is committed of them is small and was printed by these very cells."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.studies.trained_sweep import write_reviews

NOTEBOOKS = sorted((Path(__file__).parents[2] / "examples" / "notebooks").glob("*.ipynb"))
LARGEST = 100_000  # bytes


def ids(path: Path) -> str:
    return path.stem


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=ids)
# Jupyter's own: the kernel listens on this machine alone.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
def test_a_notebook_runs(path: Path, tiny_encoder: Path, tiny_data: Any, tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    reviews = write_reviews(tmp_path / "reviews.csv", tiny_data)
    small = {
        "DATA": str(reviews),
        "BACKBONE": str(tiny_encoder),
        "FOLDER": str(tmp_path / "run"),
        "TRAIN_SIZE": 60,
        "EXAMPLES": 3,
    }
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    (parameters,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ()))
    given = [line.partition(" = ")[0] for line in parameters.source.splitlines()]
    parameters.source = "\n".join(f"{name} = {small[name]!r}" for name in given)
    nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    images = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if "image/png" in output.get("data", {})
    ]
    assert len(images) == 1


@pytest.mark.parametrize("path", NOTEBOOKS, ids=ids)
def test_what_is_committed_is_small_and_without_noise(path: Path) -> None:
    assert path.stat().st_size < LARGEST
    text = path.read_text(encoding="utf-8")
    code = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))  # one run, in order
    kinds = {(output["output_type"], output.get("name", "")) for cell in code for output in cell["outputs"]}
    assert kinds <= {("execute_result", ""), ("display_data", ""), ("stream", "stdout")}
    assert "/home/" not in text
    assert "Error" not in text


def test_there_are_two() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["attack_a_model", "first_model"]
