"""The model of a run: how an actor loads it, and what the actors did with it.

An actor loads the model with the first text that needs it, and refuses a model that is not the
plan's.  Each load leaves marks in the state folder, so that the loads of actors that died are
counted, too.
"""

from __future__ import annotations

import time
import uuid
from collections import Counter
from dataclasses import dataclass, field

import pyarrow as pa

from cfray.embedders.base import Identity
from cfray.embedders.batches import LocalModel
from cfray.embedders.endpoint import Budgets
from cfray.embedders.spec import Actors, Embedding
from cfray.embedders.texts import EmbeddedTexts
from cfray.engine import cluster, throttle
from cfray.engine.lines import ActorPool
from cfray.errors import ConfigError, TargetError
from cfray.job.spec import JobSpec
from cfray.records.vectors import Floats
from cfray.report.run import Run
from cfray.runtime.filesystems import Folder
from cfray.runtime.plurals import counted

#: Actors that ask a server at once unless the job says otherwise: they wait, and cost no core.
_ENDPOINT_ACTORS = 8
#: How often one command starts something over which an actor dies without an error (killed for its
#: memory, or crashed in native code).
MAX_CRASHES = 3
#: What an actor embeds first.
_FIRST_TEXT = "a text"


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """What an actor needs to load the model; travels to workers.

    Attributes:
        spec: the job's section, ``dtype`` resolved.
        key: of the identity that the plan found; an actor that finds another key refuses.
        dimension: of the model's vectors.
        device: ``cpu`` or ``cuda``.
        budgets: of an endpoint's requests and tokens.
        marks: folder for the marks that this command leaves.
    """

    spec: Embedding
    key: str
    dimension: int
    device: str
    budgets: Budgets
    marks: Folder

    @classmethod
    def of(cls, job: JobSpec, model: Identity | None, marks: Folder) -> ModelSettings:
        """Give the settings of the model that the plan found; None where no text is embedded."""
        spec = job.embedding
        if model is None:
            return cls(spec, "", 0, "cpu", throttle.endpoint_budgets(None), marks)
        if spec.endpoint is None:
            # the plan resolved "auto", and every actor must compute in the type it resolved to
            spec = spec.model_copy(update={"dtype": model.dtype})
        is_torch = spec.endpoint is None and spec.engine == "torch"
        device = "cuda" if is_torch and cluster.gpus() else "cpu"
        budgets = throttle.endpoint_budgets(spec.endpoint)
        return cls(spec, model.key, model.dimension, device, budgets, marks)

    @property
    def loads(self) -> Folder:
        """Name the folder that holds a mark for each load of the model."""
        return self.marks.child("loads")

    @property
    def pool(self) -> ActorPool:
        """Give how many actors the job asks for; "auto" is an actor a GPU, else an actor a core."""
        actors = self.spec.actors
        if isinstance(actors, Actors):
            return ActorPool(actors.min, actors.max)
        if actors == "auto":
            processors = cluster.gpus() if self.device == "cuda" else cluster.cores()
            actors = _ENDPOINT_ACTORS if self.spec.endpoint else processors
        return ActorPool(actors, actors)

    @property
    def cpus(self) -> float:
        """Give the cores that an actor claims: one that asks a server mostly waits."""
        return 0.05 if self.spec.endpoint else 0.5

    def load(self) -> LocalModel:
        """Load the model into this process.

        Raises:
            ConfigError: it is not the model that the plan found.
            CfrayError: it cannot be loaded, or its server does not answer.
        """
        from cfray.embedders.open import open_embedder, open_text_embedder

        embedder = open_embedder(
            self.spec,
            self.budgets,
            dimension=self.dimension,
            device=self.device,
            threads=1 if self.device == "cpu" else None,
        )
        identity = embedder.identity
        if identity.key != self.key:
            raise ConfigError(
                "embedding.model: this worker finds another model than the plan did "
                f"({identity.name}, sha256 {identity.sha256[:16]})",
                "give every node the same files, or a new target.uri for the new model",
            )
        self.loads.publish(uuid.uuid4().hex, b"")
        return LocalModel(open_text_embedder(embedder, self.spec), self.device)


@dataclass(frozen=True, slots=True)
class Work:
    """What an actor says of one item.

    Attributes:
        actor: a name that no other actor has.
        begin, end: of the item, seconds since 1970 by the actor's clock.
        counts: ``EmbeddedTexts.counts`` of the item's texts, summed.
    """

    actor: str
    begin: float
    end: float
    counts: Counter[str]


class ActorModel:
    """The model as an actor holds it: loaded with the first text that needs it."""

    def __init__(self, settings: ModelSettings) -> None:
        """Remember how to load the model."""
        self.settings = settings
        self.name = uuid.uuid4().hex
        self.counts: Counter[str] = Counter()
        self._item = ""
        self._model: LocalModel | None = None

    def begin(self, item: str) -> float:
        """Begin an item, for whose texts the model may be loaded.

        Returns:
            The time, seconds since 1970.
        """
        self._item = item
        return time.time()

    @property
    def model(self) -> LocalModel:
        """Give the model; load it where no text has needed it yet.

        Raises:
            TargetError: actors died again and again while they loaded it for this item.
        """
        if self._model is None:
            marks = Starts(self.settings.marks.child(f"loading/{self._item}"))
            marks.begin(
                "embedding actors died {times} times while they loaded the model (out of memory, "
                "or a crash in native code)"
            )
            model = self.settings.load()
            if self.settings.spec.endpoint is None:
                # a model that dies over any text must not look as if a record's had killed it
                model.embed_queries(pa.array([_FIRST_TEXT]))
            self._model = model
            marks.end()
        return self._model

    def embed(self, column: pa.StringArray) -> EmbeddedTexts:
        """Embed texts, and count what they took."""
        embedded = self.model.embed(column)
        self.counts += embedded.counts
        return embedded

    def embed_queries(self, column: pa.StringArray) -> Floats:
        """Embed queries, none of them blank."""
        return self.model.embed_queries(column)

    def flush(self) -> None:
        """Write what the cache holds back."""
        if self._model is not None:
            self._model.flush()

    def account(self, begin: float) -> Work:
        """Say what the item took that began then, and begin to count anew.

        What the cache held back is written first: an item that is done stays in the cache.
        """
        self.flush()
        counts, self.counts = self.counts, Counter()
        return Work(self.name, begin, time.time(), counts)


class Starts:
    """Counts durably how often something was begun that may kill its process.

    Ray repeats the item of a process that died without any limit.
    """

    def __init__(self, folder: Folder) -> None:
        """Look at the earlier starts."""
        self.folder = folder
        names = folder.list_names()
        self._ends = sum(name.startswith("ended-") for name in names)
        self._begun = len(names) - self._ends

    def begin(self, sentence: str) -> None:
        """Count a start.

        Args:
            sentence: of the error; it names how often with ``{times}``.

        Raises:
            TargetError: as many starts as a process may die over came to no end.
        """
        deaths = self._begun - self._ends
        if deaths >= MAX_CRASHES:
            raise TargetError(
                sentence.format(times=deaths),
                "give them more memory (fewer embedding.actors), or another embedding.engine or "
                "dtype; then run the same command again",
            )
        self.folder.publish(f"begun-{self._begun}", b"")

    def end(self) -> None:
        """Count an end."""
        self.folder.publish(f"ended-{self._begun}", b"")


@dataclass(slots=True)
class Figures:
    """What the actors of a run did.

    Attributes:
        loaded: how often a model was loaded.
        counts: sums of ``EmbeddedTexts.counts``.
        spans: name of an actor -> when its first item began and its last one ended.
        busy: seconds that the actors had an item.
    """

    loaded: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    spans: dict[str, tuple[float, float]] = field(default_factory=dict)
    busy: float = 0.0

    def add(self, work: Work) -> None:
        """Add what an actor says of an item."""
        self.counts += work.counts
        self.busy += work.end - work.begin
        begin, end = self.spans.get(work.actor, (work.begin, work.end))
        self.spans[work.actor] = (min(begin, work.begin), max(end, work.end))

    @property
    def alive(self) -> float:
        """Give the seconds from each actor's first item to its last one."""
        return sum(end - begin for begin, end in self.spans.values())

    @property
    def actors(self) -> int:
        """Give the most actors that were at work at once."""
        changes = [(begin, 1) for begin, _ in self.spans.values()]
        changes += [(end, -1) for _, end in self.spans.values()]
        at_work = most = 0
        for _, change in sorted(changes):
            at_work += change
            most = max(most, at_work)
        return most

    def report(self, run: Run) -> None:
        """Add to the report what the actors did in this run."""
        run.report.pool = {
            "actors": self.actors,
            "loaded": self.loaded,
            "busy": round(self.busy, 2),
            "alive": round(self.alive, 2),
            **{name: float(count) for name, count in sorted(self.counts.items())},
        }
        busy_share = self.busy / self.alive if self.alive else 0.0
        run.report.notes.append(
            f"embedding: {counted(self.actors, 'actor')}, models loaded "
            f"{counted(self.loaded, 'time')}, "
            f"{busy_share:.0%} busy, {self.counts['texts_embedded']:,} texts through the model, "
            f"{self.counts['texts_repeated']:,} repeated, "
            f"{self.counts['cache_hits']:,} from the cache"
        )
