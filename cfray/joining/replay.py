"""The quarantine: rows that did not fit, listed, and tried again with the mapping as it is now.

A replay converts the records that were set aside.  The records that fit now come in as a
pseudo-shard, in one commit that also states which lines of the quarantine it brought in:
a replay that is killed and run again brings each row in once.  Quarantine files
themselves never change.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from cfray.conversion import chunks
from cfray.conversion.convert import Conversion
from cfray.conversion.embed import Embed
from cfray.conversion.rejects import RejectedRow, row_from_text
from cfray.copying.write import Tally, new_nonce, publish, write_frames
from cfray.errors import ConfigError, TargetError
from cfray.records.record import file_of
from cfray.runtime.plurals import counted
from cfray.target.books import read_books
from cfray.target.commit import Target, commit
from cfray.target.documents import RESTORE, parse_document
from cfray.target.ledger import EntryKind, Ledger
from cfray.target.quarantine_counts import count_name
from cfray.target.receipts import ReplayReceipt
from cfray.target.state import Plan, State

#: Rows converted at once, and uuids looked up at once.
_BATCH_ROWS = 1000


@dataclass(frozen=True, slots=True)
class QuarantinedRow:
    """A row in quarantine.

    Attributes:
        folder: of the quarantine.
        file: name of the row's file.
        line: number of the row's line, from 0.
        content: the row.
    """

    folder: str
    file: str
    line: int
    content: RejectedRow

    @property
    def location(self) -> str:
        """Name the row's line for a message; people count lines from 1."""
        return f"{self.folder}/{self.file}, line {self.line + 1},"

    @property
    def record(self) -> pa.RecordBatch:
        """Read the record as its source gave it, a batch of one row.

        Raises:
            TargetError: the line is damaged.
        """
        text = self.content.record.encode()
        return parse_document(text, self.location, lambda data: row_from_text(data.decode()))


#: A record that fits now: its row in quarantine, and its frame with the chunks behind it.
RepairedRow = tuple[QuarantinedRow, pa.RecordBatch]


def quarantined_rows(state: State, ledger: Ledger) -> Iterator[QuarantinedRow]:
    """Yield the rows of committed entries that no replay has brought in yet.

    Raises:
        TargetError: a quarantine file or a receipt is missing or damaged.
    """
    books = read_books(state, ledger)
    for file, row_count in books.quarantine_files.items():
        replayed_lines = books.replayed.get(file, set())
        for row in _rows_of_file(state, file, row_count):
            if row.line not in replayed_lines:
                yield row


def _rows_of_file(state: State, file: str, row_count: int) -> Iterator[QuarantinedRow]:
    folder = state.quarantine.uri
    data = state.quarantine.read(file)
    if data is None:
        raise TargetError(f"{folder}/{file} is missing", RESTORE)
    lines = data.splitlines()
    if len(lines) != row_count:
        raise TargetError(
            f"{folder}/{file} is damaged: it has {len(lines):,} lines, and {row_count:,} rows were "
            "quarantined",
            RESTORE,
        )
    for number, line in enumerate(lines):
        location = f"{folder}/{file}, line {number + 1},"
        content = parse_document(line, location, RejectedRow.from_line)
        yield QuarantinedRow(folder, file, number, content)


def check_replayable(plan: Plan, target: Target) -> None:
    """Refuse a replay on a target whose copy is not finished.

    The target accepts the job of a replay; a copy that went on with it would mix two mappings.

    Raises:
        ConfigError: shards or headers are missing.
    """
    ledger = target.ledger()
    missing_shards = len(plan.shards) - len(ledger.names(EntryKind.SHARD))
    if missing_shards or EntryKind.HEADERS not in ledger.entries:
        raise ConfigError(
            f"{target.uri} is not finished ({counted(missing_shards, 'shard is', 'shards are')} "
            "missing)",
            "run cfray migrate with the target's own job file first",
        )


def replay_quarantined(embed: Embed, target: Target, state: State) -> int:
    """Try every quarantined row again; commit those that fit now.

    The target accepts the job that was tried, whether a row fits or not: it can be verified with
    this job afterwards.

    Returns:
        how many records came in.

    Raises:
        CfrayError: nothing of this replay was committed.
    """
    job, ledger = embed.job, target.ledger()
    conversion = Conversion(job, embed.shape)
    repaired: list[RepairedRow] = []
    for rows in _groups(quarantined_rows(state, ledger)):
        repaired += _repair(conversion, embed, rows)
    repaired = _without_known_identities(target, repaired)
    if not repaired:
        if job.fingerprint not in ledger.fingerprints:
            state.remember_job(job.fingerprint, job.agreed)
            commit(target, lambda current: _accepting(current, job.fingerprint))
        return 0
    name = ledger.next_name(EntryKind.REPLAY)
    receipt = _write(name, repaired, embed, target)
    publish(state, receipt, [])

    def change(current: Ledger) -> Ledger | None:
        if name in current.entries:
            return None
        accepting = _accepting(current, job.fingerprint)
        return accepting.with_entry(EntryKind.REPLAY, name, receipt.frames, receipt.nonce)

    state.remember_job(job.fingerprint, job.agreed)
    commit(target, change, lambda: receipt.fragments)
    return len(repaired)


def _accepting(ledger: Ledger, fingerprint: str) -> Ledger:
    """Have a ledger accept a job, too."""
    if fingerprint in ledger.fingerprints:
        return ledger
    return replace(ledger, fingerprints=(*ledger.fingerprints, fingerprint))


def _write(name: str, repaired: list[RepairedRow], embed: Embed, target: Target) -> ReplayReceipt:
    """Write the frames of repaired rows, and say in the receipt which lines they were."""
    tally = Tally()
    frames = (frame for _, frame in repaired)
    fragments, files = write_frames(target.uri, embed.schema, frames, tally)
    replayed_lines: dict[str, list[int]] = {}
    reasons: Counter[str] = Counter()
    for row, _ in repaired:
        replayed_lines.setdefault(row.file, []).append(row.line)
        reasons[count_name(row.content.reason, row.content.stage)] += 1
    return ReplayReceipt(
        name=name,
        nonce=new_nonce(),
        staged=len(repaired),
        frames=tally.frames,
        fragments=fragments,
        files=files,
        sums=tally.sums,
        centroids=tally.centroids(),
        counts={name: -rows for name, rows in reasons.items()},
        size=tally.size,
        lines=replayed_lines,
    )


def _groups(rows: Iterator[QuarantinedRow]) -> Iterator[list[QuarantinedRow]]:
    """Gather rows that can be converted at once: same stage, collection, columns and file."""
    groups: dict[tuple[str, str, str], list[QuarantinedRow]] = {}
    for row in rows:
        if not row.content.record:
            # the bytes never were a record, and no mapping can make them one
            continue
        record = row.record
        columns = f"{record.schema.remove_metadata()} of {file_of(record)}"
        key = (row.content.stage, row.content.collection, columns)
        groups.setdefault(key, []).append(row)
        if len(groups[key]) == _BATCH_ROWS:
            yield groups.pop(key)
    yield from groups.values()


def _repair(conversion: Conversion, embed: Embed, rows: list[QuarantinedRow]) -> list[RepairedRow]:
    """Convert rows anew and give those that fit, each with its frame and its chunks."""
    batch = pa.concat_batches([row.record for row in rows])
    if rows[0].content.stage == "commit":
        # a duplicate: its record is the frame itself, with the vector of its time
        frames = batch if embed.recipe.policy == "keep" else _embed_frames(embed, batch)
        return [(row, frames.slice(index, 1)) for index, row in enumerate(rows)]
    collection = rows[0].content.collection
    converted = embed(conversion.convert(batch, collection), collection)
    starts = chunks.document_rows(converted.frames)
    ends = [*starts, converted.frames.num_rows][1:]
    return [
        (rows[int(row)], converted.frames.slice(start, end - start))
        for row, start, end in zip(converted.rows, starts, ends, strict=True)
    ]


def _embed_frames(embed: Embed, frames: pa.RecordBatch) -> pa.RecordBatch:
    """Give frames the vectors that the target's model makes of their texts now."""
    without_vectors = np.ones(frames.num_rows, np.bool_)
    return embed.finish(frames, embed.make_vectors(frames, without_vectors))


def _without_known_identities(target: Target, repaired: list[RepairedRow]) -> list[RepairedRow]:
    """Leave out rows whose identity the target, or an earlier row, already has."""
    uuids = [frame.column("uuid")[0].as_py() for _, frame in repaired]
    dataset = target.open()
    target_uuids: set[str] = set()
    for start in range(0, len(uuids), _BATCH_ROWS):
        names = ",".join(f"'{uuid}'" for uuid in uuids[start : start + _BATCH_ROWS])
        table = dataset.to_table(columns=["uuid"], filter=f"uuid IN ({names})")
        target_uuids.update(table["uuid"].to_pylist())
    new_rows: list[RepairedRow] = []
    for row, uuid in zip(repaired, uuids, strict=True):
        if uuid not in target_uuids:
            target_uuids.add(uuid)
            new_rows.append(row)
    return new_rows
