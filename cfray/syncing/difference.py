"""The difference between source and target: every shard of the source as it is now, compared.

The target's rows are written down so that workers can look them up (``known``), the source is
divided anew, and each shard is compared in a task (``shard``).  What no shard has seen has left the
source.  Nothing is committed here.

A shard of which the source says that nothing was written to it since the last sync is not read:
what its records became is known (``watermarks``).

A comparison that was killed goes on where it ended, if the source's marks show that nothing was
written to it since; a source without marks is read again from the start.
"""

from __future__ import annotations

import platform
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from cfray.conversion.steps import Steps
from cfray.copying.driver import context_of, in_order_of_columns
from cfray.copying.uuid_search import KEY
from cfray.copying.write import new_nonce
from cfray.embedding.joining_frames import joining_job
from cfray.embedding.pieces import state_of
from cfray.engine import failpoint, throttle
from cfray.engine.tasks import TaskOptions, run_tasks
from cfray.errors import ConfigError, SourceError, TargetError
from cfray.frames.digests import MODULUS
from cfray.proving.compared import made_columns
from cfray.report.run import Run
from cfray.runtime.plurals import counted
from cfray.sources.base import Context, Session, Shard
from cfray.syncing.folder import ComparisonFolder, RowIds
from cfray.syncing.known import CHUNK, DELETED, Compared, KnownRows, key_bytes, scan_known_rows
from cfray.syncing.shard import ComparedShard, CompareShard, ShardOutcome
from cfray.syncing.watermarks import Watermarks
from cfray.target.ledger import Ledger
from cfray.target.origins import RowOrigins
from cfray.target.quarantine_counts import SAME_IDENTITY

#: Rounds in which shards are read again whose records repeat an identity of an earlier shard: one
#: is enough where nobody writes to the source meanwhile.
_ROUNDS = 5
#: Beginning of the name of a folder in ``scratch/`` whose comparison is of use to nobody later.
FOLDER_PREFIX = "compare-"
#: Of an array of the kinds of rows: cfray has no row of this id.
_NO_ROW = 0


@dataclass(frozen=True, slots=True)
class Difference:
    """How a source differs from its target.

    Attributes:
        files: of the comparison.
        outcomes: of the shards, in their order.
        shards: as the source is divided now.
        session: of the source.
        marks: of the source, taken before it was read; empty where it has none.
        known: rows of the target.
        compared: the columns that were compared.
        kinds: ``(highest row id + 2,)`` kinds of the target's rows, 0 where cfray has none.
        kept: ``(highest row id + 2,)`` which rows of the target are the same in the source.
        changed_rows: row ids of the target's documents in whose place others come.
        unfit_rows: row ids of the target's documents whose records fit no longer.
        gone_rows: row ids of the target's documents that the source has no more.
        counted: records that the source says that it has, before it was read and after; None: it
            does not say.
    """

    files: ComparisonFolder
    outcomes: list[ShardOutcome]
    shards: list[Shard]
    session: Session
    marks: dict[str, str]
    known: KnownRows
    compared: Compared
    kinds: npt.NDArray[np.uint8]
    kept: npt.NDArray[np.bool_]
    changed_rows: RowIds
    unfit_rows: RowIds
    gone_rows: RowIds
    counted: tuple[int | None, int | None]

    @property
    def read(self) -> int:
        """Count the records of the source."""
        return sum(outcome.read for outcome in self.outcomes)

    @property
    def quarantined(self) -> int:
        """Count the records that do not fit, or repeat an identity."""
        return sum(outcome.quarantined for outcome in self.outcomes)

    @property
    def rejects(self) -> int:
        """Sum the hashes of these, modulo 2**64."""
        return sum(outcome.rejects for outcome in self.outcomes) % MODULUS

    @property
    def same(self) -> int:
        """Count the documents that are the same."""
        return sum(outcome.same for outcome in self.outcomes)

    @property
    def new(self) -> int:
        """Count the documents that the target has not."""
        return sum(outcome.new for outcome in self.outcomes)

    @property
    def changed(self) -> int:
        """Count the documents that differ."""
        return len(self.changed_rows)

    @property
    def documents(self) -> int:
        """Count the target's documents."""
        return int(np.count_nonzero((self.kinds != _NO_ROW) & (self.kinds != CHUNK)))

    @property
    def unread(self) -> int:
        """Count the shards that were not read: they are as the last sync has read them."""
        return sum(not outcome.was_read for outcome in self.outcomes)

    @property
    def unmarked_rows(self) -> RowIds:
        """Give the row ids of the gone documents that do not have the status ``deleted`` yet."""
        rows: RowIds = self.gone_rows[self.kinds[self.gone_rows.astype(np.int64)] != DELETED]
        return rows

    @property
    def gone_digest(self) -> int:
        """Sum hashes of the gone documents' keys, modulo 2**64."""
        keys = self.known.keys_of(self.gone_rows).values() if len(self.gone_rows) else ()
        return sum(map(xxhash.xxh3_64_intdigest, keys)) % MODULUS

    @property
    def counts(self) -> Counter[str]:
        """Sum what the shards counted for the report."""
        return sum((Counter(outcome.counts) for outcome in self.outcomes), Counter())

    def with_chunks(self, documents: RowIds) -> RowIds:
        """Add the chunks of some documents of the target: their row ids follow the document's."""
        is_chunk = self.kinds == CHUNK
        rows, layer = [documents], documents
        while len(layer):
            following = layer + np.uint64(1)
            layer = following[is_chunk[following.astype(np.int64)]]
            rows.append(layer)
        return np.sort(np.concatenate(rows))

    def sentence(self) -> str:
        """Say what the difference is."""
        marked = len(self.gone_rows) - len(self.unmarked_rows)
        before = f" ({marked:,} of them marked before)" if marked else ""
        unfit = f"{len(self.unfit_rows):,} fit no longer, " if len(self.unfit_rows) else ""
        return (
            f"{self.new:,} new, {self.changed:,} changed, {len(self.gone_rows):,} gone from the "
            f"source{before}, {unfit}{self.same:,} the same{self._unread_words()}"
        )

    def _unread_words(self) -> str:
        if not self.unread:
            return ""
        shards = counted(len(self.shards), "shard")
        return (
            f"; {self.unread:,} of {shards} not read: the source's watermarks say that they are as "
            "the last sync read them"
        )


def find_difference(
    run: Run, files: ComparisonFolder, *, stages: bool, remembers: bool
) -> Difference:
    """Compare the whole source with the target; read what the last sync has not read as it is.

    Args:
        run: a command; every shard of the plan is committed.
        files: of the comparison.
        stages: leave rows that differ in files, to be written into the target.
        remembers: do not read shards that are as the last sync has read them.

    Raises:
        ConfigError: nobody could see whether the vectors of the source have changed.
        SourceError: the source cannot be read, or does not give all of its records.
        TargetError: the target cannot be read.
    """
    ledger, dataset = run.target.ledger(), run.target.open()
    joining_job(run)  # refuses an embedding section that is not what made the target
    steps = Steps(run.job, in_order_of_columns(run.plan.shape, run.target), run.plan.tokenizer)
    compared = columns_to_compare(run, ledger, steps)
    marks = _marks(run)
    conversion = _conversion(run, compared)
    watermarks = Watermarks(run.state.scratch.child("watermarks"))
    if remembers:
        watermarks = Watermarks.of(watermarks.folder, conversion)
    basis = conversion | {
        # what the rows are; the number of the version rises with each run that takes the target
        "fragments": [state_of(fragment.metadata) for fragment in dataset.get_fragments()],
        "ledger": ledger.digest,
        "marks": marks,
        "stages": stages,
        "remembers": remembers,
    }
    begun = files.resume(basis) if marks else None
    if begun is None:
        files.remove()
        origins = RowOrigins(run.plan, ledger)
        known = run.timed(
            "target",
            lambda: scan_known_rows(
                run.target.uri, dataset.version, origins, compared, files.folder
            ),
        )
    else:
        known = begun.known
    with run.source_session as session, _advising_again():
        run.state.save_session(session)
        # what was written in between is in the session's view, and not in the first marks
        quiet = dict(marks.items() & _marks(run).items()) if run.job.source.is_remote else {}
        context = replace(context_of(run, session), scratch=files.folder.uri)
        work = CompareShard(
            steps,
            context,
            session.id,
            known,
            compared,
            files.folder,
            stages,
            watermarks.folder if stages or remembers else None,
        )

        def compare(shards: list[Shard], outcomes: dict[int, ShardOutcome]) -> _Comparison:
            return _Comparison(run, files, shards, work, outcomes, quiet, watermarks)

        if begun is None:
            if stages:  # a command that only looks removes nothing
                watermarks.remove_leftovers()
            shards, outcomes = _divide(run, files, context, watermarks), {}
            files.begin(basis, known, shards)
        else:
            shards, outcomes = begun.shards, begun.outcomes
        before = _count(run, context, shards)
        try:
            settled = compare(shards, dict(outcomes)).settle()
        except _IdentityRepeated:
            # which of two records is the first depends on how the source is divided
            watermarks = Watermarks(watermarks.folder)
            shards = _divide(run, files, context, watermarks)
            files.begin(basis, known, shards)
            settled = compare(shards, {}).settle()
        after = _count(run, context, shards)
    difference = Difference(
        files=files,
        outcomes=settled,
        shards=shards,
        session=session,
        marks=marks,
        known=known,
        compared=compared,
        counted=(before, after),
        **_rows(files, settled, known),
    )
    accounted = difference.same + difference.changed + difference.new + difference.quarantined
    if accounted != difference.read:
        raise TargetError(
            f"{difference.read:,} records were read, and {accounted:,} are accounted for",
            "this is a fault of cfray's; nothing was committed",
        )
    _check_count(difference)
    return difference


def _conversion(run: Run, compared: Compared) -> dict[str, Any]:
    """Name all that a row's hash depends on, beside its record."""
    return {
        "job": run.job.fingerprint,
        # more than the fingerprint has: what may change from run to run may change what is read
        "source": xxhash.xxh3_128_hexdigest(run.job.source.model_dump_json().encode()),
        "recipe": run.target.recipe().to_json(),
        "tokenizer": run.plan.tokenizer,
        "max_document": run.job.limits.max_document,
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("cfray", "pyarrow", "PyYAML")},
        },
        "compared": asdict(compared),
    }


def remember(run: Run, difference: Difference) -> None:
    """Leave what was read for the next sync, after the target has become what the source is.

    Nothing is left where records repeat an identity: which of them counts depends on all shards.
    """
    division = difference.shards
    left = {
        division[outcome.number].id: outcome.before
        for outcome in difference.outcomes
        if outcome.before is not None
    }
    if difference.counts[SAME_IDENTITY]:
        division, left = [], {}
    folder = run.state.scratch.child("watermarks")
    Watermarks(folder).replace(_conversion(run, difference.compared), division, left)


@contextmanager
def _advising_again() -> Iterator[None]:
    """Say what helps a sync whose source is not as it was divided: the next one divides it anew.

    Raises:
        SourceError: as the source raised it, with another remedy.
    """
    try:
        yield
    except SourceError as error:
        if "anew" not in error.remedy:
            raise
        raise SourceError(
            error.what, "run the same command again: it divides the source as it is then"
        ) from error


def _check_count(difference: Difference) -> None:
    """Refuse a read that lost records, or doubled them: they would leave the target.

    A source that is written to meanwhile may be off by as much as its count has moved.

    Raises:
        SourceError: the source counts other records than were read.
    """
    before, after = difference.counted
    if before is None or after is None:
        return
    slack = abs(after - before)
    if not min(before, after) - slack <= difference.read <= max(before, after) + slack:
        raise SourceError(
            f"{counted(difference.read, 'record was', 'records were')} read, but the source counts "
            f"{before:,} before and {after:,} after: nothing was committed",
            "run the same command again; if it says so again, the source does not give all of its "
            "records",
        )


@contextmanager
def compared_once(run: Run, *, remembers: bool) -> Iterator[Difference]:
    """Give the difference for the block, and leave nothing behind.

    ``remembers``: do not read shards that are as the last sync has read them.
    """
    files = ComparisonFolder(run.state.scratch.child(f"{FOLDER_PREFIX}{new_nonce()}"))
    try:
        yield find_difference(run, files, stages=False, remembers=remembers)
    finally:
        files.remove()


def columns_to_compare(run: Run, ledger: Ledger, steps: Steps) -> Compared:
    """Choose the columns that are compared.

    Raises:
        ConfigError: the target's vectors were made of the source's.
    """
    made, embedding = made_columns(run, ledger), run.job.embedding
    if made and embedding.policy == "keep":
        raise ConfigError(
            "embedding.reduce or embedding.columns made the vectors of this target of the "
            "source's, and nobody could tell whether a vector of the source has changed",
            "migrate into a new target.uri",
        )
    columns = [name for name in steps.schema.names if name not in made | {"uuid"}]
    texts = {"text_content", *(column.of for column in embedding.columns.values())} - {"vector"}
    return Compared(columns, sorted(texts) if made else [])


def _marks(run: Run) -> dict[str, str]:
    """Mark the source before the session in which it is read: no write falls between them."""
    source = run.job.source
    budget = throttle.local_budget(source)
    return source.marks(Context(max_record=run.job.limits.max_document, throttle=budget)) or {}


def _count(run: Run, context: Context, shards: Sequence[Shard]) -> int | None:
    """Ask a store for its count, or files that say how many records they hold."""
    source = run.job.source
    if not source.is_remote:
        rows = [shard.rows for shard in shards]
        return None if None in rows else sum(filter(None, rows))
    return source.count(replace(context, throttle=throttle.local_budget(source)))


def _divide(
    run: Run, files: ComparisonFolder, context: Context, watermarks: Watermarks
) -> list[Shard]:
    """Divide the source as it is now; what it writes down for its shards goes to the folder."""
    source = run.job.source
    with tempfile.TemporaryDirectory(prefix="cfray-plan-") as scratch:
        budget = throttle.local_budget(source)
        local = replace(context, scratch=scratch, throttle=budget)
        earlier = list(watermarks.division.values())
        shards = source.shards_since(earlier, local) if earlier else source.shards(local)
        for path in sorted(Path(scratch).iterdir()):
            files.folder.publish(path.name, path.read_bytes())
    return sorted(shards, key=lambda shard: shard.id)


class _IdentityRepeated(Exception):
    """Records repeat an identity, and the source is not divided as a migration divides it."""


@dataclass(frozen=True, slots=True)
class _Comparison:
    """Shards of the source on their way to outcomes.

    Attributes:
        outcomes: number of a shard -> what came of it so far.
        quiet: marks of source collections to which nobody wrote while the session was entered.
        watermarks: of the last sync.
    """

    run: Run
    files: ComparisonFolder
    shards: list[Shard]
    work: CompareShard
    outcomes: dict[int, ShardOutcome]
    quiet: dict[str, str]
    watermarks: Watermarks

    def settle(self) -> list[ShardOutcome]:
        """Compare all shards; those with records of an identity of earlier shards, once more.

        Raises:
            _IdentityRepeated: there are such records, and some shard was not read.
        """
        numbers = range(len(self.shards))
        missing = [number for number in numbers if number not in self.outcomes]
        self._read([self._to_compare(number) for number in missing])
        elsewhere: dict[int, dict[bytes, str]] = defaultdict(dict)
        for _ in range(_ROUNDS):
            ordered = [self.outcomes[number] for number in numbers]
            repeats = self._repeats(ordered)
            if not repeats:
                return ordered
            if self.watermarks.division:
                raise _IdentityRepeated
            for number, places in repeats.items():
                elsewhere[number] |= places
            self._read(
                [
                    ComparedShard(number, self.shards[number], elsewhere[number])
                    for number in repeats
                ]
            )
        raise SourceError(
            "records move between the parts of the source while it is read",
            "run the same command again when less is written to the source",
        )

    def _to_compare(self, number: int) -> ComparedShard:
        shard = self.shards[number]
        mark = self.quiet.get(shard.collection, "")
        return ComparedShard(number, shard, mark=mark, before=self.watermarks.find(shard))

    def _read(self, shards: Sequence[ComparedShard]) -> None:
        limits, figures = self.run.job.limits, self.run.report.stage("source")
        options = TaskOptions(
            memory=None if limits.memory == "auto" else limits.memory,
            max_tasks=None if limits.workers == "auto" else limits.workers,
        )
        for outcome in run_tasks(self.work, shards, options):
            self.run.source_session.check()
            self.outcomes[outcome.number] = outcome
            self.files.save(outcome)
            figures.rows += outcome.read if outcome.was_read else 0
            failpoint.reach("compared")

    def _repeats(self, outcomes: Sequence[ShardOutcome]) -> dict[int, dict[bytes, str]]:
        """Find records whose identity an earlier shard has.

        Returns:
            number of a shard -> key of a record of it -> shard that has the first.
        """
        repeats: dict[int, dict[bytes, str]] = defaultdict(dict)
        kinds = kinds_of_rows(self.work.known)
        owners = np.full(len(kinds), -1, np.int32)
        new_keys, new_owners = [np.empty(0, KEY)], [np.empty(0, np.int32)]
        for outcome in outcomes:
            seen = self.files.seen_by(outcome)
            rows = np.concatenate([seen.kept, seen.changed]).astype(np.int64)
            rows = rows[kinds[rows] != CHUNK]
            repeated = rows[owners[rows] >= 0]
            for row, key in self._keys(repeated).items():
                repeats[outcome.number][key] = self.shards[int(owners[row])].id
            owners[rows[owners[rows] < 0]] = outcome.number
            new_keys.append(seen.new["key"])
            new_owners.append(np.full(len(seen.new), outcome.number, np.int32))
        keys, numbers = np.concatenate(new_keys), np.concatenate(new_owners)
        order = np.argsort(keys, kind="stable")
        keys, numbers = keys[order], numbers[order]
        for place in (np.flatnonzero(keys[1:] == keys[:-1]) + 1).tolist():
            first = int(np.searchsorted(keys, keys[place]))
            shard = self.shards[int(numbers[first])]
            repeats[int(numbers[place])][key_bytes(keys[place])] = shard.id
        return repeats

    def _keys(self, rows: npt.NDArray[np.int64]) -> dict[int, bytes]:
        return self.work.known.keys_of(rows.astype(np.uint64)) if len(rows) else {}


def kinds_of_rows(known: KnownRows) -> npt.NDArray[np.uint8]:
    """Give the kind of each row id of the target, and of the one behind; 0 where cfray has none."""
    parts = [rows for _, rows in known.opened]
    kinds = np.zeros(max((int(rows["row_id"].max()) + 2 for rows in parts), default=1), np.uint8)
    for rows in parts:
        kinds[rows["row_id"].astype(np.int64)] = rows["kind"]
    return kinds


def _rows(
    files: ComparisonFolder, outcomes: Sequence[ShardOutcome], known: KnownRows
) -> dict[str, npt.NDArray[Any]]:
    """Tell the target's rows that are the same, its documents that changed, and those gone."""
    kinds = kinds_of_rows(known)
    kept = np.zeros(len(kinds), np.bool_)
    changed, unfit = [np.empty(0, np.uint64)], [np.empty(0, np.uint64)]
    for outcome in outcomes:
        seen = files.seen_by(outcome)
        kept[seen.kept.astype(np.int64)] = True
        changed.append(seen.changed)
        unfit.append(seen.unfit)
    changed_rows = np.concatenate(changed)
    is_gone = (kinds != _NO_ROW) & (kinds != CHUNK) & ~kept
    is_gone[changed_rows.astype(np.int64)] = False
    # of two records with one id, one may fit
    unfit_rows = np.unique(np.concatenate(unfit))
    unfit_rows = unfit_rows[is_gone[unfit_rows.astype(np.int64)]]
    is_gone[unfit_rows.astype(np.int64)] = False
    return {
        "kinds": kinds,
        "kept": kept,
        "changed_rows": changed_rows,
        "unfit_rows": unfit_rows,
        "gone_rows": np.flatnonzero(is_gone).astype(np.uint64),
    }
