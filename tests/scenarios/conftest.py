"""What the scenarios share: a runner that leaves no process behind."""

from __future__ import annotations

import pytest

from tests.scenarios.corpora import library
from tests.scenarios.runs import Runner


@pytest.fixture
def cfray():
    """Run commands; whatever a test leaves running is ended."""
    runner = Runner()
    yield runner
    runner.close()


@pytest.fixture(scope="module")
def module_cfray():
    """Run commands for a fixture that several tests share."""
    runner = Runner()
    yield runner
    runner.close()


@pytest.fixture(scope="module")
def naive():
    """Give the model as its README uses it."""
    return library()
