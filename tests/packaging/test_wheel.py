"""What a user installs: a wheel with every file of the package, which runs without torch; and the hooks of a commit."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

import offramp

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "offramp"


def pip(*words: str, python: Path = Path(sys.executable)) -> None:
    command = [str(python), "-m", "pip", "--disable-pip-version-check", "--quiet", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", ".", "--no-deps", "--wheel-dir", str(folder))
    (path,) = folder.glob("*.whl")
    return path


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    files = {path.relative_to(PACKAGE.parent).as_posix() for path in PACKAGE.rglob("*") if path.is_file()}
    assert names == {name for name in files if "__pycache__" not in name}
    assert {"offramp/py.typed", "offramp/model/templates/card.md.j2"} <= names
    assert wheel.name.startswith(f"offramp-{offramp.__version__}-py3-none-any")


@pytest.mark.slow
def test_it_runs_in_a_fresh_environment_without_torch(wheel: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    scripts = tmp_path / "venv" / ("Scripts" if sys.platform == "win32" else "bin")
    pip("install", str(wheel), python=scripts / "python")
    for words, code, expected in (
        (["--version"], 0, offramp.__version__),
        (["runs", "--help"], 0, "Usage: offramp runs"),
        (["runs", str(ROOT / "tests" / "frozen" / "runs" / "joint")], 0, "evaluate"),
        (["train", "movies", "--output", str(tmp_path / "run")], 2, "pip install 'offramp[torch]'"),
    ):
        done = subprocess.run(
            [str(scripts / "offramp"), *words], capture_output=True, text=True, check=False, cwd=tmp_path
        )
        assert (done.returncode, expected in done.stdout + done.stderr) == (code, True), done.stderr


def test_the_hooks_of_a_commit_run_what_make_lint_runs() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    hooks = [hook["entry"] for repo in config["repos"] for hook in repo["hooks"]]
    recipe = (ROOT / "Makefile").read_text(encoding="utf-8").partition("\nlint:")[2].partition("\n\n")[0]
    assert hooks == re.findall(r"\$\(BIN\)/(.*)", recipe)
