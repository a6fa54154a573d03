"""A Ray cluster of two nodes on this machine, with the job server that ``ray job submit`` talks to.

Run as a module, this file is the process that holds the cluster up until its stdin ends, and the
job server's client: Ray caches the token of the first cluster that a process talks to, and a pytest
process talks to another one.  A line on its stdin calls a method of ``JobSubmissionClient``, a line
on its stdout is the answer.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.testbeds.processes import MARK, kill_all, until
from tests.testbeds.server import free_ports
from tests.testbeds.shared_ray import LOOPBACK_ONLY, ROOT, without_settings

#: Seconds that a job which is stopped gets before SIGKILL, as in cluster/.
STOP_SECONDS = "60"


@dataclass(frozen=True)
class EndedJob:
    """What the job server says of a job that is over.

    Attributes:
        status: SUCCEEDED, FAILED or STOPPED.
        message: of the job server.
        exit_code: of the process that ran the entrypoint; None where it was stopped.
        last: the last line of the log, a JSON document.
    """

    status: str
    message: str
    exit_code: int | None
    last: dict[str, Any]


class JobCluster:
    """The cluster, until it is closed.

    Attributes:
        environment: the variables with which ``ray job`` reaches it.
        folder: holds its token and its logs.
    """

    def __init__(self) -> None:
        """Start it."""
        self.mark = uuid.uuid4().hex
        # short: Ray's sockets live in it, and their paths have a limit of 107 bytes
        self.folder = Path(tempfile.mkdtemp(prefix="cj-"))
        token = self.folder / "token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32), encoding="ascii")
        self.environment = {
            **without_settings(os.environ),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
            "RAY_JOB_STOP_WAIT_TIME_S": STOP_SECONDS,
            **LOOPBACK_ONLY,
            # what a job's entrypoint calls python is this one
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "TMPDIR": str(self.folder),
            MARK: self.mark,
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            cwd=ROOT,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(self.folder / "stderr").open("wb"),
            text=True,
            start_new_session=True,
        )
        self.environment["RAY_API_SERVER_ADDRESS"] = self._answer()["job_server"]

    def _answer(self) -> Any:
        line = self._process.stdout.readline()
        assert line, (self.folder / "stderr").read_text(errors="replace")[-4_000:]
        return json.loads(line)

    def call(self, method: str, **arguments: Any) -> Any:
        """Call a method of the job server's client."""
        self._process.stdin.write(json.dumps([method, arguments]) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def submit(self, entrypoint: str, folder: Path | None = None) -> str:
        """Send a job; with a folder that becomes its working directory, by ``ray job submit``.

        Returns:
            The job's id.
        """
        job_id = f"job-{uuid.uuid4().hex[:8]}"
        if folder is None:  # as the program does, without the seconds in which it starts
            self.call("submit_job", entrypoint=entrypoint, submission_id=job_id)
            return job_id
        ray = Path(sys.executable).with_name("ray")
        words = [str(ray), "job", "submit", "--no-wait", "--submission-id", job_id]
        words += ["--working-dir", str(folder)]
        submission = subprocess.run(
            [*words, "--", *entrypoint.split()],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert submission.returncode == 0, submission.stdout + submission.stderr
        return job_id

    def driver(self, job_id: str) -> psutil.Process:
        """Wait for a job's driver to have joined Ray."""
        info = until(lambda: self.call("get_job_info", job_id=job_id)["driver_info"], "it joined")
        return psutil.Process(int(info["pid"]))

    def ended(self, job_id: str) -> EndedJob:
        """Wait for a job to be over."""

        def info() -> Any:
            details = self.call("get_job_info", job_id=job_id)
            return details if details["status"] in ("SUCCEEDED", "FAILED", "STOPPED") else None

        details = until(info, f"{job_id} is over")
        log = self.call("get_job_logs", job_id=job_id).strip()
        last = log.splitlines()[-1]
        return EndedJob(
            details["status"],
            details["message"],
            details["driver_exit_code"],
            json.loads(last) if last.startswith("{") else {"log": log},
        )

    def close(self) -> None:
        """End it."""
        try:
            self._process.communicate(timeout=60)
        finally:
            kill_all(self.mark)
            shutil.rmtree(self.folder, ignore_errors=True)


def main() -> None:
    """Hold the cluster up, and call what stdin asks for, until stdin ends."""
    from ray.cluster_utils import Cluster
    from ray.job_submission import JobSubmissionClient

    node = {"num_cpus": 1, "object_store_memory": 80_000_000}
    # other Rays on this machine hold the default ports; without its agent's a head runs no job
    dashboard_port, agent_port = free_ports(2)
    head = {
        "include_dashboard": True,
        "dashboard_port": dashboard_port,
        "dashboard_agent_listen_port": agent_port,
    }
    cluster = Cluster(initialize_head=True, head_node_args={**head, **node})
    try:
        cluster.add_node(**node)
        address = f"http://{cluster.webui_url}"
        client = JobSubmissionClient(address)
        until(lambda: _takes_jobs(client), "the job server has an agent to run jobs with", 120)
        _say({"job_server": address})
        for line in sys.stdin:
            method, arguments = json.loads(line)
            answer = getattr(client, method)(**arguments)
            _say(json.loads(answer.json()) if hasattr(answer, "json") else answer)
    finally:
        cluster.shutdown()


def _takes_jobs(client: Any) -> bool:
    """Send a job that does nothing; the head's agent comes up seconds after the head."""
    try:
        client.submit_job(entrypoint="true")
    except RuntimeError as error:
        if "No available agent" in str(error):
            return False
        raise
    return True


def _say(document: Any) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
