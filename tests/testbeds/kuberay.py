"""The schemas of RayJob and RayCluster that KubeRay's operator installs in Kubernetes.

They are two files of the operator's Go module (Apache-2.0), fetched once through Go's module proxy;
Go holds the module against its checksum database, and this file against a sum of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.testbeds.golang import require_go
from tests.testbeds.server import Unavailable, cache_folder
from tests.testbeds.wheels import made_once

MODULE, VERSION = "github.com/ray-project/kuberay/ray-operator", "v1.6.0"
SUM = "h1:1hs7Di2U/vm09ot7MIU8jUqEo7gHDc4gkbv1eFvqCsQ="
FILES = {"RayJob": "ray.io_rayjobs.yaml", "RayCluster": "ray.io_rayclusters.yaml"}
FETCH_SECONDS = 300.0  # the module is 1 MB


@contextmanager
def definitions() -> Iterator[dict[str, dict[str, Any]]]:
    """Give the resource definition of each kind.

    Raises:
        Unavailable: they are not cached, and there is no Go or no network to fetch them.
    """
    folder = made_once(cache_folder(f"kuberay-{VERSION}") / "definitions", _fetch)
    yield {
        kind: yaml.load((folder / name).read_text(), yaml.CSafeLoader)
        for kind, name in FILES.items()
    }


def _fetch(folder: Path) -> None:
    command = [require_go(1, 21), "mod", "download", "-json", f"{MODULE}@{VERSION}"]
    try:
        fetched = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, "GOTOOLCHAIN": "local", "GOWORK": "off", "GOFLAGS": "-mod=mod"},
            capture_output=True,
            text=True,
            timeout=FETCH_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(f"fetching {MODULE} took longer than {FETCH_SECONDS:.0f} s") from None
    answer = json.loads(fetched.stdout or "{}")
    if fetched.returncode:
        reason = answer.get("Error") or fetched.stderr.strip() or "no output"
        raise Unavailable(f"go could not fetch {MODULE}@{VERSION}: {reason[:300]}")
    assert answer["Sum"] == SUM, f"{MODULE}@{VERSION} is not the one these tests were written with"
    for name in FILES.values():
        shutil.copy(Path(answer["Dir"], "config/crd/bases", name), folder / name)
