from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from offramp._core import environment

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    command = ["git", *identity, "-C", str(folder), *arguments]
    kept = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    return subprocess.run(command, capture_output=True, text=True, check=True, env=kept).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The package folder of a small checkout with one commit."""
    package = tmp_path.resolve() / "checkout" / "src" / "offramp"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (tmp_path / "checkout" / "README.md").write_text("")
    git(package, "init", "--quiet", str(tmp_path / "checkout"))
    git(package, "add", "--all", str(tmp_path / "checkout"))
    git(package, "commit", "--quiet", "--message", "first")
    return package


@needs_git
def test_commit_and_dirtiness_of_a_checkout(checkout: Path) -> None:
    commit = git(checkout, "rev-parse", "HEAD")
    assert environment.git_state(checkout) == {"commit": commit, "dirty": False}
    (checkout.parents[1] / "README.md").write_text("changed")
    assert environment.git_state(checkout) == {"commit": commit, "dirty": False}, "not the package's own"
    (checkout / "new.py").write_text("")
    assert environment.git_state(checkout) == {"commit": commit, "dirty": True}
    (checkout / "new.py").unlink()
    (checkout / "__init__.py").write_text("changed")
    assert environment.git_state(checkout) == {"commit": commit, "dirty": True}


@needs_git
def test_git_variables_of_a_hook_do_not_mislead(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = git(checkout, "rev-parse", "HEAD")
    monkeypatch.setenv("GIT_DIR", str(checkout / "elsewhere"))
    assert environment.git_state(checkout) == {"commit": commit, "dirty": False}


@needs_git
def test_an_installed_copy_inside_a_users_repository_is_no_checkout(checkout: Path) -> None:
    installed = checkout.parents[1] / ".venv" / "site-packages" / "offramp"
    shutil.copytree(checkout, installed)
    assert environment.git_state(installed) is None


@needs_git
def test_a_repository_without_commits(tmp_path: Path) -> None:
    package = tmp_path.resolve() / "src" / "offramp"
    package.mkdir(parents=True)
    git(package, "init", "--quiet", str(tmp_path))
    assert environment.git_state(package) is None


def test_no_repository(tmp_path: Path) -> None:
    assert environment.git_state(tmp_path / "src" / "offramp") is None


def test_no_git(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert environment.git_state() is None


def test_versions_of_what_is_installed() -> None:
    found = environment.versions()
    assert found["python"] == platform.python_version()
    assert found["numpy"] == np.__version__
    assert found["offramp"]


def test_hardware() -> None:
    found = environment.hardware()
    assert found["cores"] >= 1
    assert found["cpu"]
    assert found["ram_gib"] is None or found["ram_gib"] > 0


def test_asking_imports_nothing_heavy() -> None:
    code = (
        "import sys; from offramp._core import environment as e; e.versions(), e.hardware(); "
        "print([m for m in ('torch', 'transformers', 'onnxruntime') if m in sys.modules])"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"


def test_host_is_not_named() -> None:
    text = f"{platform.platform()} {environment.hardware()} {environment.versions()}"
    assert not platform.node() or platform.node() not in text
