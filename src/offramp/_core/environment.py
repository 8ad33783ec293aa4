"""What a run ran on: versions, commit and hardware. Names no host, no user and no folder, and never fails."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parents[1]
LIBRARIES = ("torch", "transformers", "numpy", "onnxruntime")
GIB = 2**30


def versions() -> dict[str, str]:
    """Versions of Python, offramp and the libraries that make numbers, as far as installed; imports none."""
    from importlib import metadata  # a fortieth of a second, which an engine that only answers need not spend

    found = {"python": platform.python_version(), "offramp": _own_version()}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _own_version() -> str:
    """The version of the code that runs: an installed copy may be another one."""
    from importlib import metadata

    own = getattr(sys.modules.get("offramp"), "__version__", None)
    try:
        return str(own or metadata.version("offramp"))
    except metadata.PackageNotFoundError:
        return "unknown"


def git_state(package: Path = PACKAGE) -> dict[str, Any] | None:
    """Commit of the checkout that the package runs from.

    Args:
        package: folder of the package.

    Returns:
        `commit`, and `dirty`: whether the package's own files differ from it. None where the package is not
        run from a checkout of its own, or where git does not answer.
    """
    top = _git(package, "rev-parse", "--show-toplevel")
    if (
        top is None or Path(top) / "src" / "offramp" != package
    ):  # an installed copy inside a user's repository
        return None
    commit = _git(package, "rev-parse", "HEAD")
    changes = _git(package, "status", "--porcelain", "--", ".")
    if commit is None or changes is None:
        return None
    return {"commit": commit, "dirty": bool(changes)}


def _git(folder: Path, *arguments: str) -> str | None:
    # Inside a git hook GIT_DIR and its like point at another repository than the folder's.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")} | {
        "GIT_OPTIONAL_LOCKS": "0"
    }
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return done.stdout.strip()


def hardware() -> dict[str, Any]:
    """CPU model, cores this process may use, RAM in GiB; the GPU's name where torch already runs on one."""
    found: dict[str, Any] = {"cpu": cpu_model(), "cores": usable_cores(), "ram_gib": _ram_gib()}
    torch = sys.modules.get("torch")  # importing torch to name a GPU that nobody used would cost seconds
    if torch is not None and torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


def cpu_model() -> str:
    """The processor's marketing name, or the architecture where the system does not tell."""
    try:
        if platform.system() == "Linux":
            lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
            names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
            return names[0] if names else platform.machine()
        if platform.system() == "Darwin":
            command = ["sysctl", "-n", "machdep.cpu.brand_string"]
            return subprocess.run(
                command, capture_output=True, text=True, timeout=10, check=True
            ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return platform.machine()
    return platform.processor() or platform.machine()


def can_compile() -> bool:
    """Whether there is a C++ compiler, which torch.compile needs for a CPU."""
    return any(shutil.which(name) for name in ("g++", "clang++", "cl"))


def usable_cores() -> int:
    """Cores this process may run on; a container's CPU quota is not counted."""
    if platform.system() == "Linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _ram_gib() -> float | None:
    if platform.system() == "Windows":
        return None
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB, 1)


def system() -> str:
    """Operating system, kernel, machine and C library in one line, without the host's name."""
    return platform.platform()
