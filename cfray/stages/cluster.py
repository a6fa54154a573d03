"""Ray, started once and stopped by whoever started it; tasks that any stage can send out.

A job submitted to a cluster finds it through ``RAY_ADDRESS``; otherwise this
machine's cores are the cluster, started for us alone and never shared with
whatever Ray happens to run here.
"""

from __future__ import annotations

import itertools
import logging
import os
import secrets
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from cfray.errors import CfrayError, ConfigError, Interrupted, TargetError
from cfray.stages import interrupts

T = TypeVar("T")
A = TypeVar("A")

#: Bytes of Ray's object store on one machine: rows never pass through it, only receipts.
_OBJECT_STORE = 200_000_000
#: Seconds for which the driver does not look at signals: Ctrl-C stops a run within seconds, however long its tasks take.
_HEED = 0.5
#: What the workers' allocators keep for the next batch instead of giving it back to the system after each one, in their own
#: environment variables (mimalloc's options; ``mallopt(3)``): blocks up to 32 MiB, and up to 256 MiB of them.  Half as many page
#: faults, 4 to 7 % of the time of a copy (measured, three pairs of 2M rows).
_KEPT_MEMORY = {"MIMALLOC_PURGE_DELAY": "-1", "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20), "MALLOC_TRIM_THRESHOLD_": str(256 * 2**20)}


@contextmanager
def ray_running() -> Iterator[None]:
    """Have Ray up for the block."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    for name, value in _KEPT_MEMORY.items():
        os.environ.setdefault(name, value)
    with tempfile.TemporaryDirectory(prefix="cfray-") as folder, _own_token(Path(folder)):
        warnings.filterwarnings("ignore", message="lance is not fork-safe")  # Ray starts its processes by exec, not by fork
        import ray

        started = not ray.is_initialized()
        try:
            _start(started=started)
        except SystemExit as error:  # Ray's own answer to SIGTERM, in place from its start until ours is set again
            raise Interrupted("interrupted by SIGTERM", "run the same command again: it goes on where this one stopped", 143) from error
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
    """Guard a local cluster's ports with a token of its own, readable by this user alone (``reliability.md`` 5)."""
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


@dataclass(frozen=True, slots=True)
class Pool:
    """How tasks are run.

    Attributes:
        memory: bytes that Ray reserves for each; None: not reserved.
        cpus: cores that each claims.
        most: tasks at once; None: one a core.
        restarts: how often Ray may start a task anew whose worker died; -1: without end.
    """

    memory: int | None = None
    most: int | None = None
    restarts: int = 3
    cpus: float = 1

    def beside_actors(self) -> Pool:
        """Give the same for tasks that mostly wait for embedding actors.

        Two a core, so that the actors always have work, and next to no claim on a core: no actor may wait for its
        core until a task ends that waits for the actor.
        """
        return replace(self, most=min(self.most or 2 * cores(), 2 * cores()), cpus=0.05)


def each(work: Callable[[A], T], items: Sequence[A], pool: Pool | None = None) -> Iterator[T]:
    """Run ``work`` for each item in a task of its own; results as they come, errors as they were raised.

    More tasks are handed to Ray than there are cores, so that a worker finds its next one waiting.

    Raises:
        CfrayError: the first one a task raised; TargetError if a worker died too often.
    """
    import ray

    pool = pool or Pool()

    def task(item: A) -> T:
        return work(item)

    options = {} if pool.memory is None else {"memory": pool.memory}
    remote = ray.remote(num_cpus=pool.cpus, max_retries=pool.restarts, **options)(task)
    window = pool.most or int(4 * cores() / pool.cpus)
    waiting: list[Any] = []
    left = iter(items)
    while True:
        interrupts.check()
        waiting += [remote.remote(item) for item in itertools.islice(left, window - len(waiting))]
        if not waiting:
            return
        done, waiting = _one_of(waiting)
        yield result(done)


def _one_of(references: list[Any]) -> tuple[Any, list[Any]]:
    """Wait for one of several results, heeding signals all the while; give it and the others.

    Ray looks at signals only when a wait is over, so it waits in short steps.
    """
    import ray

    while True:
        with interrupts.deferred():
            done, others = ray.wait(references, num_returns=1, timeout=_HEED)
        if done:
            return done[0], others


def result(reference: Any) -> Any:  # an ObjectRef and what it refers to
    """Give what a task or an actor returned.

    Raises:
        CfrayError: the one it raised; TargetError if its worker died too often.
    """
    import ray

    _one_of([reference])
    try:
        with interrupts.deferred():
            return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        cause: BaseException | None = error
        while isinstance(cause, ray.exceptions.RayTaskError):  # an actor that asked another one wraps its error once more
            cause = cause.cause
        if isinstance(cause, CfrayError):
            raise cause from None
        raise
    except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError, ray.exceptions.NodeDiedError) as error:
        why = str(error).splitlines()[0]
        raise TargetError(
            f"a worker died again and again: {why}", "give it more memory (limits.memory, fewer limits.workers), then run the same command again"
        ) from error


def _is_there(path: str) -> bool:
    return Path(path).exists()


def check_target_is_shared(uri: str, look: Callable[[str], bool] = _is_there) -> None:
    """Refuse a local target on a cluster whose nodes do not share that disk: each would write a dataset of its own (``reliability.md`` 2).

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
        seen = [ray.get(task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(str(mark))) for node in nodes]
    finally:
        mark.unlink(missing_ok=True)
    if not all(seen):
        raise ConfigError(
            f"target.uri {uri} is a local path, and {seen.count(False)} of {len(nodes)} nodes do not share it",
            "use an object store or a shared file system as the target",
        )
