"""A process starts Ray as often as it likes, guarded by one token, whoever imported Ray first."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.testbeds.shared_ray import without_settings

#: A program that has imported Ray, as one that works with Ray has, before cfray starts it; then it
#: starts a Ray of its own.
PROGRAM = """
import json, os, ray
from cfray.engine.cluster import ray_running

answers = []
for _ in range(2):
    with ray_running():
        answers.append(ray.get(ray.remote(lambda: os.environ["RAY_AUTH_MODE"]).remote()))
token = os.environ["RAY_AUTH_TOKEN_PATH"]
mode = oct(os.stat(token).st_mode)
ray.init(address="local", include_dashboard=False)
answers.append(ray.get(ray.remote(lambda: os.environ["RAY_AUTH_TOKEN_PATH"]).remote()))
print(json.dumps([answers, token, mode]))
"""


def test_a_process_that_imported_ray_starts_it_again_and_again_behind_one_token(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        check=False,
        env=without_settings(os.environ) | {"HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr[-3_000:]
    answers, token, mode = json.loads(done.stdout)
    assert answers == ["token", "token", token]
    assert mode == "0o100600"
    assert not Path(token).parent.exists()
    assert not list(tmp_path.rglob("auth_token"))
