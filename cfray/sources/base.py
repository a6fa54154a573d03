"""What a source is: two methods, and a session where the store needs one.

A Source is a frozen pydantic model: its fields are its configuration, its methods its
behaviour.  It holds no client and no secret, travels to workers by pickle, and imports
its vendor's SDK only inside a method.  A new store is a folder beside this module, a test
class that fills the store and inherits the contract, an example job file, a page of the
documentation and an extra.

The life of a source in one run, in the order of the calls:

1. The job file is read: the model is validated, then ``resolve_paths`` once.
2. While the run is planned, on the driver: ``session`` is entered, ``shards`` and
   ``describe`` are called once each, and ``read`` for two or three shards to take a sample.
   The plan is saved; a resumed run reuses it, skips this step and enters another session.
3. While the shards are copied, in the same session: each worker calls ``read`` for one shard
   at a time, and again from the start after an error or a crash.
4. After the last shard, on the driver and in the same session: ``count``.  Then the session
   is left.  Until then ``keep_alive`` is called, where the session expires without it.
"""

from __future__ import annotations

import re
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, Self, TypeAlias

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from cfray.errors import CannotSearchWords, SourceError
from cfray.records.record import Reject
from cfray.runtime import filesystems
from cfray.runtime.clock import utc_now
from cfray.runtime.models import MIB, ByteSize
from cfray.runtime.throttle import Throttle, UnlimitedThrottle

#: The consistency that a source really offers; the report repeats it word for word.
Consistency = Literal["snapshot", "pinned files", "per-shard live", "none"]

#: Distances that Lance's vector indexes know, too.
Metric = Literal["cosine", "l2", "dot"]

#: What the id of a session may be.
_SESSION_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

#: Parsed JSON.
Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"


@dataclass(frozen=True, slots=True)
class Shard:
    """One independently readable slice of a source: the unit of read, retry, resume and commit.

    Attributes:
        id: stable name; depends on the source and the job file only, never on cluster size.
        where: whatever ``read`` needs to find the slice again (parsed JSON).
        rows: number of records, if it is known exactly without reading them.
        size: bytes at the source (an estimate where the store knows no better).
        collection: the source collection the shard belongs to; empty for file kinds.
        splittable: false where the format forced the whole file into one shard.
    """

    id: str
    where: Mapping[str, Json]
    rows: int | None = None
    size: int = 0
    collection: str = ""
    splittable: bool = True


def _random_id() -> str:
    return uuid.uuid4().hex[:16]


@dataclass(frozen=True, slots=True)
class Session:
    """What all reads of a run share at the store, from the plan to the last shard.

    Each shard's receipt names the session that the shard was read under.

    Attributes:
        id: unique; the store's name for it, such as a snapshot's, else a random one.  Letters,
            digits, ``.``, ``_`` and ``-``, 100 at most: it names a file beside the target.  No
            secret.
        began: when the view of the source was taken, UTC to the second.
        consistency: what a read under the session guarantees, ``snapshot`` only where the session
            is one; None: what ``describe`` says holds under every session, as it does where the
            plan pins files or a version.
        expires: seconds after which the store lets the session go if ``keep_alive`` is not called;
            None: it stays until it is left.
        state: what ``read`` needs of it (JSON); reaches every method as ``context.session`` and
            travels to workers.  It is not written down beside the target.
    """

    id: str = field(default_factory=_random_id)
    began: str = field(default_factory=utc_now)
    consistency: Consistency | None = None
    expires: float | None = None
    state: Json = None

    def __post_init__(self) -> None:
        """Check the id.

        Raises:
            ValueError: it cannot be the name of a file.
        """
        if not _SESSION_ID.fullmatch(self.id):
            raise ValueError(f"{self.id!r} cannot be the id of a session")


@dataclass(frozen=True, slots=True)
class Context:
    """What a run hands to a source; it travels to workers.

    Attributes:
        session: the ``state`` of the source's session (JSON).
        scratch: URI of a durable folder beside the target, for what several shards share.
        max_record: bytes above which a record must not be loaded whole but rejected
            (``limits.max_document``).
        batch_bytes: bytes of Arrow data that a batch aims at.  Mapping and hashing cost a batch
            3.5 ms whatever its size (measured), which 14,000 rows of 2 KB bear easily.
        throttle: the run-wide budget of requests.
    """

    session: Json = None
    scratch: str = ""
    max_record: int = 128 * MIB
    batch_bytes: int = 32 * MIB
    throttle: Throttle = field(default_factory=UnlimitedThrottle, compare=False)


@dataclass(frozen=True, slots=True)
class Collection:
    """What a store says of one source collection.

    Attributes:
        name: as in ``Shard.collection``.
        rows: counted; None where it was not.
        dimension: width of the vector called ``vector``; None where there is none.
        metric: distance of that vector; None where the store has none or another than these.
        vectors: name behind ``vectors.`` -> (dimension, metric), for named dense vectors; the
            dimension is None where the store declares none and the collection is empty.
        facts: what else is worth keeping (index parameters, partitions, aliases), as text;
            recorded in the collection's header.
        references: dotted path of a field that refers to records -> the source collection that the
            store declares for it.
    """

    name: str
    rows: int | None = None
    dimension: int | None = None
    metric: Metric | None = None
    vectors: Mapping[str, tuple[int | None, Metric | None]] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)
    references: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FieldEquals:
    """A condition of a search: a field of the record is exactly this text.

    Attributes:
        path: of the field in the record.
        text: that it must be, upper and lower case told apart.
    """

    path: tuple[str, ...]
    text: str

    @property
    def name(self) -> str:
        """Give the dotted path."""
        return ".".join(self.path)


@dataclass(frozen=True, slots=True)
class Description:
    """What a source says of itself before it is read.

    Attributes:
        schema: Arrow schema of the records, or None where the source has no fixed one.
        rows: number of records; None where unknown.
        exact: whether ``rows`` was counted (true) or estimated.
        size: bytes at the source.
        consistency: what a read of this source guarantees, whatever session reads it; a session
            that is a snapshot says so itself (``Session.consistency``).
        notes: facts the operator should read (one sentence each).
        collections: the source collections, by name; none for file kinds.
        references: dotted path of a field that refers to records -> the source collection they are
            in, where all source collections declare the same (``Collection.references`` has those
            of each).
        blank_is_null: whether an empty text stands for null where a rule of the mapping reads it,
            because the format cannot write a null (CSV).
        unread: sentences about records that lie in what is read and are not read: a plan warns of
            them, and refuses under ``strict``.
        copies: groups of files with the same bytes where they were compared, by name: perhaps
            copies.
        frame_types: type of each key of ``custom_metadata``, where the records are frames.
    """

    schema: pa.Schema | None
    rows: int | None
    exact: bool
    size: int
    consistency: Consistency
    notes: tuple[str, ...] = field(default_factory=tuple)
    collections: tuple[Collection, ...] = ()
    references: dict[str, str] = field(default_factory=dict)
    blank_is_null: bool = False
    unread: tuple[str, ...] = ()
    copies: tuple[tuple[str, ...], ...] = ()
    frame_types: dict[str, str] = field(default_factory=dict)


class Source(BaseModel, ABC):
    """A store that cfray reads.  ``shards`` and ``read`` must be written; the rest has a default.

    Example, a store whose shards are its partitions::

        class Shelf(Source):
            kind: Literal["shelf"] = "shelf"
            uri: Location

            def shards(self, context: Context) -> list[Shard]:
                return [Shard(id=name, where={"name": name}) for name in partitions(self.uri)]

            def read(self, shard: Shard, context: Context) -> Iterator[pa.RecordBatch | Reject]:
                with open_partition(self.uri, shard.where["name"]) as partition:
                    yield from partition.batches(context.batch_bytes)

    Errors, for every method: a SourceError is terminal, and its remedy says what the operator
    can do; a SourceUnavailable is transient, and the caller tries again.  No SDK's error may
    leave a method, for most of them do not survive pickle, and no text may hold a credential.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    #: Fields that change no record (credentials, limits): they are not part of the fingerprint, so
    #: that a run may be resumed with other values.  A field that is forgotten here makes a resume
    #: with another value a refusal; a field that is wrongly here mixes rows of two sources.
    unfingerprinted: ClassVar[frozenset[str]] = frozenset()

    #: Fields that a later version brought: the fingerprint holds such a field only where it has
    #: another value than its default, so that the jobs of earlier versions keep their fingerprint.
    later_fields: ClassVar[frozenset[str]] = frozenset()

    #: Whether the names of collections are paths of folders, whose headers are nested.
    nests_collections: ClassVar[bool] = False

    #: Whether files that have not changed give the same records whenever they are read; not where
    #: a program with a time limit makes the records.
    is_repeatable: ClassVar[bool] = True

    kind: str
    #: Bytes a shard aims at; 256 MiB makes fragments of 100,000 rows and more, large enough to need
    #: no compaction.
    shard_bytes: ByteSize = 256 * MIB

    def resolve_paths(self, base: Path) -> Self:
        """Resolve the paths in the job file against the folder of the job file.

        Called on the driver, once, when the job file is read.  Must be pure.

        Without it only ``uri`` is resolved; a source with other paths (a certificate, a file of
        ids) extends it, or its workers look for them in their own working directory.
        """
        uri = getattr(self, "uri", None)
        return self.model_copy(update={"uri": filesystems.resolve_path(uri, base)}) if uri else self

    @property
    def address(self) -> str:
        """Give the location of the source, without credentials.

        Written into every frame (``source_url``) and into error messages.  Must be pure.

        Without it the address is ``uri``.
        """
        return filesystems.strip_credentials(str(getattr(self, "uri", "")))

    @property
    def is_remote(self) -> bool:
        """Tell whether reading sends requests that count against a budget.

        Without it the source is not remote: its workers share no budget of requests, and its
        records are not counted again at the end.
        """
        return False

    @property
    def can_search(self) -> bool:
        """Tell whether the store has a vector search of its own, and this is not its export."""
        return self.is_remote and type(self).search is not Source.search

    @property
    def grows_by_files(self) -> bool:
        """Tell whether files that appear can be copied into a finished target."""
        return type(self).shards_of is not Source.shards_of

    @property
    def request_rate(self) -> float | None:
        """Give the requests a second that all workers together may send.

        Asked only if ``is_remote``.  None, the default, means that only the pauses that the store
        asks for hold the workers off.
        """
        return None

    def session(self) -> AbstractContextManager[Session]:
        """Hold open what all reads of the source need: a snapshot, a point in time, a load state.

        Called on the driver, once a run: before the source is planned, or where a saved plan is
        resumed before the missing shards are read.  It is left when the last shard is read and the
        records are counted, also after an error; it is not left when the driver is killed, so
        whatever it holds at the store must expire.

        Example::

            @contextmanager
            def session(self) -> Iterator[Session]:
                with connect(self.url) as store:
                    snapshot = store.create_snapshot(seconds=300)
                    try:
                        yield Session(
                            snapshot.name,
                            consistency="snapshot",
                            expires=300,
                            state={"snapshot": snapshot.name},
                        )
                    finally:
                        store.delete_snapshot(snapshot.name)

        Without it ``context.session`` is None, and each read sees the source as it is by then.

        Raises:
            SourceError: the store refused it.
            SourceUnavailable: the store did not answer.
        """
        return nullcontext(Session())

    def keep_alive(self, session: Session) -> None:
        """Tell the store that the session is still needed.

        Called on the driver, from a thread beside its work, as long as the session is open: every
        third of ``session.expires``, and never where that is None.  Must be quick.

        Example::

            def keep_alive(self, session: Session) -> None:
                with connect(self.url) as store:
                    if not store.extend_snapshot(session.id, seconds=300):
                        raise SourceError(f"{self.address} has no snapshot {session.id}", "...")

        Raises:
            SourceError: the session is lost.  The run ends; the next run enters another session.
            SourceUnavailable: the store did not answer; the driver asks again until the session
                would have expired.
        """

    @abstractmethod
    def shards(self, context: Context) -> list[Shard]:
        """Divide the source into shards of about ``shard_bytes``.

        Called on the driver, once a run, while it is planned; the plan is saved and reused on
        resume.  Must be pure: the same source and job file give the same shards with the same ids,
        whoever asks and however large the cluster is.  Every record must be in exactly one shard.
        Files that the shards refer to (lists of ids) go to ``context.scratch``.

        Example: ``[Shard(id="eu#0001", where={"from": 0, "to": 4096}, size=2**28)]``.

        Raises:
            SourceError: nothing to read, no access, or a layout that cannot be read.
            SourceUnavailable: the store did not answer.
        """

    @abstractmethod
    def read(self, shard: Shard, context: Context) -> Iterator[pa.RecordBatch | Reject]:
        """Read one shard as a stream.

        Called on a worker, once a shard and again from the start after any failure; on the driver
        to sample two or three shards, whose stream is then dropped half-read.  Opens and closes the
        client that it needs.  Has no effect besides reading.

        Every record comes exactly once, in a batch or as a Reject, in an order that a repetition
        repeats: a record's number in that order is part of its identity in the ledger.  Batches are
        bounded in bytes (``context.batch_bytes``), not in rows, and are yielded as they come: a
        shard need not fit into memory.  A record above ``context.max_record`` is never loaded
        whole, it becomes a Reject.

        Under a session that is lost it raises, and never reads the source as it is by then.

        Raises:
            SourceError: terminal: a file that changed since the plan, bytes that are not the
                format, a session that is lost.
            SourceUnavailable: transient: the caller will read the whole shard again.
        """

    def describe(self, context: Context, shards: list[Shard]) -> Description:
        """Say what can be known without reading the records: schema, rows, consistency, notes.

        Called on the driver, once a run, right after ``shards`` and with its result.  Must be pure
        and cheap: a few requests, no scan.

        Without it the records have no fixed schema, the rows are known only where every shard knows
        them, and the report says that reading guarantees no consistency.

        Raises:
            SourceError: no access.
            SourceUnavailable: the store did not answer.
        """
        counts = [shard.rows for shard in shards]
        exact = all(rows is not None for rows in counts)
        return Description(
            schema=None,
            rows=sum(rows or 0 for rows in counts) if exact else None,
            exact=exact,
            size=sum(shard.size for shard in shards),
            consistency="none",
        )

    def count(self, context: Context) -> int | None:
        """Count the records that a read would give now.

        Called on the driver, once a run, after the last shard was read, if ``is_remote``.  The
        count must be exact and come from the store, not from what was read: it is what shows that
        a read lost rows.

        Without it, or with None, the report says that the check did not run.

        Raises:
            SourceError: the store cannot count, or did not answer; the check then did not run.
        """
        return None

    def marks(self, context: Context) -> dict[str, str] | None:
        """Mark the state of each file or source collection: a mark differs if it was written to.

        Called on the driver, once while a run is planned, and by each later command that asks
        whether the source has gone on since.  Must be cheap: a listing, a counter that the store
        keeps; no record is read.  A mark is a few words that an operator understands.

        Without it, or with None, only ``count`` tells whether the source has gone on.

        Raises:
            SourceError: the source is gone, or did not answer.
        """
        return None

    def count_in(self, names: list[str], context: Context) -> dict[str, int | None]:
        """Count the records of files or source collections that appeared since the plan.

        Called on the driver, with names of ``marks``.  None, and a name that is left out, means
        that they would have to be read to be counted.

        Without it nothing is counted.

        Raises:
            SourceError: the source is gone, or did not answer.
        """
        return {}

    def shards_of(self, appeared: list[str], planned: int, context: Context) -> list[Shard]:
        """Divide the files or source collections that appeared since the plan, as ``shards`` does.

        Called on the driver by ``migrate --extend``.  No id may be that of a planned shard.

        Args:
            appeared: names of ``marks`` that the plan does not have.
            planned: shards of the plan.
            context: as of ``shards``.

        Raises:
            SourceError: what appeared cannot be read beside what was planned; or, which is the
                default, records of this source do not come as files that appear.
        """
        raise SourceError(
            f"a source of the kind {self.kind} does not grow by files",
            "migrate it into a new target.uri",
        )

    def shards_since(self, earlier: list[Shard], context: Context) -> list[Shard]:
        """Divide the source as it is now, along the lines of an earlier division where they hold.

        Called on the driver by ``cfray sync``, instead of ``shards``.  A shard that the source has
        not written to keeps its id and its ``where``, so that it need not be read again.

        Without it the source is divided as ``shards`` does.

        Args:
            earlier: all shards of the last sync.
            context: as of ``shards``.

        Raises:
            SourceError: as ``shards``.
            SourceUnavailable: the store did not answer.
        """
        return self.shards(context)

    def watermark(self, shard: Shard, mark: str, context: Context) -> str | None:
        """Give a text that is another one if any record of a shard was written, or removed.

        Called on a worker by ``cfray sync``, before a shard is read.  Where id, ``where`` and
        watermark are those of the last sync, the shard is not read.  So it must not depend on what
        an application keeps in its records, and a write that it might not show must make it None.

        Without it, or with None, the shard is read.

        Args:
            shard: of the source as it is divided now.
            mark: what ``marks`` said of the shard's source collection, both before and after the
                session was entered; empty where it said nothing, or another thing afterwards.
            context: of the run.

        Raises:
            SourceError: as ``read``.
            SourceUnavailable: the store did not answer.
        """
        return None

    def is_lasting(self, item: pa.RecordBatch | Reject) -> bool:
        """Tell whether ``read`` gives this again as long as the shard has the same watermark.

        Called on a worker by ``cfray sync``, with each item of a read.  A shard of which an item is
        not lasting (a document that took too long on a busy machine) is read again.

        Without it every item is.
        """
        return True

    def would_read(self, target: str) -> bool:
        """Tell whether a listing of this source would see the files of a target.

        Called on the driver while a run is planned.  Such a target is refused: its files would be
        files that have appeared at the source.

        Without it that is a target in the folder that ``uri`` names.

        Args:
            target: path or URI; the folder beside it has ``.cfray`` behind this.

        Raises:
            SourceUnavailable: the store did not answer.
        """
        uri = getattr(self, "uri", None)
        return uri is not None and filesystems.path_below(target, uri) is not None

    def search(
        self, collection: str, vector: list[float], k: int, where: FieldEquals | None = None
    ) -> list[str]:
        """Find the k nearest records of a source collection, nearest first.

        Called on the driver, for some hundred vectors, by ``baseline`` and ``verify --parity``.
        May be repeated, and changes nothing at the store.

        Returns:
            Ids with their type's tag, as the target keeps them: ``i:42``.

        Raises:
            SourceError: the store has no search, which is the default, or did not answer.
            CannotFilter: it cannot compare the field of ``where`` exactly.
        """
        raise SourceError(
            f"source kind {self.kind} has no vector search of its own",
            "compare search quality with a store that has one",
        )

    def search_words(
        self, collection: str, words: str, field: tuple[str, ...], k: int
    ) -> list[str]:
        """Find the k records of a source collection that match some words best, best first.

        Called as ``search`` is.

        Args:
            collection: source collection.
            words: separated by spaces; a record need not hold all of them.
            field: path of the field that is searched.
            k: records to find.

        Returns:
            Ids with their type's tag, as the target keeps them: ``i:42``.

        Raises:
            CannotSearchWords: the field is not searched by words, or the store has no such search
                that cfray knows, which is the default.
            SourceError: the store did not answer.
        """
        raise CannotSearchWords(
            f"cfray does not search a source of the kind {self.kind} by words",
            "compare such searches by hand",
        )
