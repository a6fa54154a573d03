"""A server that could not run is named last and never passes; a required one fails the run.

Each case is a test run.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.testbeds.lineup import taking_part
from tests.testbeds.object_stores import store
from tests.testbeds.server import Unavailable

ROOT = Path(__file__).parents[2]
TEST = "tests/testbeds/test_object_stores.py::test_pyarrow_reads_what_it_wrote"


def run(case, **env):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"{TEST}[{case}]"]
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("CFRAY_", "PYTEST_"))
    }
    pytest_run = subprocess.run(
        command,
        cwd=ROOT,
        env={**clean, **env},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return pytest_run.returncode, pytest_run.stdout


@pytest.fixture
def old_go(tmp_path):
    """An environment whose Go is too old, and whose cache is empty."""
    program = tmp_path / "go"
    program.write_text("#!/bin/sh\necho go1.21.3\n")
    program.chmod(0o755)
    return {
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        "CFRAY_TEST_CACHE": str(tmp_path / "cache"),
    }


def test_a_missing_server_is_skipped_and_named_in_the_last_lines(old_go):
    code, output = run("minio", **old_go)
    *_, header, reason, count = output.strip().splitlines()
    assert code == 0
    assert "not run:" in header
    assert reason == "  minio: needs Go 1.26 or newer to build, and this is go1.21.3"
    assert "1 skipped" in count
    assert "passed" not in count


@pytest.mark.parametrize("required", ["all", "moto, minio"])
def test_a_required_server_that_is_missing_fails_the_run(old_go, required):
    code, output = run("minio", CFRAY_REQUIRE_SERVERS=required, **old_go)
    assert code == 1
    assert "minio is required by CFRAY_REQUIRE_SERVERS but cannot run: needs Go 1.26" in output
    assert "not run:" in output


def test_a_server_that_is_not_required_may_be_missing(old_go):
    assert run("minio", CFRAY_REQUIRE_SERVERS="moto", **old_go)[0] == 0


def test_a_service_of_the_users_own_is_tested_and_left_clean(tmp_path):
    with taking_part("moto", store("moto", tmp_path)) as own:
        own.client().create_bucket(Bucket="already-there")
        settings = {
            **own.env,
            "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
            "CFRAY_S3_ENDPOINT": own.endpoint,
        }
        code, output = run("endpoint", **settings)
        assert (code, "1 passed" in output) == (0, True), output
        buckets = {bucket["Name"] for bucket in own.client().list_buckets()["Buckets"]}
    assert {name for name in buckets if not name.startswith("cfray-")} == {"already-there"}
    assert len(buckets) == 2  # the other is the one that the launcher's own readiness check made


def test_a_service_without_keys_is_unavailable(tmp_path, no_aws, monkeypatch):
    monkeypatch.setenv("CFRAY_S3_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(Unavailable, match="AWS_SECRET_ACCESS_KEY"), store("endpoint", tmp_path):
        pass
