"""Fetch a server from its public Maven artifacts, once; later runs take it from the cache folder.

A profile of a pom names the artifacts and their versions.  Only Maven's ordinary client downloads.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.testbeds.server import Unavailable, cache_folder, until

#: Seconds that a download may take: 168 MB took 44 to 180 s (measured).
FETCH_SECONDS = 1800.0
#: Where Linux distributions put Java.
_JAVA_FOLDERS = Path("/usr/lib/jvm")


def require_java(oldest: int, newest: int) -> Path:
    """Find the home of a JDK within these versions, the oldest of them; none is ever downloaded."""
    homes = [Path(os.environ["JAVA_HOME"])] if os.environ.get("JAVA_HOME") else []
    if program := shutil.which("java"):
        homes.append(Path(program).resolve().parents[1])
    homes += sorted(_JAVA_FOLDERS.glob("*"))
    versions = {home: _java_version(home) for home in homes if (home / "bin/javac").exists()}
    fitting = [home for home in versions if oldest <= versions[home] <= newest]
    if not fitting:
        seen = ", ".join(map(str, sorted(set(versions.values())))) or "none"
        raise Unavailable(f"needs a JDK from {oldest} to {newest}, and this machine has {seen}")
    return min(fitting, key=lambda home: versions[home])


def _java_version(home: Path) -> int:
    try:
        release = (home / "release").read_text(errors="replace")
    except OSError:
        return 0
    version = re.search(r'^JAVA_VERSION="(\d+)', release, re.MULTILINE)
    return int(version[1]) if version else 0


def unpacked(key: str, pom: Path, profile: str, unpack: Callable[[Path, Path], None]) -> Path:
    """Give the folder of a server that was fetched and unpacked, doing so if it is not in the cache.

    Args:
        key: names the server and its version.
        pom: the file that names the artifacts.
        profile: of the pom.
        unpack: takes the folder of the artifacts, and the folder to unpack into.
    """
    cache = cache_folder(key)
    folder = cache / "server"
    with (cache / "lock").open("w") as lock:
        until(
            lambda: _locked(lock.fileno()),
            seconds=FETCH_SECONDS,
            what=f"another test run has fetched {key}",
        )
        if not folder.exists():
            artifacts, unfinished = cache / "artifacts", cache / "unfinished"
            for leftover in (artifacts, unfinished):
                shutil.rmtree(leftover, ignore_errors=True)
            _fetch(pom, profile, artifacts, cache / "maven.log")
            unpack(artifacts, unfinished)
            unfinished.rename(folder)
            shutil.rmtree(artifacts)
    return folder


def _fetch(pom: Path, profile: str, artifacts: Path, log: Path) -> None:
    maven = shutil.which("mvn")
    if not maven:
        raise Unavailable("needs Maven to fetch it, and there is no mvn program on the PATH")
    goal = ["dependency:copy-dependencies", f"-DoutputDirectory={artifacts}"]
    command = ["nice", "-n", "15", maven, "-q", "-B", "-ntp", "-f", str(pom), "-P", profile, *goal]
    with log.open("w") as output:
        try:
            code = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                timeout=FETCH_SECONDS,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            raise Unavailable(
                f"Maven took longer than {FETCH_SECONDS / 60:.0f} minutes; its output: {log}"
            ) from None
    if code:
        last = (log.read_text(errors="replace").strip().splitlines() or ["no output"])[-1]
        raise Unavailable(f"Maven failed: {last[:300]}; its output: {log}")


def _locked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
