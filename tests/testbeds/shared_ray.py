"""One Ray for all the tests of a pytest process: cfray joins it as a job joins a cluster.

To start a Ray takes five seconds and ten processes, more than most of the runs that are tested
take.  So a pytest process starts one, on loopback and behind a token of its own, and its tests'
runs join it through ``RAY_ADDRESS``.  A run that is killed there loses its driver, and Ray ends the
driver's workers, as on a cluster.  A test that kills Ray's processes as well starts a Ray for that.

Nothing of a test may be left on it: ``check_idle`` after each test fails where a task or an actor
still lives.  Workers have the environment that this Ray was started with, not a run's; the test
stores' keys are in it.

Run as a module, this file is the process that holds the Ray up until its stdin ends.
"""

from __future__ import annotations

import gc
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest

from tests.testbeds.processes import MARK, kill_all, members, title, until

ROOT = Path(__file__).parents[2]
#: Ray's constant for machines whose firewall asks the user at each open port; it makes every one
#: of Ray's processes listen on 127.0.0.1 only.
LOOPBACK_ONLY = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
#: A crowded machine lets a raylet wait for a core longer than the half minute after which Ray takes
#: its node for dead.
PATIENCE_WITH_NODES = {
    "RAY_health_check_timeout_ms": "60000",
    "RAY_health_check_failure_threshold": "10",
}
#: What stays on a cluster after a program that used Ray Data: its statistics, its requests for
#: nodes, and where its actors are.  They are actors of Ray's own.
RAY_DATA_ACTORS = (
    "ray::ActorLocationTracker",
    "ray::_StatsActor",
    "ray::AutoscalingRequester",
    "ray::_AutoscalingCoordinatorActor",
)
#: What lives as long as its driver where no command ends it, as in tests of single steps: the budget
#: of requests, for Ray keeps the functions that a driver sent out, and with them what they refer to.
ACTORS_OF_A_DRIVER = ("ray::_BudgetActor",)
#: Seconds for Ray to end the workers of a driver that is gone.
SETTLING = 60.0


class SharedRay:
    """A Ray that runs join, until it is closed.

    Attributes:
        environment: the variables with which a driver joins it.
        folder: holds its token and its logs.
        touched: whether a test used it since the last look.
    """

    def __init__(self, settings: Mapping[str, str]) -> None:
        """Start it.

        Args:
            settings: the workers' environment beside this process's, without its RAY_ variables.
        """
        self.mark = uuid.uuid4().hex
        # short: Ray's sockets live in it, and their paths have a limit of 107 bytes
        self.folder = Path(tempfile.mkdtemp(prefix="cr-"))
        token = self.folder / "token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32), encoding="ascii")
        guarded = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            **LOOPBACK_ONLY,
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            cwd=ROOT,
            env={
                **without_settings(os.environ),
                **PATIENCE_WITH_NODES,
                **settings,
                **guarded,
                # workers of drivers that come and go: a worker costs two seconds to start
                "RAY_num_workers_soft_limit": "4",
                "TMPDIR": str(self.folder),
                MARK: self.mark,
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(self.folder / "stderr").open("wb"),
            text=True,
            start_new_session=True,
        )
        line = self._process.stdout.readline()
        assert line, f"Ray did not start: {(self.folder / 'stderr').read_text()[-2_000:]}"
        self.environment = {**guarded, "RAY_ADDRESS": json.loads(line)["address"]}
        (raylet,) = [pid for pid in members(self.mark) if "/raylet/raylet " in title(pid)]
        #: the parent of every worker
        self._raylet = psutil.Process(raylet)
        self.touched = False
        self._connection = None

    def join(self) -> None:
        """Make this process a driver of it, and of no other Ray ever: Ray caches the token."""
        self.touched = True
        if self._connection is None:
            self._connection = joined(self.environment)
            self._connection.__enter__()

    def leave(self) -> None:
        """Be no driver any more: Ray ends what this process has on it."""
        if self._connection is not None:
            self._connection.__exit__(None, None, None)
            self._connection = None

    def busy(self) -> dict[int, str]:
        """Find the workers that are inside a task or are an actor: pid -> title."""
        titles = {worker.pid: title(worker.pid) for worker in self._raylet.children()}
        return {
            pid: name
            for pid, name in titles.items()
            if name.startswith("ray::")
            and not name.endswith(("IDLE", "Agent"))
            and not name.startswith(RAY_DATA_ACTORS)
        }

    def check_idle(self) -> None:
        """Wait until no task and no actor of the tests so far is left; fail after a minute."""
        gc.collect()  # an actor ends with the last handle on it
        what = f"nothing of the test is left on the shared Ray: {self.busy()}"
        until(
            lambda: all(name.startswith(ACTORS_OF_A_DRIVER) for name in self.busy().values()),
            what,
            SETTLING,
        )
        if self.busy():
            self.leave()
            until(lambda: not self.busy(), what, SETTLING)
        self.touched = False

    def close(self) -> None:
        """End it."""
        self.leave()
        try:
            self._process.communicate(timeout=30)
        finally:
            kill_all(self.mark)
            shutil.rmtree(self.folder, ignore_errors=True)


def without_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Leave out what would steer Ray or cfray."""
    return {
        name: value
        for name, value in environment.items()
        if not name.startswith(("RAY_", "CFRAY_"))
    }


@contextmanager
def joined(environment: Mapping[str, str]) -> Iterator[None]:
    """Have this process be a driver on a Ray."""
    from cfray.engine.cluster import ray_running

    with ExitStack() as stack:
        with pytest.MonkeyPatch.context() as variables:
            for name, value in environment.items():
                variables.setenv(name, value)
            stack.enter_context(ray_running())
        yield


def main() -> None:
    """Hold a Ray up until stdin ends."""
    from cfray.engine.cluster import ray_running

    with ray_running():
        import ray

        address = ray.get_runtime_context().gcs_address
        sys.stdout.write(json.dumps({"address": address}) + "\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main()
