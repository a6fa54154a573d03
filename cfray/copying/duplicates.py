"""Find records that share an identity, and references that point nowhere; remove duplicates.

The first record by (shard id, ordinal) stays.  The later records leave the target in one
commit after the last shard and go to quarantine, so there are never two rows with one
uuid and never a silent choice.

Uuids are compared by their first 64 bits, in as many passes over the uuid column as keep
a pass within 16 million rows (16 bytes a row: 256 MB); rows that agree in these bits are
compared in full.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from lance import LanceDataset

from cfray.conversion import chunks
from cfray.conversion.rejects import RejectedRow, reject_frame
from cfray.copying.write import Tally, add_vectors, new_nonce, publish
from cfray.errors import LimitReached
from cfray.frames.schema import binary_view
from cfray.runtime.plurals import counted
from cfray.target.books import DUPLICATES, Content, RemovedRows
from cfray.target.commit import Target, commit, without_rows
from cfray.target.ledger import Ledger
from cfray.target.origins import RowOrigins, by_entry
from cfray.target.quarantine_counts import SAME_IDENTITY
from cfray.target.receipts import Receipt
from cfray.target.state import Plan, State

_ROWS_PER_PASS = 16_000_000
#: Characters of a uuid in text.
_UUID_LENGTH = 36
#: ASCII code of a hexadecimal digit -> its value.
_NIBBLES = np.zeros(256, np.uint64)
_NIBBLES[[ord(digit) for digit in "0123456789abcdef"]] = np.arange(16)
#: Positions of the first 16 hexadecimal digits of a uuid; dashes stand at 8 and 13.
_PREFIX_POSITIONS = [position for position in range(18) if position not in (8, 13)]

Keys = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Identities:
    """What a look at every uuid found.

    Attributes:
        duplicates: row id of every record that is not the first of its identity -> the reason.
        dangling: references to a uuid that no row has.
    """

    duplicates: dict[int, str]
    dangling: int


def find_duplicates(target: Target, plan: Plan, *, references: bool) -> Identities:
    """Look at every uuid of the target.

    Args:
        target: the dataset.
        plan: its shards.
        references: count references that point nowhere, too.
    """
    dataset = target.open()
    origins = RowOrigins(plan, target.ledger())
    pass_count = -(-max(1, dataset.count_rows()) // _ROWS_PER_PASS)
    duplicates: dict[int, str] = {}
    dangling = 0
    for number in range(pass_count):
        keys, row_ids = _keys_of_pass(dataset, number, pass_count)
        order = np.argsort(keys, kind="stable")
        keys, row_ids = keys[order], row_ids[order]
        repeated = np.flatnonzero(keys[1:] == keys[:-1])
        if len(repeated):
            candidates = np.unique(np.concatenate([row_ids[repeated], row_ids[repeated + 1]]))
            duplicates |= _later_records(dataset, candidates, origins)
        if references:
            dangling += _count_dangling(dataset, keys, number, pass_count)
    return Identities(duplicates, dangling)


def _keys_of_pass(dataset: LanceDataset, number: int, pass_count: int) -> tuple[Keys, Keys]:
    """Give the 64-bit prefixes of a pass's uuids, and their row ids; chunks are left out."""
    keys, row_ids = [np.empty(0, np.uint64)], [np.empty(0, np.uint64)]
    has_chunks = chunks.FIELD.name in dataset.schema.names
    scanner = dataset.scanner(
        columns=["uuid"],
        filter=f"{chunks.FIELD.name} IS NULL" if has_chunks else None,
        with_row_id=True,
    )
    for batch in scanner.to_batches():
        prefixes = uuid_prefixes(batch.column("uuid"))
        in_pass = prefixes % np.uint64(pass_count) == number
        keys.append(prefixes[in_pass])
        row_ids.append(batch.column("_rowid").to_numpy()[in_pass])
    return np.concatenate(keys), np.concatenate(row_ids)


def uuid_prefixes(uuids: pa.StringArray) -> Keys:
    """Read the first 64 bits of uuids (all of 36 characters)."""
    view, offsets = binary_view(uuids)
    text = np.frombuffer(view, np.uint8)[offsets[0] : offsets[-1]]
    digits = text.reshape(len(uuids), _UUID_LENGTH)
    keys = np.zeros(len(uuids), np.uint64)
    for position in _PREFIX_POSITIONS:
        keys = (keys << np.uint64(4)) | _NIBBLES[digits[:, position]]
    return keys


def _later_records(dataset: LanceDataset, candidates: Keys, origins: RowOrigins) -> dict[int, str]:
    """Among rows with equal prefixes, name those that are not the first of their uuid."""
    first_rows: dict[str, int] = {}
    later: dict[int, str] = {}
    candidate_ids = pa.array(candidates)
    for batch in dataset.scanner(columns=["uuid"], with_row_id=True).to_batches():
        rows = batch.filter(pc.is_in(batch.column("_rowid"), candidate_ids))
        uuids, row_ids = rows.column("uuid").to_pylist(), rows.column("_rowid").to_pylist()
        for uuid, row_id in zip(uuids, row_ids, strict=True):
            earlier_row = first_rows.setdefault(uuid, row_id)
            if earlier_row == row_id:
                continue
            first, second = sorted((earlier_row, row_id), key=origins.order)
            first_rows[uuid] = first
            later[second] = f"same identity as the record at {origins.position(first)}"
    return later


def _count_dangling(dataset: LanceDataset, keys: Keys, number: int, pass_count: int) -> int:
    """Count references (membership aside) whose target's prefix no row has."""
    count = 0
    for batch in dataset.scanner(columns=["relationships"]).to_batches():
        relationships = batch.column("relationships").flatten()
        is_reference = pc.and_(
            pc.not_equal(relationships.field("type"), "member_of"),
            pc.equal(pc.utf8_length(relationships.field("id")), _UUID_LENGTH),
        )
        prefixes = uuid_prefixes(relationships.filter(is_reference).field("id"))
        prefixes = prefixes[prefixes % np.uint64(pass_count) == number]
        if not len(keys):
            count += len(prefixes)
            continue
        indices = np.minimum(np.searchsorted(keys, prefixes), len(keys) - 1)
        count += int(np.count_nonzero(keys[indices] != prefixes))
    return count


def remove_duplicates(
    target: Target, state: State, plan: Plan, identities: Identities, allowed: float
) -> Receipt:
    """Remove duplicates and their chunks in one commit and put the records in quarantine.

    Raises:
        LimitReached: they are more than ``limits.max_quarantined`` still allows; nothing was
            removed.
    """
    duplicates = identities.duplicates
    if len(duplicates) > allowed:
        raise LimitReached(
            f"{counted(len(duplicates), 'record shares its', 'records share their')} identity with "
            f"another record ({next(iter(duplicates.values()))}, ...), more than "
            "limits.max_quarantined allows",
            "choose another mapping.id for a new target, or raise limits.max_quarantined and run "
            "the same command again",
        )
    dataset = target.open()
    chunk_rows = _chunks_of(dataset, list(duplicates))
    row_ids = [*duplicates, *chunk_rows]
    removal = _Removal(duplicates, RowOrigins(plan, target.ledger()))
    for batch in _read_rows(dataset, row_ids):
        removal.add(batch)
    derived = {"derived_frames": -len(chunk_rows)} if chunk_rows else {}
    quarantined = len(removal.rejected)
    receipt = Receipt(
        DUPLICATES,
        DUPLICATES,
        new_nonce(),
        quarantined=quarantined,
        centroids=removal.tally.centroids(),
        counts={SAME_IDENTITY: quarantined, **derived},
        resolved={name: rows.to_json() for name, rows in removal.removed.items()},
    )
    publish(state, receipt, removal.rejected)

    def change(ledger: Ledger) -> Ledger | None:
        if DUPLICATES in ledger.entries:
            return None
        return ledger.with_entry(DUPLICATES, 0, receipt.nonce)

    commit(target, change, rewrite=lambda latest: without_rows(latest, row_ids))
    return receipt


@dataclass(slots=True)
class _Removal:
    """What is known of the rows that will be removed.

    Attributes:
        duplicates: row id -> reason; every other row is a chunk of a duplicate.
        origins: of the dataset.
        removed: name of the ledger entry -> its rows that will be removed.
        rejected: the duplicates as the quarantine holds them.
        tally: the rows' vectors, negative.
    """

    duplicates: dict[int, str]
    origins: RowOrigins
    removed: dict[str, RemovedRows] = field(default_factory=dict)
    rejected: list[RejectedRow] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)

    def add(self, batch: pa.RecordBatch) -> None:
        """Add rows, with their column ``_rowid``."""
        row_ids = batch.column("_rowid").to_pylist()
        frames = batch.drop_columns(["_rowid"])
        for row, row_id in enumerate(row_ids):
            if row_id in self.duplicates:
                reason, position = self.duplicates[row_id], self.origins.position(row_id)
                self.rejected.append(reject_frame(frames.slice(row, 1), reason, position))
        for name, rows in by_entry(batch, self.origins):
            earlier = self.removed.get(name, RemovedRows())
            self.removed[name] = RemovedRows(
                earlier.content + Content.of(rows), earlier.chunks + _count_chunks(rows)
            )
            add_vectors(self.tally.collections, rows, -1)


def _chunks_of(dataset: LanceDataset, documents: list[int]) -> list[int]:
    """Find the row ids of the chunks that were cut from documents: they follow their document."""
    if chunks.FIELD.name not in dataset.schema.names:
        return []
    scanner = dataset.scanner(
        columns=[], filter=f"{chunks.FIELD.name} IS NOT NULL", with_row_id=True
    )
    chunk_ids = {
        row_id for batch in scanner.to_batches() for row_id in batch.column("_rowid").to_pylist()
    }
    chunks_of_documents: list[int] = []
    for document in documents:
        following = document + 1
        while following in chunk_ids:
            chunks_of_documents.append(following)
            following += 1
    return chunks_of_documents


def _count_chunks(frames: pa.RecordBatch) -> int:
    if chunks.FIELD.name not in frames.schema.names:
        return 0
    return int(frames.num_rows - frames.column(chunks.FIELD.name).null_count)


def _read_rows(dataset: LanceDataset, row_ids: list[int]) -> Iterator[pa.RecordBatch]:
    if row_ids:
        yield from dataset.scanner(
            filter=f"_rowid IN ({','.join(map(str, row_ids))})",
            with_row_id=True,
            blob_handling="all_binary",
            batch_size=1024,
        ).to_batches()
