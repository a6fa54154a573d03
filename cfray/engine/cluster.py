"""Ray, started once and stopped by whoever started it.

A job submitted to a cluster finds it through ``RAY_ADDRESS``; otherwise this machine's
cores are the cluster, started for this command alone and never shared with another Ray
that runs here.  ``cfray.engine.tasks`` sends tasks to it.
"""

from __future__ import annotations

import logging
import os
import secrets
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cfray.errors import ConfigError, Interrupted

#: Bytes of Ray's object store on one machine: rows never pass through it, only receipts.
_OBJECT_STORE = 200_000_000
#: Settings of the workers' memory allocators (mimalloc's options; ``mallopt(3)``): keep freed
#: blocks of up to 32 MiB, 256 MiB together, for the next batch, and do not return them to the
#: system after each batch.  Half as many page faults, 4 to 7 % of the time of a copy (measured,
#: three pairs of runs of 2M rows).
_ALLOCATOR_SETTINGS = {
    "MIMALLOC_PURGE_DELAY": "-1",
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(256 * 2**20),
}


@contextmanager
def ray_running() -> Iterator[None]:
    """Keep Ray up for the block."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    for name, value in _ALLOCATOR_SETTINGS.items():
        os.environ.setdefault(name, value)
    with tempfile.TemporaryDirectory(prefix="cfray-") as folder, _token_set(Path(folder)):
        # Ray starts its processes by exec, not by fork
        warnings.filterwarnings("ignore", message="lance is not fork-safe")
        import ray

        must_start = not ray.is_initialized()
        try:
            if must_start:
                _start()
        except SystemExit as error:
            # While it starts, Ray's handler of SIGTERM is set, and it raises SystemExit
            raise Interrupted(
                "interrupted by SIGTERM",
                "run the same command again: it goes on where this run stopped",
                143,
            ) from error
        try:
            yield
        finally:
            if must_start:
                ray.shutdown()


def _start() -> None:
    """Join the cluster that ``RAY_ADDRESS`` names, or start Ray on this machine."""
    import ray

    if os.environ.get("RAY_ADDRESS"):
        ray.init(log_to_driver=False, logging_level=logging.ERROR)
        return
    ray.init(
        address="local",
        num_cpus=len(os.sched_getaffinity(0)),
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=_OBJECT_STORE,
    )


@contextmanager
def _token_set(folder: Path) -> Iterator[None]:
    """Guard a local cluster's ports with a new token that this user alone can read.

    Without a token every user of the machine can send code to the cluster.
    """
    if os.environ.get("RAY_ADDRESS") or os.environ.get("RAY_AUTH_MODE"):
        yield
        return
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32), encoding="ascii")
    settings = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name in settings:
            os.environ.pop(name, None)


def cores() -> int:
    """Give the cores of the cluster."""
    import ray

    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def _path_exists(path: str) -> bool:
    return Path(path).exists()


def check_target_is_shared(uri: str, path_exists: Callable[[str], bool] = _path_exists) -> None:
    """Refuse a local target on a cluster whose nodes do not share that disk.

    Each node would write a dataset on its disk, and the run would commit the driver's alone.

    Args:
        uri: of the target.
        path_exists: tells on a node whether a path exists.

    Raises:
        ConfigError: a node cannot see a file that the driver wrote beside the target.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    if len(nodes) < 2 or "://" in uri:
        return
    folder = Path(f"{uri}.cfray/scratch")
    folder.mkdir(parents=True, exist_ok=True)
    mark = folder / f"node-check-{secrets.token_hex(8)}"
    mark.touch()
    try:
        task = ray.remote(num_cpus=0)(path_exists)
        placements = [NodeAffinitySchedulingStrategy(node, soft=False) for node in nodes]
        answers = [
            ray.get(task.options(scheduling_strategy=placement).remote(str(mark)))
            for placement in placements
        ]
    finally:
        mark.unlink(missing_ok=True)
    if not all(answers):
        raise ConfigError(
            f"target.uri {uri} is a local path, and {answers.count(False)} of {len(nodes)} nodes "
            "do not share it",
            "use an object store or a shared file system as the target",
        )
