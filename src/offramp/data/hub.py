"""Data sets of the `datasets` library: saved to disk, or on the hub."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from offramp._core.damaged_files import first_sentence
from offramp._core.errors import DataError, MissingExtraError
from offramp._core.library import hub
from offramp.data.files import SPLIT_NAMES, arrow_table
from offramp.data.rows import Table

_LOG = logging.getLogger(__name__)


def is_saved(folder: Path) -> bool:
    """Whether `save_to_disk` wrote this folder."""
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def read_saved(folder: Path) -> dict[str, Table]:
    """Split name to table; a single data set without a name is "train"; `DataError` for an incomplete folder."""
    datasets = _library()
    try:
        loaded = datasets.load_from_disk(str(folder))
    except Exception as error:  # the errors of the library's readers
        raise DataError(f"{folder}: not a complete data set saved by `save_to_disk` ({error})") from error
    return tables(loaded, str(folder))


def read_hub(name: str, config: str | None) -> dict[str, Table]:
    """Split name to table, of a data set "owner/name" and its configuration, such as a GLUE task, if it has several.

    Raises:
        DataError: offline, unknown data set, or a configuration is needed.
    """
    datasets = _library()
    try:
        with hub():
            loaded = datasets.load_dataset(name, config)
    except Exception as error:  # offline, missing, gated or broken: each cause has its own type
        where = f"{name}:{config}" if config else name
        raise DataError(
            f"cannot load {where} from the hub ({first_sentence(error)}). Offline, give a "
            "folder or a file instead; a configuration is chosen as 'owner/name:configuration'"
        ) from error
    return tables(loaded, name)


def is_data_set(source: Any) -> bool:
    """Whether an object is a data set of the library, or one with several splits."""
    library = sys.modules.get("datasets")
    kinds = ("Dataset", "DatasetDict", "IterableDataset", "IterableDatasetDict")
    return library is not None and isinstance(source, tuple(getattr(library, kind, ()) for kind in kinds))


def _library() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError("datasets", "torch") from error
    return datasets


def tables(loaded: Any, where: str) -> dict[str, Table]:
    """Split name to table; a single data set is "train", and splits with other names are left out."""
    if not isinstance(loaded, Mapping):
        return {"train": _table(loaded, where)}
    split_tables: dict[str, Table] = {}
    for name, dataset in loaded.items():
        split = SPLIT_NAMES.get(str(name).lower())
        if split is None:
            _LOG.info("%s: split %s is not used", where, name)
        else:
            split_tables.setdefault(split, _table(dataset, f"{where}, {name}"))
    if not split_tables:
        raise DataError(
            f"{where}: expected a split called train or validation, got {', '.join(map(str, loaded))}"
        )
    return split_tables


def _table(dataset: Any, where: str) -> Table:
    library = _library()
    if isinstance(dataset, library.IterableDataset):
        dataset = library.Dataset.from_list(list(dataset.with_format(None)), features=dataset.features)
    table = arrow_table(dataset.with_format("arrow")[:], where)
    classes = {
        name: tuple(feature.names)
        for name, feature in dataset.features.items()
        if isinstance(feature, library.ClassLabel)
    }
    return replace(table, classes=classes)
