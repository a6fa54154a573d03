"""A target has one writer: who may take it, who is sent away, what a slow holder can still do."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from dataclasses import asdict, replace
from pathlib import Path

import lance
import pytest

from cfray.errors import LeaseHeld
from cfray.runtime.filesystems import Folder
from cfray.target.documents import dumps
from cfray.target.lease import Holder, Lease, read, wait_until_free
from tests.scenarios import runs
from tests.scenarios.runs import Job

ROWS, SHARDS = 2_400, 60
#: Whoever waits for this much silence hangs until the test ends it; so a run that ends did not
#: wait.
FOREVER = "1000000"


@pytest.fixture
def job(tmp_path) -> Job:
    return runs.write_job(
        tmp_path, {**runs.export(tmp_path, ROWS, 16, SHARDS), "limits": {"workers": 1}}
    )


def held(job: Job) -> bool:
    return (job.state / "lease.json").exists()


def version(job: Job) -> int:
    return lance.dataset(job.target).version


def check_exact(job: Job) -> None:
    assert runs.document_ids(job.target) == [f"doc-{number:07d}" for number in range(ROWS)]
    names = runs.uuids(job.target)
    assert len(names) == len(set(names)) == ROWS + 2


def test_the_second_of_two_runs_is_sent_away_at_once_and_the_first_finishes(cfray, job):
    first = cfray.start(
        "migrate", job.path, CFRAY_FAIL_AT="plan:1:SIGSTOP"
    )  # so that it provably still runs while the second one is judged
    first.until_stopped()
    before = version(job)
    second = cfray.run("migrate", job.path, "--json", CFRAY_LEASE_SILENCE=FOREVER).ended_with(5)
    assert f"process {first.process.pid}" in second.err
    assert second.document()["exit_code"] == 5
    assert not first.ended
    assert version(job) == before
    first.signal(signal.SIGCONT)
    first.wait().ended_with(0)
    assert not held(job)
    check_exact(job)


def test_a_dead_holders_target_is_taken_at_once_and_a_silent_hosts_after_the_silence(cfray, job):
    for _ in range(2):  # the second time the dead holder is one that took over itself
        dead = cfray.start(
            "migrate", job.path, CFRAY_FAIL_AT="commit:1", CFRAY_LEASE_SILENCE=FOREVER
        )
        dead.until_ended()
        assert dead.kill().code == -signal.SIGKILL
        assert held(job)
    lease, before = job.state / "lease.json", version(job)
    foreign = {**json.loads(lease.read_text()), "host": "elsewhere", "boot": "another"}
    lease.write_text(json.dumps(foreign))
    with beating(lease, foreign):
        cfray.run("migrate", job.path, CFRAY_LEASE_SILENCE=FOREVER).ended_with(5)
    assert version(job) == before
    assert json.loads(lease.read_text())["host"] == "elsewhere"
    cfray.run("migrate", job.path, CFRAY_LEASE_SILENCE="1").ended_with(0)
    assert not held(job)
    check_exact(job)


class beating:  # noqa: N801  # a context manager
    """Beat as another host would, whose clock is not ours."""

    def __init__(self, lease: Path, holder: dict) -> None:
        self.lease, self.holder = lease, holder
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._beat)

    def _beat(self) -> None:
        part = self.lease.with_name(".lease.part")
        while not self.stop.wait(0.05):
            self.holder["beat"] += 0.05
            part.write_text(json.dumps(self.holder))
            part.replace(self.lease)

    def __enter__(self) -> None:
        self.thread.start()

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join()


def test_a_holder_that_was_only_stopped_fails_at_its_next_commit_and_adds_nothing(cfray, job):
    settings = {"CFRAY_LEASE_BEAT": "0.2", "CFRAY_LEASE_SILENCE": "1"}
    first = cfray.start("migrate", job.path, "--json", **settings, CFRAY_FAIL_AT="stage:1:SIGSTOP")
    first.until_stopped()
    runs.until(
        lambda: cfray.run("migrate", job.path, **settings).ended_with(0, 5).code == 0,
        "the first run's silence is long enough",
    )
    check_exact(job)
    after, report = version(job), (job.state / "report.json").read_bytes()
    first.signal(signal.SIGCONT)
    ended = first.wait().ended_with(1, 5)
    if ended.code == 5:
        assert "took" in ended.err
        assert ended.document()["exit_code"] == 5
        assert not held(job)
    else:  # Ray ended the driver, which had been stopped for long, and may have left its name
        assert "The core worker has already been shutdown" in ended.err
    assert version(job) == after
    assert (job.state / "report.json").read_bytes() == report
    status = cfray.run("status", job.path, "--json").ended_with(0).document()
    assert status["held_by"] == "nobody"
    check_exact(job)
    cfray.run("cleanup", job.path).ended_with(
        0
    )  # its workers were not stopped and staged some shards of their own
    assert runs.data_files(job.target) == runs.referenced_files(job.target)
    assert all(len(nonces) == 1 for name, nonces in runs.receipts(job).items() if name.isdigit())
    cfray.run("verify", job.path).ended_with(0)


def test_a_stopped_holder_with_nothing_left_to_commit_still_says_that_it_lost_the_target(
    cfray, job
):
    settings = {"CFRAY_LEASE_BEAT": "0.2", "CFRAY_LEASE_SILENCE": "1"}
    first = cfray.start("migrate", job.path, **settings, CFRAY_FAIL_AT="plan:1:SIGSTOP")
    first.until_stopped()
    runs.until(
        lambda: cfray.run("migrate", job.path, **settings).ended_with(0, 5).code == 0,
        "the first run's silence is long enough",
    )
    after, report = version(job), (job.state / "report.json").read_bytes()
    first.signal(signal.SIGCONT)
    first.wait().ended_with(5)
    assert version(job) == after
    assert (job.state / "report.json").read_bytes() == report


# judging a lease, without a run


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Folder:
    monkeypatch.setenv("CFRAY_LEASE_SILENCE", FOREVER)
    return Folder(str(tmp_path))


@pytest.fixture
def sleeper():
    """Give a process that lives until the test ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE
    )
    yield process
    process.kill()
    process.communicate()


def started(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


def signed(folder: Folder, holder: Holder) -> None:
    folder.publish("lease.json", dumps(asdict(holder)))


def of(process: subprocess.Popen) -> Holder:
    return replace(Holder.here(), pid=process.pid, started=started(process.pid))


def test_a_target_without_a_lease_is_free(folder):
    wait_until_free(folder)


def test_a_live_holder_that_beats_keeps_its_target(folder, sleeper):
    signed(folder, of(sleeper))
    with pytest.raises(LeaseHeld, match=f"process {sleeper.pid}"):
        wait_until_free(folder)


def test_a_live_holder_that_was_silent_too_long_loses_it(folder, sleeper, monkeypatch):
    monkeypatch.setenv("CFRAY_LEASE_SILENCE", "60")
    holder = of(sleeper)
    signed(folder, replace(holder, beat=holder.beat - 61))
    wait_until_free(folder)


def test_a_dead_holder_loses_it(folder, sleeper):
    holder = of(sleeper)
    sleeper.kill()
    sleeper.communicate()
    signed(folder, holder)
    wait_until_free(folder)


def test_a_zombie_is_dead(folder, sleeper):
    holder = of(sleeper)
    sleeper.kill()  # and nobody waits for it yet
    runs.until(
        lambda: Path(f"/proc/{sleeper.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z",
        "the process is a zombie",
    )
    signed(folder, holder)
    wait_until_free(folder)


def test_another_process_with_the_holders_number_is_not_the_holder(folder, sleeper):
    holder = of(sleeper)
    signed(folder, replace(holder, started=holder.started - 1))
    wait_until_free(folder)


def test_another_hosts_lease_is_watched_whatever_its_clock_says(folder, sleeper, monkeypatch):
    monkeypatch.setenv("CFRAY_LEASE_SILENCE", "0.2")
    for beat in (0.0, 1e12):
        signed(folder, replace(of(sleeper), host="elsewhere", beat=beat))
        wait_until_free(folder)


def test_another_boot_of_this_host_is_watched_too(folder, sleeper, tmp_path):
    holder = replace(of(sleeper), boot="before")
    signed(folder, holder)
    with beating(tmp_path / "lease.json", asdict(holder)), pytest.raises(LeaseHeld):
        wait_until_free(folder)


def test_a_lease_is_released_by_its_holder_only(folder):
    mine = Lease(folder)
    mine.start(lambda: False)
    assert read(folder) == replace(mine.holder, beat=read(folder).beat)
    other = Lease(folder)
    other.announce()
    mine.release()
    assert read(folder).nonce == other.holder.nonce
    other.release()
    assert read(folder) is None


def test_a_holder_never_beats_over_anothers_lease(folder, monkeypatch):
    monkeypatch.setenv("CFRAY_LEASE_BEAT", "0.01")
    mine = Lease(folder)
    mine.start(lambda: False)
    first = read(folder)
    runs.until(lambda: read(folder).beat > first.beat, "the holder beats", 60)
    other = Lease(folder)
    runs.until(
        lambda: other.announce() or not mine._thread.is_alive(),
        "the holder noticed that it lost the target",
        60,
    )
    assert read(folder).nonce == other.holder.nonce


def test_a_holder_whose_name_a_stale_one_wrote_over_takes_its_lease_back(folder, monkeypatch):
    monkeypatch.setenv("CFRAY_LEASE_BEAT", "0.01")
    mine = Lease(folder)
    mine.start(lambda: True)
    Lease(folder).announce()
    runs.until(
        lambda: read(folder).nonce == mine.holder.nonce, "the holder has taken its lease back", 60
    )
    mine.release()
    assert read(folder) is None
