"""The S3 stores of a test run, by name.

``CFRAY_S3_ENDPOINT``, with the usual ``AWS_*`` variables, adds a service of the user's own under
the name "endpoint"; ``CFRAY_S3_BUCKET`` names a bucket there if the key may not create one.  Only
fresh prefixes are written.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.testbeds import minio, moto, seaweedfs
from tests.testbeds.s3 import S3
from tests.testbeds.server import Unavailable

LAUNCHERS = {"moto": moto.start, "seaweedfs": seaweedfs.start, "minio": minio.start}


def names() -> list[str]:
    """Name the stores of this run."""
    return [*LAUNCHERS, *(["endpoint"] if os.environ.get("CFRAY_S3_ENDPOINT") else [])]


@contextmanager
def store(name: str, folder: Path) -> Iterator[S3]:
    """Start a store by name, or take the user's own service."""
    if name == "endpoint":
        own = _own_service()
        try:
            yield own
        finally:
            own.remove_buckets()
        return
    with LAUNCHERS[name](folder) as server:
        yield S3(name, server.env, checks_keys=name != "moto")


def clear_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clear every AWS_ variable, and keep this machine's files and metadata service out as well."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def _own_service() -> S3:
    missing = [
        name for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY") if not os.environ.get(name)
    ]
    if missing:
        raise Unavailable(f"CFRAY_S3_ENDPOINT is set but {' and '.join(missing)} not")
    kept = {
        name: value
        for name, value in os.environ.items()
        if name.startswith("AWS_") and not name.startswith("AWS_ENDPOINT")
    }
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    env = {**kept, "AWS_REGION": region, "AWS_ENDPOINT_URL": os.environ["CFRAY_S3_ENDPOINT"]}
    return S3("endpoint", env, fixed_bucket=os.environ.get("CFRAY_S3_BUCKET", ""))
