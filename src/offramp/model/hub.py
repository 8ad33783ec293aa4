"""Uploading a saved model to the model hub with our card, which the library would replace by one of its own."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from offramp.model.card import FILE

if TYPE_CHECKING:
    from huggingface_hub import HfApi

GENERATED = "model card of a 🤗 transformers model"  # stands in every card that the library makes


def push_folder(
    save: Callable[[Path], None],
    repo_id: str,
    *,
    tags: Sequence[str] = (),
    private: bool | None = None,
    token: bool | str | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    commit_message: str | None = None,
    commit_description: str | None = None,
) -> str:
    """Upload what `save` writes into a folder, which then holds the repository's card; returns the commit's address."""
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
    if revision is not None and not revision.startswith("refs/pr"):
        api.create_branch(repo_id, branch=revision, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        _fetch_card(api, repo_id, revision, folder / FILE)
        save(folder)
        _add_tags(folder / FILE, tags)
        commit = api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            revision=revision,
            create_pr=create_pr,
            commit_message=commit_message or "Upload model",
            commit_description=commit_description,
        )
    return str(commit)


def _fetch_card(api: HfApi, repo_id: str, revision: str | None, target: Path) -> None:
    """Fetch the card of a repository, unless it has none or one that the library made."""
    from huggingface_hub.errors import EntryNotFoundError

    try:
        source = Path(api.hf_hub_download(repo_id, FILE, revision=revision))
    except EntryNotFoundError:
        return
    if GENERATED not in source.read_text(encoding="utf-8", errors="replace"):
        shutil.copyfile(source, target)


def _add_tags(card: Path, tags: Sequence[str]) -> None:
    """Add tags to those in the header of a card."""
    from huggingface_hub import metadata_load, metadata_save

    if tags:
        data = metadata_load(card) or {}
        metadata_save(card, data | {"tags": [*dict.fromkeys([*(data.get("tags") or ()), *tags])]})
