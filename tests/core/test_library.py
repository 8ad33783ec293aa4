"""Manners of the libraries underneath."""

from __future__ import annotations

import pytest
from huggingface_hub import constants

from offramp._core.library import hub


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


@pytest.mark.usefixtures("online")
def test_a_hub_without_an_address_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "https://hub.invalid")  # a name that never resolves
    with hub():
        assert constants.HF_HUB_OFFLINE
    assert not constants.HF_HUB_OFFLINE


@pytest.mark.usefixtures("online")
def test_a_hub_with_an_address_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://localhost:1")
    with hub():
        assert not constants.HF_HUB_OFFLINE


@pytest.mark.usefixtures("online")
def test_a_proxy_is_trusted_to_find_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "https://hub.invalid")
    monkeypatch.setenv("HTTPS_PROXY", "http://localhost:1")
    with hub():
        assert not constants.HF_HUB_OFFLINE
