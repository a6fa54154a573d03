"""A line: items go in, receipts come out; Ray Data runs it, in tasks or in a pool of actors.

Each item is one block, and one call of the line's body takes it from beginning to end: what
the body reads and writes never passes through Ray's object store, only its receipt does.
Ray Data may repeat a call wholly or half, without a limit, so a body that can kill its worker
counts its own starts.  Three operators with rows between them are not used: when a reader
was killed and cut its blocks differently on the repeat, 152 of 3,000 rows came twice without
an error (measured with Ray 2.60).
"""

from __future__ import annotations

import logging
import pickle
import re
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import pyarrow as pa

from cfray.engine import interrupts
from cfray.errors import CfrayError, EngineError

if TYPE_CHECKING:
    from ray.data import DataContext, Dataset

Item = TypeVar("Item")
Result = TypeVar("Result")

#: Column of a block that goes into a line, of a block that comes out, and of an error.
_ITEM, _RESULT, _ERROR = "item", "result", "error"
#: Bytes of a block: receipts are small.  With Ray Data's 128 MiB the store of 200 MB that a local
#: Ray has would count as full with one task at work.
_BLOCK_BYTES = 1024 * 1024
#: Characters of the job's name in the name of a line: names of files have a limit of 255 bytes.
_NAME_LENGTH = 40
#: Items that an actor has at hand, the one at work included: its next one never waits for the
#: scheduler, and a pool grows only where an actor has more than 1.75 (Ray 2.60's threshold).
_ITEMS_AT_HAND = 2


@dataclass(frozen=True, slots=True)
class LineOptions:
    """How a line is run.

    Attributes:
        job: its name in Ray's dashboard, with the step's.
        step: name of the line's operator.
        max_items: items at work at once; None: as many as the cluster has room for.
        memory: bytes that Ray reserves for each item at work; None: not reserved.
        cpus, gpus: that Ray reserves for each item at work, or for each actor.
    """

    job: str
    step: str
    max_items: int | None = None
    memory: int | None = None
    cpus: float = 1
    gpus: float = 0

    @property
    def name(self) -> str:
        """Name the line in Ray's dashboard.

        Ray Data names files of its log after it, and Ray's metrics take ASCII alone.
        """
        job = re.sub(r"[^A-Za-z0-9.-]+", "_", self.job)[:_NAME_LENGTH]
        return f"{job}-{self.step}"


@dataclass(slots=True)
class Line(ABC, Generic[Item, Result]):
    """One execution of a line.

    Attributes:
        options: how the line is run.
        operators: of the execution, when it is over, as Ray Data's own statistics name them:
            ``name``, ``rows`` that came out, and ``seconds`` of the workers.
    """

    options: LineOptions
    operators: list[dict[str, Any]] = field(default_factory=list, init=False)

    def run(self, items: Sequence[Item]) -> Generator[Result]:
        """Yield the results as they come, in whatever order.

        Raises:
            Exception: the first error that a body raised; the items that are at work are given up.
            EngineError: an item has no result, or two.
            Interrupted: a signal came.
        """
        import ray

        interrupts.check()
        if not items:
            return
        with ray.data.DataContext.current(_context()):
            dataset = self._dataset(items)
        _quieten_ray_data()  # Ray Data sets its loggers up with its first Dataset
        blocks = dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
        result_count = 0
        # closing the iterator is what ends an execution that is not exhausted
        with closing(iter(blocks)) as iterator:
            for block in iterator:
                interrupts.check()
                for result in _results(block):
                    result_count += 1
                    yield result
        if result_count != len(items):
            raise EngineError(
                f"Ray Data gave {result_count:,} results of {len(items):,} items "
                f"({self.options.name})",
                "run the same command again: it goes on where this run stopped",
            )
        self.operators = operator_statistics(dataset)

    def _dataset(self, items: Sequence[Item]) -> Dataset:
        import ray

        rows = [{_ITEM: ray.cloudpickle.dumps(item)} for item in items]
        dataset = ray.data.from_items(rows, override_num_blocks=len(rows))
        dataset.set_name(self.options.name)
        return dataset.map_batches(
            self._body(),
            batch_size=1,
            batch_format="pyarrow",
            compute=self._compute(len(items)),
            num_cpus=self.options.cpus,
            num_gpus=self.options.gpus or None,
            memory=self.options.memory,
        )

    @abstractmethod
    def _body(self) -> Any:
        """Give what Ray Data calls with the block of an item."""

    @abstractmethod
    def _compute(self, item_count: int) -> Any:
        """Give Ray Data's strategy; it has no public name for what its strategies share."""


@dataclass(slots=True)
class TaskLine(Line[Item, Result]):
    """A line whose items are tasks.

    Attributes:
        work: takes an item to its result; travels to the workers by pickle.
    """

    work: Callable[[Item], Result] = field(kw_only=True)

    def _body(self) -> Any:
        work = self.work

        def body(block: pa.Table) -> pa.Table:
            return _outcome(work, block)

        body.__name__ = self.options.step
        return body

    def _compute(self, item_count: int) -> Any:
        """Run the items as tasks: a worker that ends a task begins the next one.

        A pool of actors had the smaller gaps between items (18 to 34 ms against 133 to 168 ms), but
        each of its actors is a new process, which costs seconds (Ray 2.60); without the reservation
        of ``_context`` the tasks' gaps are as small.
        """
        import ray

        most = self.options.max_items
        # Ray Data warns of a pool that is larger than its items are many
        return ray.data.TaskPoolStrategy(None if most is None else min(most, item_count))


@dataclass(frozen=True, slots=True)
class ActorPool:
    """How many actors a line has: from ``min`` to ``max``, as many as there is work for."""

    min: int
    max: int


@dataclass(slots=True)
class ActorLine(Line[Item, Result]):
    """A line whose items need something that is costly to open, such as a model.

    Each actor opens it once, with its first item.

    Attributes:
        open_work: opens that, and gives what takes an item to its result.
        pool: of the actors.
    """

    open_work: Callable[[], Callable[[Item], Result]] = field(kw_only=True)
    pool: ActorPool = field(kw_only=True)

    def _body(self) -> Any:
        open_work = self.open_work

        class Body:
            """An actor's body: what it opened, once it has opened it."""

            def __init__(self) -> None:
                self.work: Callable[[Item], Result] | None = None

            def __call__(self, block: pa.Table) -> pa.Table:
                return _outcome(self.open_and_work, block)

            def open_and_work(self, item: Item) -> Result:
                if self.work is None:
                    self.work = open_work()
                return self.work(item)

        Body.__name__ = self.options.step
        return Body

    def _compute(self, item_count: int) -> Any:
        """Keep as many actors as there is work for, each with its next item at hand."""
        import ray

        # an actor more than there are items would open what it needs for nothing
        most = min(self.pool.max, item_count)
        return ray.data.ActorPoolStrategy(
            min_size=min(self.pool.min, most),
            max_size=most,
            max_tasks_in_flight_per_actor=_ITEMS_AT_HAND,
        )


def _quieten_ray_data() -> None:
    """Keep Ray Data's progress and its tracebacks out of the command's messages.

    Whatever ends an execution, an interrupt too, is logged as an error of Ray Data's; the command
    says itself what happened.
    """
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    logging.getLogger("ray.data.exceptions").disabled = True


def _context() -> DataContext:
    """Give the settings of a line.

    Ray Data reserves half of the cluster for each operator by itself; on two cores that left one
    core idle (12 items of 0.3 s took 3.3 s with the reservation, 2.0 s without; Ray 2.60).
    """
    from ray.data import DataContext

    context = DataContext.get_current().copy()
    context.op_resource_reservation_enabled = False
    context.target_max_block_size = _BLOCK_BYTES
    # whatever a program around cfray allows: no item may be lost
    context.max_errored_blocks = 0
    # a shard, or the start of an actor on a cluster that must grow first, may take hours
    context.execution_no_progress_timeout_s = -1
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    return context


def _outcome(work: Callable[[Item], Result], block: pa.Table) -> pa.Table:
    """Do the work of a block's item, and give the block of its result.

    An error of the work comes out as a row: Ray Data would end the execution with an error of its
    own class, and append its own sentence to the text.
    """
    try:
        item = pickle.loads(block[_ITEM][0].as_py())  # noqa: S301  # the driver's own bytes
        outcome = {_RESULT: [pickle.dumps(work(item))], _ERROR: [None]}
    except Exception as error:  # noqa: BLE001  # raised again by the driver
        outcome = {_RESULT: [None], _ERROR: [_pickled(error)]}
    return pa.table(outcome, schema=pa.schema([(_RESULT, pa.binary()), (_ERROR, pa.binary())]))


def _pickled(error: Exception) -> bytes:
    """Pickle an error, an unexpected one with its traceback as a note."""
    if not isinstance(error, CfrayError):
        error.add_note("".join(traceback.format_exception(error)))
    try:
        data = pickle.dumps(error)
        pickle.loads(data)  # noqa: S301  # some errors pickle and cannot be read back
    except Exception:  # noqa: BLE001
        substitute = RuntimeError(f"{type(error).__name__}: {error}")
        substitute.add_note("".join(traceback.format_exception(error)))
        data = pickle.dumps(substitute)
    return data


def _results(block: pa.Table) -> Iterator[Any]:
    for result, pickled_error in zip(block[_RESULT], block[_ERROR], strict=True):
        if pickled_error.is_valid:
            raise pickle.loads(pickled_error.as_py())  # noqa: S301  # a body's own bytes
        yield pickle.loads(result.as_py())  # noqa: S301


def operator_statistics(dataset: Dataset) -> list[dict[str, Any]]:
    """Take the operators of an execution from Ray Data's own statistics."""
    operators = []
    summaries = [dataset.get_stats_summary()]
    while summaries:
        summary = summaries.pop()
        operators += [
            {
                "name": operator.operator_name,
                "rows": int(operator.output_num_rows.sum) if operator.output_num_rows else 0,
                "seconds": round(operator.wall_time.sum, 3) if operator.wall_time else 0.0,
            }
            for operator in summary.operators_stats
        ]
        summaries += summary.parents
    return operators[::-1]
