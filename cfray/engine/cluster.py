"""Ray, started once and stopped by whoever started it; tasks that any stage can send out.

A job submitted to a cluster finds it through ``RAY_ADDRESS``; otherwise this
machine's cores are the cluster, started for us alone and never shared with
whatever Ray happens to run here.
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
#: What the workers' allocators keep for the next batch instead of giving it back to the system
#: after each one, in their own environment variables (mimalloc's options; ``mallopt(3)``): blocks
#: up to 32 MiB, and up to 256 MiB of them.  Half as many page faults, 4 to 7 % of the time of a
#: copy (measured, three pairs of 2M rows).
_KEPT_MEMORY = {
    "MIMALLOC_PURGE_DELAY": "-1",
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(256 * 2**20),
}


@contextmanager
def ray_running() -> Iterator[None]:
    """Have Ray up for the block."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    for name, value in _KEPT_MEMORY.items():
        os.environ.setdefault(name, value)
    with tempfile.TemporaryDirectory(prefix="cfray-") as folder, _own_token(Path(folder)):
        warnings.filterwarnings(
            "ignore", message="lance is not fork-safe"
        )  # Ray starts its processes by exec, not by fork
        import ray

        started = not ray.is_initialized()
        try:
            _start(started=started)
        except (
            SystemExit
        ) as error:  # Ray's own answer to SIGTERM, in place from its start until ours is set again
            raise Interrupted(
                "interrupted by SIGTERM",
                "run the same command again: it goes on where this one stopped",
                143,
            ) from error
        try:
            yield
        finally:
            if started:
                ray.shutdown()


def _start(*, started: bool) -> None:
    """Start Ray here, or join the cluster that ``RAY_ADDRESS`` names."""
    import ray

    if started and os.environ.get("RAY_ADDRESS"):
        ray.init(log_to_driver=False, logging_level=logging.ERROR)
    elif started:
        ray.init(
            address="local",
            num_cpus=len(os.sched_getaffinity(0)),
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=_OBJECT_STORE,
        )


@contextmanager
def _own_token(folder: Path) -> Iterator[None]:
    """Guard a local cluster's ports with a token of its own, readable by this user alone.

    (``reliability.md`` 5).
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


def _is_there(path: str) -> bool:
    return Path(path).exists()


def check_target_is_shared(uri: str, look: Callable[[str], bool] = _is_there) -> None:
    """Refuse a local target on a cluster whose nodes do not share that disk.

    Each would write a dataset of its own (``reliability.md`` 2).

    Args:
        uri: of the target.
        look: tells on a node whether a path is there.

    Raises:
        ConfigError: a node cannot see a file that the driver wrote beside the target.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    folder = Path(f"{uri}.cfray/scratch")
    if len(nodes) < 2 or "://" in uri:
        return
    nonce = secrets.token_hex(8)
    folder.mkdir(parents=True, exist_ok=True)
    mark = folder / f"node-check-{nonce}"
    mark.touch()
    try:
        task = ray.remote(num_cpus=0)(look)
        seen = [
            ray.get(
                task.options(
                    scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)
                ).remote(str(mark))
            )
            for node in nodes
        ]
    finally:
        mark.unlink(missing_ok=True)
    if not all(seen):
        raise ConfigError(
            f"target.uri {uri} is a local path, and {seen.count(False)} of {len(nodes)} nodes do not share it",
            "use an object store or a shared file system as the target",
        )
