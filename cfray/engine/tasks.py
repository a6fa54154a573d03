"""Run one function over many items, a Ray task for each item.

Results come as the tasks end, and an error comes as the task raised it.  While the driver
waits it looks at signals, so that Ctrl-C stops a run within seconds.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from cfray.engine import interrupts
from cfray.engine.cluster import cores
from cfray.errors import CfrayError, TargetError

Result = TypeVar("Result")
Item = TypeVar("Item")

#: Seconds for which the driver does not look at signals while it waits for a task.
_WAIT_STEP = 0.5
#: How often Ray starts a task anew whose worker died.
_RESTARTS = 3
#: Tasks per core that are handed to Ray: a worker that ends a task finds its next task waiting.
_QUEUED_PER_CORE = 4


@dataclass(frozen=True, slots=True)
class TaskOptions:
    """How tasks are run.

    Attributes:
        memory: bytes that Ray reserves for each task; None: not reserved.
        max_tasks: tasks that run at once; None: as many as there are cores.
        cpus: cores that each task claims.
    """

    memory: int | None = None
    max_tasks: int | None = None
    cpus: float = 1


def run_tasks(
    work: Callable[[Item], Result], items: Sequence[Item], options: TaskOptions | None = None
) -> Iterator[Result]:
    """Run ``work`` for each item in a task and yield the results as they come.

    Args:
        work: travels to the workers by pickle.
        items: travel there, too.
        options: how the tasks are run.

    Raises:
        CfrayError: the first error that a task raised; TargetError if a worker died too often.
    """
    import ray

    options = options or TaskOptions()

    def task(item: Item) -> Result:
        return work(item)

    memory = {} if options.memory is None else {"memory": options.memory}
    remote = ray.remote(num_cpus=options.cpus, max_retries=_RESTARTS, **memory)(task)
    remote = remote.options(name=_step_name(work))
    window = options.max_tasks or int(_QUEUED_PER_CORE * cores() / options.cpus)
    pending: list[Any] = []
    remaining = iter(items)
    while True:
        interrupts.check()
        free_slots = window - len(pending)
        pending += [remote.remote(item) for item in itertools.islice(remaining, free_slots)]
        if not pending:
            return
        finished, pending = _wait_for_next(pending)
        yield result(finished)


def _step_name(work: Callable[..., Any]) -> str:
    """Give the name under which Ray's dashboard shows the tasks: the function's, or the class's."""
    function = getattr(work, "func", work)  # what a partial calls
    return str(getattr(function, "__name__", type(function).__name__)).strip("_")


def _wait_for_next(references: list[Any]) -> tuple[Any, list[Any]]:
    """Wait for the next of several results; give its reference and the pending references.

    Ray looks at signals only when a wait is over, so it waits in short steps.
    """
    import ray

    while True:
        with interrupts.defer():
            finished, pending = ray.wait(references, num_returns=1, timeout=_WAIT_STEP)
        if finished:
            return finished[0], pending


def result(reference: Any) -> Any:  # an ObjectRef and what it refers to
    """Give what a task or an actor returned.

    Raises:
        CfrayError: the error it raised; TargetError if its worker died too often.
    """
    import ray

    _wait_for_next([reference])
    try:
        with interrupts.defer():
            return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        cause: BaseException | None = error
        # an actor that asked another actor wraps its error once more
        while isinstance(cause, ray.exceptions.RayTaskError):
            cause = cause.cause
        if isinstance(cause, CfrayError):
            raise cause from None
        raise
    except (
        ray.exceptions.WorkerCrashedError,
        ray.exceptions.OutOfMemoryError,
        ray.exceptions.NodeDiedError,
    ) as error:
        raise TargetError(
            f"a worker died again and again: {str(error).splitlines()[0]}",
            "give it more memory (limits.memory, fewer limits.workers), then run the same command "
            "again",
        ) from error
