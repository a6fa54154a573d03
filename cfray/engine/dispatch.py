"""The embedding actors, and the dispatcher that hands them their work.

Each worker loads the model once and embeds batches of texts, whichever shard they are
from.  A worker that dies is replaced and its batch given to another worker; a batch that
kills three workers ends the run.  There are as many workers as there is work for, between
the minimum and the maximum of the job.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from cfray.embedders.endpoint import Budgets
from cfray.embedders.spec import Actors, Embedding
from cfray.embedders.texts import EmbeddedTexts
from cfray.errors import ConfigError, TargetError
from cfray.records.vectors import Floats

#: Workers that may die over the same batch.
_MAX_DEATHS = 3
#: Seconds without work after which a worker above the minimum is stopped.
_IDLE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """What a worker needs to load its embedder.

    Attributes:
        spec: the job's section, ``dtype`` resolved.
        key: of the identity that the plan found; a worker that finds another key refuses.
        dimension: of its vectors.
        device: ``cpu`` or ``cuda``.
        budgets: of an endpoint's requests and tokens.
    """

    spec: Embedding
    key: str
    dimension: int
    device: str
    budgets: Budgets


@dataclass(slots=True)
class Figures:
    """What the pool did.

    Attributes:
        actors: the most workers that were up at once.
        loaded: how often a model was loaded.
        busy, alive: seconds that workers computed, and were up with their model loaded.
        counts: sums of ``EmbeddedTexts.counts``, whatever became of the shards of the texts.
    """

    actors: int = 0
    loaded: int = 0
    busy: float = 0.0
    alive: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)


class Worker:
    """The body of an embedding actor: a loaded embedder."""

    def load(self, request: LoadRequest) -> str:
        """Load the model; give the key of its identity."""
        from cfray.embedders.open import open_embedder, open_text_embedder

        embedder = open_embedder(
            request.spec,
            request.budgets,
            dimension=request.dimension,
            device=request.device,
            threads=1 if request.device == "cpu" else None,
        )
        identity = embedder.identity
        if identity.key != request.key:
            raise ConfigError(
                "embedding.model: this worker finds another model than the plan did "
                f"({identity.name}, sha256 {identity.sha256[:16]})",
                "give every node the same files, or a new target.uri for the new model",
            )
        self.texts = open_text_embedder(embedder, request.spec)
        return identity.key

    def embed(self, column: pa.StringArray) -> tuple[EmbeddedTexts, float]:
        """Embed a batch of texts; give the seconds it took, too."""
        begin = time.perf_counter()
        embedded = self.texts.embed(column)
        return embedded, time.perf_counter() - begin

    def embed_queries(self, column: pa.StringArray) -> tuple[Floats, float]:
        """Embed queries, none of them blank; give the seconds it took, too."""
        begin = time.perf_counter()
        vectors = self.texts.embedder.encode_queries(column.to_pylist())
        return vectors, time.perf_counter() - begin

    def flush(self) -> None:
        """Write what the cache still holds back."""
        if self.texts.cache is not None:
            self.texts.cache.flush()


class Dispatcher:
    """Hands batches to free workers.

    An asyncio actor, so only one of its methods runs between two ``await``.
    """

    def __init__(self, request: LoadRequest, size: Actors) -> None:
        self.request, self.size = request, size
        #: Worker -> when its model was loaded.
        self.loaded_at: dict[Any, float] = {}
        #: Workers that are loading their model.
        self.loading = 0
        self.free: asyncio.Queue[Any] = asyncio.Queue()
        #: Batches that wait for a worker.
        self.waiting = 0
        self.load_failure: Exception | None = None
        self.figures = Figures()
        self.background_tasks: set[asyncio.Task[None]] = set()

    async def embed(self, column: pa.StringArray) -> EmbeddedTexts:
        """Embed a batch of texts."""
        embedded: EmbeddedTexts = await self._ask_worker("embed", column)
        self.figures.counts += embedded.counts
        return embedded

    async def embed_queries(self, column: pa.StringArray) -> Floats:
        """Embed a batch of queries."""
        vectors: Floats = await self._ask_worker("embed_queries", column)
        return vectors

    async def _ask_worker(self, method: str, column: pa.StringArray) -> Any:
        """Call a method of a free worker; of another worker if that worker dies over it."""
        import ray

        for _ in range(_MAX_DEATHS):
            worker = await self._take_worker()
            try:
                answer, seconds = await getattr(worker, method).remote(column)
            except ray.exceptions.RayActorError:
                self._forget(worker)
                continue
            except Exception:
                self.free.put_nowait(worker)
                raise
            self.figures.busy += seconds
            self.free.put_nowait(worker)
            return answer
        raise TargetError(
            f"{_MAX_DEATHS} embedding actors died one after the other over the same {len(column)} "
            "texts (out of memory, or a crash in native code)",
            "give them more memory (fewer embedding.actors, fewer limits.workers), then run the "
            "same command again",
        )

    async def _take_worker(self) -> Any:
        """Wait for a free worker; start another worker where none is free and the job allows it."""
        if not self.background_tasks:
            self._run_in_background(self._stop_idle_workers())
        self.waiting += 1
        try:
            while True:
                if self.load_failure is not None:
                    raise self.load_failure
                while self.free.empty() and len(self.loaded_at) + self.loading < self._target_size:
                    self._start_worker()
                worker = await self.free.get()
                if worker in self.loaded_at:
                    return worker
        finally:
            self.waiting -= 1

    @property
    def _target_size(self) -> int:
        """Give the number of workers that the work at this moment asks for."""
        if not self.loaded_at:
            return self.size.min
        return min(self.size.max, len(self.loaded_at) + self.waiting)

    def _start_worker(self) -> None:
        import ray

        self.loading += 1
        claims = {
            "num_cpus": 0.05 if self.request.spec.endpoint else 0.5,
            **({"num_gpus": 1} if self.request.device == "cuda" else {}),
        }
        worker = ray.remote(max_restarts=0, **claims)(Worker).remote()
        self._run_in_background(self._load(worker))

    def _run_in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        # asyncio itself holds tasks only weakly
        self.background_tasks.add(task)
        task.add_done_callback(self.background_tasks.discard)

    async def _load(self, worker: Any) -> None:
        import ray

        try:
            await worker.load.remote(self.request)
        except ray.exceptions.RayActorError:
            self.load_failure = TargetError(
                "an embedding actor died while it loaded the model (out of memory, or a crash in "
                "native code)",
                "give it more memory (fewer embedding.actors), then run the same command again",
            )
        except Exception as error:  # noqa: BLE001  # raised again by each batch that waits
            self.load_failure = error
        else:
            self.loaded_at[worker] = time.monotonic()
            self.figures.loaded += 1
            self.figures.actors = max(self.figures.actors, len(self.loaded_at))
        finally:
            self.loading -= 1
        # wakes a waiting batch: it takes the worker, or finds the failure
        self.free.put_nowait(worker)
        if self.load_failure is not None:
            for _ in range(self.waiting):
                self.free.put_nowait(worker)

    def _forget(self, worker: Any) -> None:
        self.figures.alive += time.monotonic() - self.loaded_at.pop(worker)

    async def _stop_idle_workers(self) -> None:
        """Stop workers above the minimum that no batch has needed for a while."""
        import ray

        while True:
            await asyncio.sleep(_IDLE_SECONDS)
            count = len(self.loaded_at)
            if self.waiting == 0 and self.free.qsize() == count > self.size.min:
                worker = self.free.get_nowait()
                self._forget(worker)
                ray.kill(worker)

    async def flush(self) -> None:
        """Write what the workers' caches hold back."""
        for worker in list(self.loaded_at):
            await worker.flush.remote()

    async def figures_so_far(self) -> Figures:
        """Give the figures; caches are flushed first, since this is asked at the end of a run."""
        await self.flush()
        now = time.monotonic()
        alive = self.figures.alive + sum(now - since for since in self.loaded_at.values())
        return replace(self.figures, alive=alive)
