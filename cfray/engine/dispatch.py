"""The embedding actors and the one that hands them their work.

Each worker loads the model once and serves batches of texts, whichever shard
they are from.  One that dies is replaced and its batch given to another; a batch
that kills three of them ends the run.  There are as many as there is work for,
between the least and the most the job allows.
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
from cfray.embedders.texts import Embedded
from cfray.errors import ConfigError, TargetError
from cfray.records.vectors import Floats

#: How often a batch is given to another actor after one died over it.
_DEATHS = 3
#: Seconds without work after which an actor above the least number is let go.
_IDLE = 60.0


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """What an actor needs to load its embedder.

    Attributes:
        spec: the job's section, ``dtype`` resolved.
        key: of the identity the plan found; an actor that finds another one refuses.
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
        actors: most that were up at once.
        loaded: how often a model was loaded.
        busy, alive: seconds that actors computed, and were up with their model loaded.
        counts: sums of ``Embedded.counts``, whatever became of the shards they were for.
    """

    actors: int = 0
    loaded: int = 0
    busy: float = 0.0
    alive: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)


class Worker:
    """An actor's body: one loaded embedder."""

    def load(self, opening: LoadRequest) -> str:
        """Load the model; give its identity's key."""
        from cfray.embedders.open import open_embedder, texts

        threads = 1 if opening.device == "cpu" else None
        embedder = open_embedder(
            opening.spec,
            opening.budgets,
            dimension=opening.dimension,
            device=opening.device,
            threads=threads,
        )
        if embedder.identity.key != opening.key:
            raise ConfigError(
                f"embedding.model: this worker finds another model than the plan did ({embedder.identity.name}, sha256 {embedder.identity.sha256[:16]})",
                "give every node the same files, or a new target.uri for the new model",
            )
        self.texts = texts(embedder, opening.spec)
        return embedder.identity.key

    def embed(self, column: pa.StringArray) -> tuple[Embedded, float]:
        """Embed one batch; give the seconds it took, too."""
        begin = time.perf_counter()
        embedded = self.texts.embedded(column)
        return embedded, time.perf_counter() - begin

    def queries(self, column: pa.StringArray) -> tuple[Floats, float]:
        """Embed queries; none of them may be blank."""
        begin = time.perf_counter()
        vectors = self.texts.embedder.encode_queries(column.to_pylist())
        return vectors, time.perf_counter() - begin

    def flush(self) -> None:
        """Write what the cache still holds back."""
        if self.texts.cache is not None:
            self.texts.cache.flush()


class Dispatcher:
    """Hands batches to free actors.

    An asyncio actor, so everything here happens one step at a time.
    """

    def __init__(self, opening: LoadRequest, size: Actors) -> None:
        self.opening, self.size = opening, size
        self.up: dict[Any, float] = {}  # actor -> when its model was loaded
        self.coming = 0
        self.free: asyncio.Queue[Any] = asyncio.Queue()
        self.waiting = 0
        self.failure: Exception | None = None
        self.figures = Figures()
        self.tasks: set[asyncio.Task[None]] = set()

    async def embed(self, column: pa.StringArray) -> Embedded:
        """Embed one batch of texts."""
        embedded: Embedded = await self._done("embed", column)
        self.figures.counts += embedded.counts
        return embedded

    async def queries(self, column: pa.StringArray) -> Floats:
        """Embed one batch of queries."""
        vectors: Floats = await self._done("queries", column)
        return vectors

    async def _done(self, method: str, column: pa.StringArray) -> Any:
        """Let a free actor do it; another one if it dies over it."""
        import ray

        for _ in range(_DEATHS):
            actor = await self._taken()
            try:
                made, seconds = await getattr(actor, method).remote(column)
            except ray.exceptions.RayActorError:
                self._gone(actor)
                continue
            except Exception:
                self.free.put_nowait(actor)
                raise
            self.figures.busy += seconds
            self.free.put_nowait(actor)
            return made
        raise TargetError(
            f"{_DEATHS} embedding actors died one after the other over the same {len(column)} texts (out of memory, or a crash in native code)",
            "give them more memory (fewer embedding.actors, fewer limits.workers), then run the same command again",
        )

    async def _taken(self) -> Any:
        """Wait for a free actor; start one more where none is free and there may be more."""
        if not self.tasks:
            self._keep(self._trim())
        self.waiting += 1
        try:
            while True:
                if self.failure is not None:
                    raise self.failure
                wanted = (
                    self.size.min
                    if not self.up
                    else min(self.size.max, len(self.up) + self.waiting)
                )
                while self.free.empty() and len(self.up) + self.coming < wanted:
                    self._start()
                actor = await self.free.get()
                if actor in self.up:
                    return actor
        finally:
            self.waiting -= 1

    def _start(self) -> None:
        import ray

        self.coming += 1
        claims = {
            "num_cpus": 0.05 if self.opening.spec.endpoint else 0.5,
            **({"num_gpus": 1} if self.opening.device == "cuda" else {}),
        }
        actor = ray.remote(max_restarts=0, **claims)(Worker).remote()
        self._keep(self._loaded(actor))

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)  # asyncio itself holds tasks only weakly
        task.add_done_callback(self.tasks.discard)

    async def _loaded(self, actor: Any) -> None:
        import ray

        try:
            await actor.load.remote(self.opening)
        except ray.exceptions.RayActorError:
            self.failure = TargetError(
                "an embedding actor died while it loaded the model (out of memory, or a crash in native code)",
                "give it more memory (fewer embedding.actors), then run the same command again",
            )
        except Exception as error:  # noqa: BLE001  # whatever it is, it is raised by whoever waits for an actor
            self.failure = error
        else:
            self.up[actor] = time.monotonic()
            self.figures.loaded += 1
            self.figures.actors = max(self.figures.actors, len(self.up))
        finally:
            self.coming -= 1
        self.free.put_nowait(actor)  # wakes one who waits: for the actor, or to find the failure
        if self.failure is not None:
            for _ in range(self.waiting):
                self.free.put_nowait(actor)

    def _gone(self, actor: Any) -> None:
        self.figures.alive += time.monotonic() - self.up.pop(actor)

    async def _trim(self) -> None:
        """Let go of actors that nobody has needed for a while."""
        import ray

        while True:
            await asyncio.sleep(_IDLE)
            if self.waiting == 0 and self.free.qsize() == len(self.up) > self.size.min:
                actor = self.free.get_nowait()
                self._gone(actor)
                ray.kill(actor)

    async def flush(self) -> None:
        """Write what caches hold back."""
        for actor in list(self.up):
            await actor.flush.remote()

    async def account(self) -> Figures:
        """Give the figures; caches are written before, since this is asked at the end."""
        await self.flush()
        now = time.monotonic()
        return replace(
            self.figures, alive=self.figures.alive + sum(now - since for since in self.up.values())
        )
