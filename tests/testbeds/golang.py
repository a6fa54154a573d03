"""Build a server from its public Go module, once; later runs take it from the cache folder.

``-mod=readonly`` with a go.sum keeps every module to the bytes it was tested with.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
from pathlib import Path, PurePosixPath

from tests.testbeds.server import Unavailable, cache_folder, until

BUILD_SECONDS = 1800.0  # MinIO from empty caches: 2.5 min on two idle cores


def require_go(major: int, minor: int) -> str:
    """Find a Go toolchain that is new enough; none is ever downloaded."""
    needs = f"needs Go {major}.{minor} or newer to build"
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if not go:
        raise Unavailable(f"{needs}, and there is no go program on the PATH")
    answer = subprocess.run(
        [go, "env", "GOVERSION"],
        capture_output=True,
        text=True,
        env=_local(),
        cwd="/",
        timeout=60,
        check=False,
    )
    version = re.match(r"go(\d+)\.(\d+)", answer.stdout)
    if not version or (int(version[1]), int(version[2])) < (major, minor):
        raise Unavailable(f"{needs}, and this is {answer.stdout.strip() or 'unknown'}")
    return go


def built(module: Path, package: str, name: str, *, main: str = "") -> Path:
    """Give the program of a Go package at the version that ``module``'s go.mod pins.

    It is built if it is not cached.  ``main`` is what is built where the package is a library: the
    module's own program.

    Raises:
        Unavailable: no toolchain, or the build failed (no network, too little disk).
    """
    mod = (module / "go.mod").read_text()
    above = [
        package,
        *map(str, PurePosixPath(package).parents),
    ]  # the module of a package is the package itself or a folder above it
    version = next(
        filter(
            None, (re.search(rf"^\s*{re.escape(path)} (v\S+)", mod, re.MULTILINE) for path in above)
        ),
        None,
    )
    needed = re.search(r"^go (\d+)\.(\d+)", mod, re.MULTILINE)
    assert version, f"{module.name}/go.mod pins no version of {package}"
    assert needed, f"{module.name}/go.mod names no Go version"
    folder = cache_folder(f"{name}-{version[1]}")
    program = folder / name
    if program.exists():
        return program
    go = require_go(int(needed[1]), int(needed[2]))
    with (folder / "lock").open("w") as lock:
        until(
            lambda: _locked(lock.fileno()),
            seconds=BUILD_SECONDS,
            what=f"another test run has built {name}",
        )
        if not program.exists():
            _build(go, module, main or package, program)
    return program


def _build(go: str, module: Path, package: str, program: Path) -> None:
    part, log = program.with_suffix(".part"), program.with_suffix(".log")
    command = ["nice", "-n", "15", go, "build", "-mod=readonly", "-o", str(part), package]
    with log.open("w") as output:
        try:
            code = subprocess.run(
                command,
                cwd=module,
                env=_local(),
                stdout=output,
                stderr=output,
                timeout=BUILD_SECONDS,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            raise Unavailable(
                f"the build took longer than {BUILD_SECONDS / 60:.0f} minutes; its output: {log}"
            ) from None
    if code:
        last = (log.read_text(errors="replace").strip().splitlines() or ["no output"])[-1]
        raise Unavailable(f"go build failed: {last[:300]}; its output: {log}")
    part.replace(program)


def _local() -> dict[str, str]:
    return {**os.environ, "GOTOOLCHAIN": "local", "GOWORK": "off"}


def _locked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
