"""One function over many items, a Ray task each.

Results as they come, errors as they were raised.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from cfray.engine import interrupts
from cfray.engine.cluster import cores
from cfray.errors import CfrayError, TargetError

T = TypeVar("T")


A = TypeVar("A")


#: Seconds for which the driver does not look at signals: Ctrl-C stops a run within seconds, however
#: long its tasks take.
_HEED = 0.5


@dataclass(frozen=True, slots=True)
class TaskOptions:
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

    def beside_actors(self) -> TaskOptions:
        """Give the same for tasks that mostly wait for embedding actors.

        Two a core, so that the actors always have work, and next to no claim on a core: no actor
        may wait for its core until a task ends that waits for the actor.
        """
        return replace(self, most=min(self.most or 2 * cores(), 2 * cores()), cpus=0.05)


def each(
    work: Callable[[A], T], items: Sequence[A], pool: TaskOptions | None = None
) -> Iterator[T]:
    """Run ``work`` for each item in a task of its own.

    Results as they come, errors as they were raised.

    More tasks are handed to Ray than there are cores, so that a worker finds its next one waiting.

    Raises:
        CfrayError: the first one a task raised; TargetError if a worker died too often.
    """
    import ray

    pool = pool or TaskOptions()

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
        while isinstance(
            cause, ray.exceptions.RayTaskError
        ):  # an actor that asked another one wraps its error once more
            cause = cause.cause
        if isinstance(cause, CfrayError):
            raise cause from None
        raise
    except (
        ray.exceptions.WorkerCrashedError,
        ray.exceptions.OutOfMemoryError,
        ray.exceptions.NodeDiedError,
    ) as error:
        why = str(error).splitlines()[0]
        raise TargetError(
            f"a worker died again and again: {why}",
            "give it more memory (limits.memory, fewer limits.workers), then run the same command again",
        ) from error
