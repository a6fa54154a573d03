"""What the scenarios share."""

from __future__ import annotations

import pytest

from tests.scenarios.corpora import library


@pytest.fixture(scope="module")
def naive():
    """Give the model as its README uses it."""
    return library()


@pytest.fixture
def quick_retries(monkeypatch):
    """Shorten the pauses between requests of the driver, where a command runs in this process."""
    monkeypatch.setattr("cfray.runtime.retry.FIRST_PAUSE", 0.01)
    monkeypatch.setattr("cfray.runtime.retry.LONGEST_PAUSE", 0.05)
    monkeypatch.setattr("cfray.runtime.retry.JITTER", 0.0)
