"""Ray that does not start, or that no address leads to, is a message with a remedy."""

from __future__ import annotations

import json
import socket

import pytest

from tests.scenarios import runs

#: Seconds that Ray waits for its own first process; the default is 30.
WAIT = "RAY_gcs_server_port_wait_time_s"


@pytest.fixture
def job(tmp_path):
    return runs.write_job(tmp_path, runs.export(tmp_path, 40, 8, 2))


@pytest.fixture
def closed_port():
    """Give a port of this machine that is taken and that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def check_message(job, ended, what, remedy):
    assert "Traceback" not in ended.err
    document = ended.document()
    assert what in document["verdict"]
    assert remedy in document["remedy"]
    assert json.loads((job.state / "report.json").read_text())["exit_code"] == 1


def test_a_ray_address_where_nobody_listens_is_named(local_cfray, cfray, job, closed_port):
    address = f"127.0.0.1:{closed_port}"
    settings = {"RAY_ADDRESS": address, WAIT: "1"}
    ended = local_cfray.start("migrate", job.path, "--json", **settings).wait().ended_with(1)
    check_message(job, ended, f"no Ray cluster can be joined at RAY_ADDRESS={address}", "unset it")
    cfray.run("migrate", job.path).ended_with(0)


def test_a_ray_that_is_not_up_in_time_is_said_and_leaves_no_process(local_cfray, cfray, job):
    running = local_cfray.start("migrate", job.path, "--json", **{WAIT: "0"})
    ended = running.wait().ended_with(1)
    check_message(job, ended, "Ray did not start on this machine", "run the same command again")
    cfray.run("migrate", job.path).ended_with(0)
