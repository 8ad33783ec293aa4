"""Names in a study: of folders, and of models and data given as paths."""

from __future__ import annotations

import re
from pathlib import Path


def short(name: str) -> str:
    """A name; of an absolute path its last part."""
    return Path(name).name if Path(name).is_absolute() else name


def slug(name: str) -> str:
    """A name as a folder's."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "-"
