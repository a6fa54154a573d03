"""Ray, started once and stopped by whoever started it.

A job submitted to a cluster finds it through ``RAY_ADDRESS``; otherwise this machine's
cores are the cluster, started for this command alone and never shared with another Ray
that runs here.  ``cfray.engine.tasks`` sends tasks to it.
"""

from __future__ import annotations

import atexit
import logging
import os
import secrets
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from functools import cache
from pathlib import Path

from cfray.engine import interrupts
from cfray.engine.throttle import ending_budgets
from cfray.errors import CfrayError, ConfigError, EngineError, Interrupted
from cfray.runtime.plurals import counted

#: Bytes of Ray's object store on one machine: rows never pass through it, only receipts.
_OBJECT_STORE = 200_000_000
#: Characters of Ray's own words that an error repeats.
_REASON_LENGTH = 300
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
def ray_for_command() -> Iterator[None]:
    """Keep Ray up for the work of a command, with signals caught and stdout left alone.

    Ray prints to stdout what happens to its nodes ("Raylet is terminated"), and stdout carries
    the result of the command.

    Raises:
        EngineError: Ray did not start, or no cluster answers at ``RAY_ADDRESS``.
    """
    with (
        redirect_stdout(sys.stderr),
        ray_running(),
        ending_budgets(),
        interrupts.catch_signals(),
    ):
        yield


@contextmanager
def ray_running(start_here: Callable[[], None] | None = None) -> Iterator[None]:
    """Keep Ray up for the block.

    Args:
        start_here: starts Ray on this machine; default: as small as a command needs it.

    Raises:
        EngineError: Ray did not start, or no cluster answers at ``RAY_ADDRESS``.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    for name, value in _ALLOCATOR_SETTINGS.items():
        os.environ.setdefault(name, value)
    _use_token()
    # Ray starts its processes by exec, not by fork
    warnings.filterwarnings("ignore", message="lance is not fork-safe")
    import ray

    must_start = not ray.is_initialized()
    try:
        if must_start:
            _start(start_here or _start_here)
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


def _start(start_here: Callable[[], None]) -> None:
    """Join the cluster that ``RAY_ADDRESS`` names, or start Ray on this machine.

    Raises:
        EngineError: that failed, or took longer than Ray waits.
    """
    import ray

    address = os.environ.get("RAY_ADDRESS")
    try:
        start = _join if address else start_here
        start()
    except CfrayError:
        raise
    except Exception as error:  # for a node that does not come up Ray raises a plain Exception
        ray.shutdown()
        reason = _reason(error)
        if address:
            raise EngineError(
                f"no Ray cluster can be joined at RAY_ADDRESS={address}: {reason}",
                "correct RAY_ADDRESS (`ray status` must answer there), or unset it to run on this "
                "machine alone; then run the same command again",
            ) from error
        raise EngineError(
            f"Ray did not start on this machine: {reason}",
            "end what takes its memory, its shared memory (/dev/shm) or its ports, then run the "
            f"same command again; Ray's logs are in {tempfile.gettempdir()}/ray",
        ) from error


def _reason(error: Exception) -> str:
    """Shorten what Ray says to its first line; some of its errors hold a whole traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{lines[0] if lines else type(error).__name__}"[:_REASON_LENGTH].rstrip(" .:,")


def _join() -> None:
    import ray

    ray.init(log_to_driver=False, logging_level=logging.ERROR)


def _start_here() -> None:
    import ray

    ray.init(
        address="local",
        num_cpus=len(os.sched_getaffinity(0)),
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=_OBJECT_STORE,
    )


def _use_token() -> None:
    """Guard the ports of the Ray that will be started with a token that this user alone can read.

    Without a token every user of the machine can send code to the cluster.  The settings stay
    until the process ends: it sends the first token that it has read to every Ray (Ray 2.60).
    """
    ray = sys.modules.get("ray")
    is_up = ray is not None and ray.is_initialized()
    if is_up or os.environ.get("RAY_ADDRESS") or os.environ.get("RAY_AUTH_MODE"):
        return
    os.environ["RAY_AUTH_TOKEN_PATH"] = str(_token_folder() / "token")
    if ray is None:
        # a Ray that is imported reads this no more, and demands tokens by itself (Ray 2.60)
        os.environ["RAY_AUTH_MODE"] = "token"


@cache
def _token_folder() -> Path:
    """Write the token of this process into a folder that is removed with the process."""
    folder = Path(tempfile.mkdtemp(prefix="cfray-"))
    atexit.register(remove_token)
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32), encoding="ascii")
    return folder


def remove_token() -> None:
    """Remove the token of this process, which will start no other Ray."""
    if _token_folder.cache_info().currsize:
        shutil.rmtree(_token_folder(), ignore_errors=True)


def cores() -> int:
    """Give the cores of the cluster."""
    import ray

    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def gpus() -> int:
    """Give the GPUs of the cluster."""
    import ray

    return int(ray.cluster_resources().get("GPU", 0))


def check_memory(task_bytes: int) -> None:
    """Refuse tasks that this machine can never run: Ray would wait for their memory without end.

    A cluster may grow, and is not judged.

    Args:
        task_bytes: of memory that each task reserves.

    Raises:
        ConfigError: that is more than Ray has here.
    """
    import ray

    if os.environ.get("RAY_ADDRESS"):
        return
    available = int(ray.cluster_resources().get("memory", 0))
    if task_bytes > available:
        raise ConfigError(
            f"limits.memory reserves {task_bytes:,} bytes for each shard, and Ray has "
            f"{available:,} bytes on this machine",
            "lower limits.memory, or leave it at auto",
        )


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
            f"target.uri {uri} is a local path, and {answers.count(False)} of "
            f"{counted(len(nodes), 'node')} do not share it",
            "use an object store or a shared file system as the target",
        )
