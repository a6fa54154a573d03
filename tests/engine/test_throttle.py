import time

from cfray.engine import throttle
from cfray.engine.throttle import Bucket
from cfray.sources.qdrant.source import Qdrant


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


#: Requests a second, and the requests of each of four workers: one bucket lets 20 + 1 of the 64
#: through at once, and the rest takes at least 2.1 s; four buckets would let them all through.
RATE, TURNS, WORKERS = 20.0, 16, 4


def test_workers_share_one_budget(shared_ray):
    import ray

    shared_ray.join()
    budget = throttle.shared_budget(Qdrant(url="http://s", requests_per_second=RATE))

    @ray.remote(num_cpus=0.25)
    def take_turns(budget):
        for _ in range(TURNS):
            budget.take()

    start = time.monotonic()
    ray.get([take_turns.remote(budget) for _ in range(WORKERS)])
    assert time.monotonic() - start >= (WORKERS * TURNS - RATE - 1) / RATE


def test_a_pause_that_one_worker_is_asked_for_holds_for_all(shared_ray):
    import ray

    shared_ray.join()
    budget = throttle.shared_budget(Qdrant(url="http://s"))
    pause = 1.0
    start = time.monotonic()
    ray.get(ray.remote(lambda budget: budget.hold_off(pause)).remote(budget))
    budget.take()
    assert time.monotonic() - start >= pause
