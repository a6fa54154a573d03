"""What the scenarios share."""

from __future__ import annotations

import pytest

from tests.scenarios.corpora import library


@pytest.fixture(scope="module")
def naive():
    """Give the model as its README uses it."""
    return library()
