"""What every test may ask for. The servers themselves are in testbeds/."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

from tests.testbeds import lineup, object_stores

# The same examples in every run: what passes here passes again. CFRAY_FUZZ=1 looks for new ones.
settings.register_profile("steady", derandomize=True, deadline=None)
settings.register_profile("fuzz", deadline=None)
settings.load_profile("fuzz" if os.environ.get("CFRAY_FUZZ") else "steady")


@pytest.fixture(
    scope="session",
    params=[pytest.param(name, marks=pytest.mark.server(name)) for name in object_stores.names()],
)
def s3(request, tmp_path_factory):
    """Give each S3 store in turn."""
    with lineup.taking_part(
        request.param, object_stores.store(request.param, tmp_path_factory.mktemp(request.param))
    ) as store:
        yield store


@pytest.fixture
def no_aws(monkeypatch):
    """Clear every AWS_ variable, and keep the files and the metadata service of this machine out as well."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def s3_place(s3, no_aws, monkeypatch):
    """Give the URI of an empty place on each S3 store.

    With the variables that a user sets and no others.
    """
    for name, value in s3.env.items():
        monkeypatch.setenv(name, value)
    return s3.place()


#: The file that takes longest goes first, so that processes which share the files end at about the
#: same time.
LONGEST = "test_stores.py"


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.name != LONGEST)


def pytest_sessionfinish(session):
    """Hand what could not run to the process that reports, where several share the tests."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["not_run"] = lineup.NOT_RUN


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    lineup.NOT_RUN.update(getattr(node, "workeroutput", {}).get("not_run", {}))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter):
    """Show the figures that tests recorded, and name last what could not run."""
    yield
    if lines := [
        f"  {report.nodeid.rpartition('::')[2]}: {name}: {value}"
        for report in _ended(terminalreporter)
        for name, value in report.user_properties
    ]:
        terminalreporter.section("figures:", sep="=")
        terminalreporter.write_line("\n".join(lines))
    if lines := lineup.summary():
        terminalreporter.section("not run:", sep="=", yellow=True)
        terminalreporter.write_line("\n".join(lines))


def _ended(terminalreporter):
    return [
        report
        for outcome in ("passed", "failed")
        for report in terminalreporter.stats.get(outcome, [])
    ]
