"""The versions, commit and hardware of a run: no name of a host, user or folder, and no failure."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parents[1]
LIBRARIES = ("torch", "transformers", "numpy", "onnxruntime")
GIB = 2**30


def versions() -> dict[str, str]:
    """Versions of Python, offramp and the installed numerical libraries; imports none."""
    from importlib import metadata  # takes a fortieth of a second, which an engine does not need

    # The running code's own version: an installed copy may have another one.
    own = getattr(sys.modules.get("offramp"), "__version__", "unknown")
    installed = {"python": platform.python_version(), "offramp": str(own)}
    for name in LIBRARIES:
        with suppress(metadata.PackageNotFoundError):
            installed[name] = metadata.version(name)
    return installed


def git_state(package: Path = PACKAGE) -> dict[str, Any] | None:
    """The `commit` of the checkout that the package runs from, and `dirty`: whether its own files differ from it.

    None if the package does not run from its own checkout, or git does not answer.
    """
    top = _git(package, "rev-parse", "--show-toplevel")
    if top is None or Path(top) / "src" / "offramp" != package:
        return None  # an installed copy inside a user's repository
    commit = _git(package, "rev-parse", "HEAD")
    changes = _git(package, "status", "--porcelain", "--", ".")
    if commit is None or changes is None:
        return None
    return {"commit": commit, "dirty": bool(changes)}


def _git(folder: Path, *arguments: str) -> str | None:
    # Inside a git hook, GIT_DIR and similar variables name another repository.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    environment["GIT_OPTIONAL_LOCKS"] = "0"
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return done.stdout.strip()


def hardware() -> dict[str, Any]:
    """CPU model, cores of this process, RAM in GiB; the GPU's name if torch already uses one."""
    ram = None
    if platform.system() != "Windows":
        ram = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB, 1)
    described: dict[str, Any] = {"cpu": cpu_model(), "cores": usable_cores(), "ram_gib": ram}
    torch = sys.modules.get("torch")  # importing torch only to name an unused GPU would take seconds
    if torch is not None and torch.cuda.is_available():
        described["gpu"] = torch.cuda.get_device_name()
    return described


def cpu_model() -> str:
    """The processor's marketing name, or the architecture if the name is unknown."""
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
    """Whether a C++ compiler is installed, which torch.compile needs for a CPU."""
    return any(shutil.which(name) for name in ("g++", "clang++", "cl"))


def usable_cores() -> int:
    """Cores that this process may run on; the CPU quota of a container does not count."""
    if platform.system() == "Linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
