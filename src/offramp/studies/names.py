"""Names in a study: of folders, and of models and data that are given as paths."""

from __future__ import annotations

import re
from pathlib import Path


def short(name: str) -> str:
    """The name; of an absolute path, its last component."""
    return Path(name).name if Path(name).is_absolute() else name


def slug(name: str) -> str:
    """The name with only those characters that a folder may have."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "-"
