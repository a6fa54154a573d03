"""The whole corpus against its source: every shard is read again and compared with the target.

What the source gives now must be what the copy was given (the sums of the receipts), and what
the target holds must be what was written (``verify``, the sums of the books): where both hold,
source and target are the same, and no row was compared by itself.  Where one of them does not
hold, the rows of that shard are compared one by one (``differences``).

A difference is damage where the target is not what was written, or where the source has
certainly not been written to since: then the check fails.  Else it may be the source that has
gone on, and the check is left undecided.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice

import numpy as np

from cfray.copying.driver import context_of
from cfray.copying.shard import PlannedShard
from cfray.engine import failpoint
from cfray.engine.tasks import TaskOptions, run_tasks
from cfray.errors import ConfigError, SourceError, SourceUnavailable
from cfray.frames.digests import MODULUS
from cfray.frames.schema import ORIGINAL_ID
from cfray.joining.headers import expected_headers
from cfray.joining.quarantine import rows_of_file
from cfray.proving.compared import entries_of_shard, left_for_quarantine, made_columns
from cfray.proving.differences import (
    MAX_NAMED,
    Difference,
    RowComparison,
    ShardDifferences,
    Suspect,
    metadata_of,
)
from cfray.proving.note_differences import note_differences
from cfray.proving.read_source import (
    SourceContent,
    SourceReader,
    read_shard_again,
    steps_of_copy,
)
from cfray.proving.read_target import FOREIGN, EntryName, Fragments
from cfray.proving.shards_compared import ShardsCompared
from cfray.proving.verify import TargetFindings
from cfray.report.names import AGAINST_SOURCE, SAMPLE_AGAINST_SOURCE
from cfray.report.run import Run, earlier_reports, said_by
from cfray.runtime.plurals import counted
from cfray.sources.base import Context
from cfray.target.books import Books, read_books
from cfray.target.ledger import EntryKind
from cfray.target.origins import RowOrigins, entry_label
from cfray.target.receipts import ShardReceipt

#: Sentences of the check's detail.
_IN_DETAIL = 5


@dataclass(slots=True)
class _Comparison:
    """What a comparison with the source has found so far.

    Attributes:
        damage: sentences about what is certainly wrong.
        open_questions: sentences about what could not be decided.
        differences: rows that are not the same.
        records: that the shards hold which were compared.
        shards: that were compared.
        resumed: of these, the shards that a run compared which did not come to its end.
        resumed_since: when that run began.
    """

    damage: list[str] = field(default_factory=list)
    open_questions: list[str] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    records: int = 0
    shards: int = 0
    resumed: int = 0
    resumed_since: str = ""

    def name(self, rows: Iterable[Difference]) -> None:
        """Note rows that are damaged."""
        named = list(rows)
        self.differences += named
        self.damage += [str(row) for row in named]


def compare_with_source(
    run: Run, found: TargetFindings, *, sample: int | None = None
) -> dict[str, str] | None:
    """Read the source again, compare every record with the target, and note what came of it.

    Args:
        run: a command that looks at the target.
        found: by the checks at the ledger level.
        sample: compare whole shards, drawn at random, that hold this many records; None: all.

    Returns:
        name of a shard's entry -> how the source is unlike what was copied from it; None where the
        source could not be read.
    """
    comparison = _Comparison()
    name = AGAINST_SOURCE if sample is None else SAMPLE_AGAINST_SOURCE
    if found.missing_columns:
        names = ", ".join(found.missing_columns)
        run.report.leave_undecided(name, f"the target lacks columns to compare: {names}")
        return None
    try:
        unlike = _compare(run, found, comparison, sample)
    except (SourceError, ConfigError) as error:
        run.report.leave_undecided(name, f"the source cannot be read: {error.what}")
        return None
    note_differences(run, comparison.differences)
    if comparison.damage:
        # a single difference is one too many for every record, also where a sample showed it
        run.report.check(AGAINST_SOURCE, "fail", _named(comparison.damage))
        return unlike
    if comparison.open_questions:
        run.report.leave_undecided(name, _named(comparison.open_questions))
    else:
        detail = "; ".join([_compared(run, comparison), *_not_compared(run)])
        run.report.check(name, "pass", detail)
    if sample is not None:
        leave_out_source(run)
    return unlike


def leave_out_source(run: Run) -> None:
    """Say that a command did not compare the records with the source, and what is known of that.

    A difference that was found stays a failure until something is committed, or the source is
    compared again.
    """
    ledger = run.target.ledger()
    for report in earlier_reports(run):
        made = [
            check
            for check in report.checks
            if check.name == AGAINST_SOURCE
            and (check.status != "not_run" or AGAINST_SOURCE in report.undecided)
        ]
        if not made:
            continue
        past = said_by(report, made[0].detail)
        if made[0].status == "fail" and report.ledger_digest == ledger.digest:
            run.report.check(AGAINST_SOURCE, "fail", past)
        else:
            run.report.check(AGAINST_SOURCE, "not_run", f"not made now; {past}")
        return
    run.report.check(
        AGAINST_SOURCE, "not_run", "cfray verify --against source reads the source again"
    )


def _compare(
    run: Run, found: TargetFindings, comparison: _Comparison, sample: int | None
) -> dict[str, str]:
    """Compare; give the shards that are unlike."""
    ledger = run.target.ledger()
    books = read_books(run.state, ledger)
    receipts = books.shards if sample is None else _draw_shards(books.shards, sample)
    fragments = partial(_fragments_of, run, found, RowOrigins(run.plan, ledger))
    with run.source_session as session:
        reader = SourceReader(steps_of_copy(run), context_of(run, session))
        marks = _marks(run, reader.context)
        basis = {"ledger": ledger.digest, "marks": marks}
        # a sample is drawn anew each time, and read as a whole
        progress = ShardsCompared.resume(run.state, basis) if sample is None else None
        unlike, unreadable = _read_shards_again(run, reader, receipts, progress)
        left = left_for_quarantine(run, ledger, books)
        suspects = [
            Suspect(
                planned := _planned(run, receipt.name),
                entries := entries_of_shard(books, receipt.name),
                fragments(entries),
                left.get(planned.shard.id, {}),
            )
            for receipt in receipts
            if receipt.name not in unreadable
            and (receipt.name in unlike or _is_damaged(found, books, receipt.name))
        ]
        rows = RowComparison(reader, made_columns(run, ledger) | {"raw_data"})
        results = _without_moved(list(run_tasks(rows, suspects, _task_options(run))))
    comparison.shards, comparison.records = len(receipts), sum(item.read for item in receipts)
    if progress is not None:
        comparison.resumed, comparison.resumed_since = progress.resumed, progress.began
    is_as_planned = _is_as_planned(run, marks)
    for name, words in unlike.items():
        if not _is_damaged(found, books, name):
            _judge(
                comparison, run.plan.shards[int(name)].id, words, results.get(name), is_as_planned
            )
    _judge_target(run, found, books, results, comparison)
    headers = EntryName(EntryKind.HEADERS.value)
    if headers in found.damaged:
        comparison.name(_missing_headers(run, books, fragments(frozenset([headers]))))
    foreign = frozenset([FOREIGN])
    comparison.name(_rows_of_entry(fragments(foreign), foreign))
    missing = len(run.plan.shards) - len(books.shards)
    if missing:
        comparison.open_questions.append(f"{counted(missing, 'shard is', 'shards are')} not copied")
    if progress is not None:
        progress.forget()
    return unlike


def _is_damaged(found: TargetFindings, books: Books, shard: str) -> bool:
    """Tell whether the target does not hold a shard as it was written."""
    return bool(entries_of_shard(books, shard) & found.damaged.keys())


def _judge_target(
    run: Run,
    found: TargetFindings,
    books: Books,
    results: dict[str, ShardDifferences],
    comparison: _Comparison,
) -> None:
    """Note what is damaged in the target, and the rows that show it."""
    ledger = run.target.ledger()
    for entry, words in found.damaged.items():
        label = entry_label(run.plan, entry, ledger.entries[entry].kind)
        comparison.damage.append(f"{label} {words}")
    for name, result in results.items():
        if _is_damaged(found, books, name):
            comparison.name(result.named)
            if not result.named and not result.unnamed and not made_columns(run, ledger):
                shard = run.plan.shards[int(name)].id
                comparison.damage.append(
                    f"{shard}: every row is as in the source; its receipt says otherwise"
                )
            if result.unnamed:
                comparison.damage.append(_unnamed(run.plan.shards[int(name)].id, result))


def _draw_shards(receipts: Sequence[ShardReceipt], sample: int) -> list[ShardReceipt]:
    """Draw shards until they hold as many records; other ones each time."""
    order = np.random.default_rng().permutation(len(receipts)).tolist()
    drawn: list[int] = []
    records = 0
    for number in order:
        if records >= sample:
            break
        drawn.append(number)
        records += receipts[number].read
    return [receipts[number] for number in sorted(drawn)]


def _read_shards_again(
    run: Run,
    reader: SourceReader,
    receipts: Sequence[ShardReceipt],
    progress: ShardsCompared | None,
) -> tuple[dict[str, str], set[str]]:
    """Read committed shards of the source again, but those that are known to be alike.

    Returns:
        name of an entry -> how the source is unlike what was copied; those of them that cannot be
        read any more.
    """
    known = progress.alike if progress is not None else {}
    receipt_of = {receipt.name: receipt for receipt in receipts if receipt.name not in known}
    shards = [_planned(run, name) for name in receipt_of]
    figures = run.report.stage("source check")
    unlike: dict[str, str] = {}
    unreadable: set[str] = set()
    for content in run_tasks(partial(read_shard_again, reader), shards, _task_options(run)):
        run.source_session.check()
        name = str(content.number)
        figures.rows += content.read
        if words := _unlike(run, receipt_of[name], content):
            unlike[name] = words
        elif progress is not None:
            progress.add(name, content.read)
        if content.error:
            unreadable.add(name)
        failpoint.reach("compared")
    return unlike, unreadable


def _planned(run: Run, name: str) -> PlannedShard:
    return PlannedShard(int(name), run.plan.shards[int(name)])


def _task_options(run: Run) -> TaskOptions:
    limits = run.job.limits
    return TaskOptions(
        memory=None if limits.memory == "auto" else limits.memory,
        max_tasks=None if limits.workers == "auto" else limits.workers,
    )


def _unlike(run: Run, receipt: ShardReceipt, content: SourceContent) -> str:
    """Say how a shard of the source is unlike what the copy was given; empty where it is not."""
    if content.error:
        return content.error
    if content.read != receipt.read:
        return f"gives {counted(content.read, 'record')} now, {receipt.read:,} were read"
    if content.refused != receipt.quarantined:
        refused = counted(content.refused, "record")
        return f"has {refused} that do not fit, {receipt.quarantined:,} were quarantined"
    if content.refused:
        file, count = receipt.quarantine_file, receipt.quarantined
        rejects = sum(row.content.digest for row in rows_of_file(run.state, file, count))
        if rejects % MODULUS != content.rejects:
            return "has other records that do not fit than those in quarantine"
    groups = [
        group for group, total in receipt.sums.items() if content.rows.sums.get(group) != total
    ]
    if receipt.raw_sum not in (None, content.raw_sum):
        groups.append("bytes of raw_data")
    return f"gives other values than were read: {', '.join(groups)}" if groups else ""


def _marks(run: Run, context: Context) -> dict[str, str]:
    """Mark the state of the source; empty where it has no marks, or its files are gone."""
    try:
        return run.job.source.marks(context) or {}
    except SourceUnavailable:
        raise
    except SourceError:  # each shard says for itself that it cannot be read
        return {}


def _is_as_planned(run: Run, marks: dict[str, str]) -> bool:
    """Tell whether the source would certainly give the records that it gave when it was copied.

    Files are pinned: a file that was written again since cannot be read as the planned one.
    """
    source = run.job.source
    if not source.is_remote:
        return source.is_repeatable
    return bool(run.plan.marks) and marks == run.plan.marks


def _judge(
    comparison: _Comparison,
    shard: str,
    words: str,
    result: ShardDifferences | None,
    is_as_planned: bool,  # a fact of the source, like the others
) -> None:
    """Judge a shard that the target holds as it was written, and that the source gives otherwise.

    ``result``: of comparing its rows; None where the source cannot be read any more.
    """
    if result is None:
        comparison.open_questions.append(f"{shard} cannot be read again: {words}")
        return
    comparison.differences += result.named
    if result.moved and not result.named and not result.unnamed:
        return  # its rows are the same, and stand in other shards of the source now
    sentences = [f"{shard} {words}", *(str(row) for row in result.named)]
    if result.unnamed:
        sentences.append(_unnamed(shard, result))
    if is_as_planned:
        comparison.damage += sentences
    else:
        comparison.open_questions += sentences


def _unnamed(shard: str, result: ShardDifferences) -> str:
    return f"and {counted(result.unnamed, 'further row')} of {shard}"


def _without_moved(results: list[ShardDifferences]) -> dict[str, ShardDifferences]:
    """Leave out rows that are the same in source and target, and stand in another shard now."""
    sides = {
        side: Counter(
            (row.uuid, row.row) for result in results for row in result.named if row.side == side
        )
        for side in ("source", "target")
    }
    in_both = sides["source"] & sides["target"]
    moved = {side: in_both.copy() for side in sides}
    kept: dict[str, ShardDifferences] = {}
    for result in results:
        named: list[Difference] = []
        for row in result.named:
            remaining = moved.get(row.side, Counter())
            if remaining[row.uuid, row.row] > 0:
                remaining[row.uuid, row.row] -= 1
            else:
                named.append(row)
        moved_rows = len(result.named) - len(named)
        kept[str(result.number)] = replace(result, named=named, moved=moved_rows)
    return kept


def _fragments_of(
    run: Run, found: TargetFindings, origins: RowOrigins, entries: frozenset[EntryName]
) -> Fragments:
    """Give the fragments that hold rows of some entries and can be read."""
    ids = {number for entry in entries for number in found.content.fragments.get(entry, ())}
    return Fragments(run.target.uri, found.version, sorted(ids), origins)


def _rows_of_entry(fragments: Fragments, entries: frozenset[EntryName]) -> Iterator[Difference]:
    """Name the rows of entries that have no shard, as rows that only the target has."""
    batches = fragments.rows_of(entries, ["uuid", "custom_metadata"])
    singles = (rows.slice(row, 1) for _, _, rows in batches for row in range(rows.num_rows))
    for single in islice(singles, MAX_NAMED):
        original_id = metadata_of(single).get(ORIGINAL_ID, "")
        yield Difference(single.column("uuid")[0].as_py(), original_id, "", "target")


def _missing_headers(run: Run, books: Books, fragments: Fragments) -> list[Difference]:
    """Name the headers that the target does not have."""
    name = EntryName(EntryKind.HEADERS.value)
    present = {row.uuid for row in _rows_of_entry(fragments, frozenset([name]))}
    return [
        Difference(uuid, f"the header of {title}", name, "source")
        for uuid, title in expected_headers(run, books).items()
        if uuid not in present
    ]


def _compared(run: Run, comparison: _Comparison) -> str:
    """Say what was compared."""
    counts = run.report.counts
    planned = len(run.plan.shards)
    shards = counted(comparison.shards, "shard")
    if comparison.shards < planned:
        shards = f"{comparison.shards:,} of {counted(planned, 'shard')}, drawn at random,"
    text = (
        f"{counted(comparison.records, 'record')} of {shards} read again, converted and compared "
        "by hash"
    )
    if comparison.resumed:
        text += (
            f"; {counted(comparison.resumed, 'shard')} of them by a comparison that began at "
            f"{comparison.resumed_since} and was stopped"
        )
    if counts["quarantined"] or counts.get("replayed"):
        text += "; records that do not fit compared with those in quarantine"
    return text


def _not_compared(run: Run) -> Iterator[str]:
    """Say which values were not compared with the source, and what is known of them."""
    embedding = run.job.embedding
    if embedding.policy == "regenerate":
        yield "vectors are the model's: only compared with what cfray made"
    elif embedding.makes_vectors:
        yield (
            "the source's vectors compared with what was copied, those that cfray made of them "
            "with what was made"
        )
    shards = read_books(run.state, run.target.ledger()).shards
    if run.job.mapping.raw_data is not None and any(item.raw_sum is None for item in shards):
        yield "bytes of raw_data: only compared with the digests of their files"
    if run.report.counts.get("replayed"):
        replayed = counted(run.report.counts["replayed"], "record")
        yield f"{replayed} of a replay: compared with what the replay wrote"


def _named(sentences: list[str]) -> str:
    further = len(sentences) - _IN_DETAIL
    more = [f"and {further:,} more"] if further > 0 else []
    return "; ".join([*sentences[:_IN_DETAIL], *more])
