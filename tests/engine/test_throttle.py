import json
import os
import subprocess
import sys

from cfray.engine.throttle import Bucket


def test_a_bucket_hands_out_turns_at_its_rate_after_a_first_burst():
    bucket = Bucket(10.0)
    waits = [bucket.turn(1, 100.0) for _ in range(25)]
    assert waits[:11] == [0.0] * 11
    assert [round(wait, 6) for wait in waits[11:14]] == [0.1, 0.2, 0.3]
    assert bucket.turn(1, 200.0) == 0.0


def test_a_turn_may_cost_several_requests():
    bucket = Bucket(2.0)
    bucket.turn(4, 10.0)
    assert bucket.turn(1, 10.0) == 1.0


def test_a_pause_the_store_asks_for_holds_for_everybody_and_with_any_rate():
    for rate in (None, 1_000.0):
        bucket = Bucket(rate)
        assert bucket.turn(1, 50.0) == 0.0
        bucket.hold_off(3.0, 50.0)
        assert round(bucket.turn(1, 51.0), 2) == 2.0
        assert bucket.turn(1, 60.0) == 0.0


def test_without_a_rate_nobody_waits():
    bucket = Bucket(None)
    assert [bucket.turn(1, 5.0) for _ in range(1_000)] == [0.0] * 1_000


_WORKERS = """
import json, ray
from cfray.sources.qdrant.source import Qdrant
from cfray.engine import throttle

ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
shared = throttle.shared_budget(Qdrant(url="http://s", requests_per_second=0.01))
turn = ray.remote(lambda budget: ray.get(budget._actor.turn.remote(1)))
print(json.dumps(sorted(ray.get([turn.remote(shared) for _ in range(4)]))))
"""


def test_workers_share_one_budget():
    """In a process of its own: Ray remembers the token of a cluster that another test had."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", _WORKERS], env=clean, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    waits = json.loads(done.stdout.splitlines()[-1])
    assert waits[0] == 0.0
    assert waits[-1] > 100, "each turn comes 100 s behind the one before, whichever worker takes it"
