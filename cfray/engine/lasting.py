"""A Ray that outlives a call: a Dataset is read when its rows are asked for, not when it is made.

A command starts a small Ray and stops it at its end (``cluster.py``).  A Dataset needs Ray's
object store in full, and needs Ray until the process ends or somebody calls ``ray.shutdown``.
"""

from __future__ import annotations

import atexit
import os
from contextlib import ExitStack

from cfray.engine.cluster import ray_running

_held = ExitStack()
atexit.register(_held.close)


def keep_ray_running() -> None:
    """Use the Ray that runs; else start one that runs until the process ends.

    ``RAY_ADDRESS`` names a cluster to join.  Without it Ray is started as Ray Data starts it, but
    always on this machine: Ray Data would join any Ray that it finds here.

    Raises:
        EngineError: Ray did not start, or no cluster answers at ``RAY_ADDRESS``.
    """
    import ray

    if not ray.is_initialized():
        _held.close()  # of a Ray that was shut down meanwhile
        _held.enter_context(ray_running(_start_here))


def _start_here() -> None:
    import ray

    ray.init(address="local", num_cpus=len(os.sched_getaffinity(0)))
