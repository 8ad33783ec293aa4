"""Labelled text from folders, files, data sets on disk or on the hub, and registry packages."""

from offramp.data.fitting import check_fit, fitting_labels
from offramp.data.load import load_data
from offramp.data.packaged import PACKAGED
from offramp.data.tasks import GLUE, Task
from offramp.data.text_data import (
    TextData,
    fingerprint,
    overlap,
    require_split,
    require_splits,
    require_text_data,
    row_hashes,
)

__all__ = [
    "GLUE",
    "PACKAGED",
    "Task",
    "TextData",
    "check_fit",
    "fingerprint",
    "fitting_labels",
    "load_data",
    "overlap",
    "require_split",
    "require_splits",
    "require_text_data",
    "row_hashes",
]
