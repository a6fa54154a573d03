"""The pool's cases, in a process of their own.

Ray remembers the token of a cluster that another test of this process had.
"""

import os
import subprocess
import sys
from pathlib import Path

CASES = Path(__file__).with_name("pool_cases.py")


def test_the_pool_on_a_real_ray():
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("RAY_", "PYTEST_"))
    }
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", str(CASES)],
        env=clean,
        cwd=CASES.parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "9 passed" in done.stdout, done.stdout
