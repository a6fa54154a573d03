"""The source's own count of its records has a line in every report, whatever was killed or is gone.

The store is a real Chroma server behind a proxy that can switch it off.
"""

from __future__ import annotations

import json
import signal
from contextlib import closing

import pytest

from tests.scenarios import runs, stores
from tests.testbeds.faults import Dropped

pytestmark = pytest.mark.server("chroma")
ROWS = 60
#: More requests than any command here sends.
ALL = 10_000


@pytest.fixture(scope="module")
def bed(shared_bed):
    return shared_bed(stores.bed_of("chroma"))


@pytest.fixture
def rows(bed):
    return bed.awkward(ROWS, 8)


@pytest.fixture
def store(bed, rows):
    """Give the proxy in front of a seeded collection, its source and the collection's name."""
    name = bed.seed(rows)
    proxy, source = bed.proxied(name)
    with closing(proxy):
        # in a single shard: its commit is the last commit
        yield proxy, source.model_copy(update={"shard_bytes": 2**28, "timeout": 10.0}), name


@pytest.fixture
def job(bed, store, tmp_path):
    _, source, name = store
    return stores.job_of(bed, tmp_path, name, source=stores.section(source))


def line(report):
    """Give the status and the sentence of the check."""
    (check,) = [check for check in report["checks"] if check["name"] == "source count"]
    return check["status"], check["detail"]


def killed_behind_its_last_commit(cfray, job):
    killed = cfray.start("migrate", job.path, CFRAY_FAIL_AT="commit:1")
    killed.until_ended()
    assert killed.kill().code == -signal.SIGKILL
    assert set(runs.ledger(job.target)) == {"0"}


@pytest.mark.usefixtures("quick_retries")
def test_a_run_killed_behind_its_last_commit_is_counted_by_the_next_and_for_good(cfray, job, store):
    proxy, _, _ = store
    killed_behind_its_last_commit(cfray, job)
    verified = cfray.run("verify", job.path, "--json").ended_with(0).document()
    assert line(verified) == (
        "not_run",
        "the source has not answered yet; cfray migrate asks it again",
    )
    migrated = cfray.run("migrate", job.path, "--json").ended_with(0).document()
    status, detail = line(migrated)
    assert (status, detail.split(" (asked at ")[0]) == (
        "pass",
        f"{ROWS} records read, and the source counts as many",
    )
    proxy.close()
    for command in ("migrate", "verify", "optimize", "migrate"):
        report = cfray.run(command, job.path, "--json").ended_with(0).document()
        assert line(report) == (status, detail), command


@pytest.mark.usefixtures("quick_retries")
def test_a_source_that_is_off_is_said_and_asked_again_when_it_is_back(cfray, job, store):
    proxy, _, _ = store
    killed_behind_its_last_commit(cfray, job)
    proxy.fail(Dropped(), times=ALL)
    for _ in range(2):  # the second time nothing is left to do but to ask
        report = cfray.run("migrate", job.path, "--json").ended_with(0).document()
        status, detail = line(report)
        assert status == "not_run"
        assert "the source did not count: " in detail
    assert "nothing was to be done" in " ".join(report["notes"])
    proxy.heal()
    report = cfray.run("migrate", job.path, "--json").ended_with(0).document()
    assert line(report)[0] == "pass"
    assert list(runs.ledger(job.target))[-1] == "source-count"


def test_a_count_that_failed_stays_failed(cfray, bed, job, store, rows):
    """The plan and the store know of a record more, as if the reader had lost one."""
    _, _, name = store
    killed_behind_its_last_commit(cfray, job)
    collection = bed.client.get_collection(name, embedding_function=None)
    collection.add(ids=["another"], embeddings=[rows[-1]["vector"]])
    plan = json.loads((job.state / "plan.json").read_text())
    (job.state / "plan.json").write_text(json.dumps(plan | {"rows": ROWS + 1}))
    expected = f"{ROWS} records read, but the source counts {ROWS + 1}"
    for command in ("migrate", "verify", "optimize", "migrate", "migrate"):
        report = cfray.run(command, job.path, "--json").ended_with(4).document()
        status, detail = line(report)
        assert status == "fail", command
        assert detail.startswith(expected), command
        assert report["verdict"] == "FAILED: source count"
    assert "nothing was to be done" in " ".join(report["notes"])


def since(report):
    """Give the status and the sentence of the check whether the source has gone on."""
    (check,) = [check for check in report["checks"] if check["name"] == "source since the plan"]
    return check["status"], check["detail"]


@pytest.mark.usefixtures("quick_retries")
def test_a_store_that_goes_on_is_looked_at_again(cfray, bed, job, store, rows):
    """What is changed in place no count shows, and the report says so."""
    proxy, _, name = store
    report = cfray.run("migrate", job.path, "--json").ended_with(0).document()
    assert since(report)[0] == "not_run", "the run has read it itself"
    report = cfray.run("migrate", job.path, "--json").ended_with(0).document()
    seen = f"it counts as many records as were read ({ROWS})"
    assert since(report) == ("pass", f"{seen}; whether some were changed in place it does not say")
    collection = bed.client.get_collection(name, embedding_function=None)
    collection.add(ids=["new", "newer"], embeddings=[rows[-1]["vector"]] * 2)
    report = cfray.run("migrate", job.path, "--json").ended_with(7).document()
    more = f"the source counts 2 records more than the {ROWS} that were read"
    assert since(report) == ("fail", more)
    assert report["verdict"].endswith(more)
    assert line(report)[0] == "pass", "it counted as many when it was read"
    bed.delete(name, ["new", "newer", rows[0]["id"]])
    report = cfray.run("migrate", job.path, "--json").ended_with(7).document()
    assert "1 record fewer" in since(report)[1]
    proxy.close()
    report = cfray.run("migrate", job.path, "--json").ended_with(0).document()
    status, detail = since(report)
    assert status == "not_run"
    assert "the source did not answer" in detail
