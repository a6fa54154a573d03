"""Find records that share one identity, and references that point nowhere.

Take the later duplicates out.

The first by (shard id, ordinal) stays.  The others leave the target in one
commit after the last shard and go to quarantine, so there are never two rows
with one uuid and never a silent choice.

Uuids are compared by their first 64 bits, in as many passes over the uuid
column as keep a pass within 16 million rows (16 bytes a row: 256 MB); rows that
agree there are compared in full.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from lance import LanceDataset

from cfray.conversion import chunks
from cfray.copying.write import Rejected, Tally, add_centroids, new_nonce, publish
from cfray.errors import LimitReached
from cfray.frames import digests
from cfray.frames.schema import ORIGINAL_ID, binary_view
from cfray.records import values
from cfray.records.record import parsed
from cfray.target.books import RowOrigins
from cfray.target.commit import Target, commit, without_rows
from cfray.target.ledger import DUPLICATES, Ledger
from cfray.target.receipts import Receipt
from cfray.target.state import Plan, State

_ROWS_PER_PASS = 16_000_000
_NIBBLES = np.zeros(256, np.uint64)
_NIBBLES[[ord(digit) for digit in "0123456789abcdef"]] = np.arange(16)
_PREFIX = [place for place in range(18) if place not in (8, 13)]

Keys = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Identities:
    """What a look at every uuid found.

    Attributes:
        extra: row id of every record that is not the first of its identity, with the reason.
        dangling: references to a uuid that no row has.
    """

    extra: dict[int, str]
    dangling: int


def find_duplicates(target: Target, plan: Plan, *, references: bool) -> Identities:
    """Look at every uuid of the target."""
    dataset = target.open()
    passes = -(-max(1, dataset.count_rows()) // _ROWS_PER_PASS)
    extra: dict[int, str] = {}
    dangling = 0
    for number in range(passes):
        keys, rows = _keys(dataset, number, passes)
        order = np.argsort(keys, kind="stable")
        keys, rows = keys[order], rows[order]
        same = np.flatnonzero(keys[1:] == keys[:-1])
        if len(same):
            candidates = np.unique(np.concatenate([rows[same], rows[same + 1]]))
            extra |= _later_ones(dataset, candidates, plan, target.ledger())
        if references:
            dangling += _dangling(dataset, keys, number, passes)
    return Identities(extra, dangling)


def _keys(dataset: LanceDataset, number: int, passes: int) -> tuple[Keys, Keys]:
    """Give the 64-bit prefixes of one pass's uuids, and their row ids."""
    keys, rows = [], []
    records_only = (
        f"{chunks.FIELD.name} IS NULL" if chunks.FIELD.name in dataset.schema.names else None
    )
    for batch in dataset.scanner(
        columns=["uuid"], filter=records_only, with_row_id=True
    ).to_batches():
        prefix = prefixes(batch.column("uuid"))
        mine = prefix % np.uint64(passes) == number
        keys.append(prefix[mine])
        rows.append(batch.column("_rowid").to_numpy()[mine])
    empty = np.empty(0, np.uint64)
    return np.concatenate([empty, *keys]), np.concatenate([empty, *rows])


def prefixes(uuids: pa.StringArray) -> Keys:
    """Read the first 64 bits of uuids (all of 36 characters)."""
    view, places = binary_view(uuids)
    text = np.frombuffer(view, np.uint8)[places[0] : places[-1]].reshape(len(uuids), 36)
    key = np.zeros(len(uuids), np.uint64)
    for place in _PREFIX:
        key = (key << np.uint64(4)) | _NIBBLES[text[:, place]]
    return key


def _later_ones(
    dataset: LanceDataset, candidates: Keys, plan: Plan, ledger: Ledger
) -> dict[int, str]:
    """Among rows with equal prefixes, name those that are not the first of their uuid."""
    first: dict[str, tuple[tuple[int, int], int]] = {}
    extra: dict[int, str] = {}
    places = RowOrigins(plan, ledger)
    wanted = pa.array(candidates)
    for batch in dataset.scanner(columns=["uuid"], with_row_id=True).to_batches():
        hit = pc.is_in(batch.column("_rowid"), wanted)
        for uuid, row in zip(
            batch.column("uuid").filter(hit).to_pylist(),
            batch.column("_rowid").filter(hit).to_pylist(),
            strict=True,
        ):
            order = places.order(row)
            if uuid not in first:
                first[uuid] = (order, row)
                continue
            kept_order, kept = first[uuid]
            if order < kept_order:
                first[uuid] = (order, row)
                row, kept = kept, row  # noqa: PLW2901  # the one seen before is the later one
            extra[row] = f"same identity as the record at {places.position(kept)}"
    return extra


def _dangling(dataset: LanceDataset, keys: Keys, number: int, passes: int) -> int:
    """Count references (membership aside) whose target's prefix no row has."""
    count = 0
    for batch in dataset.scanner(columns=["relationships"]).to_batches():
        flat = batch.column("relationships").flatten()
        others = flat.filter(
            pc.and_(
                pc.not_equal(flat.field("type"), "member_of"),
                pc.equal(pc.utf8_length(flat.field("id")), 36),
            )
        )
        wanted = prefixes(others.field("id"))
        wanted = wanted[wanted % np.uint64(passes) == number]
        place = np.minimum(np.searchsorted(keys, wanted), max(0, len(keys) - 1))
        count += int(np.count_nonzero(keys[place] != wanted)) if len(keys) else len(wanted)
    return count


def remove_duplicates(
    target: Target, state: State, plan: Plan, found: Identities, allowed: float
) -> Receipt:
    """Take the extra rows out in one commit and put them in quarantine.

    Raises:
        LimitReached: there are more of them than ``limits.max_quarantined`` allows; nothing was
            removed.
    """
    if len(found.extra) > allowed:
        sample = next(iter(found.extra.values()))
        raise LimitReached(
            f"{len(found.extra):,} records share their identity with another one ({sample}, ...), more than limits.max_quarantined allows",
            "choose another mapping.id for a new target, or raise limits.max_quarantined and run the same command again",
        )
    dataset = target.open()
    places = RowOrigins(plan, target.ledger())
    nonce = new_nonce()
    removed: dict[str, dict[str, object]] = {}
    account = Tally()
    rejected: list[Rejected] = []
    derived = _chunks_of(dataset, list(found.extra))
    gone = [*found.extra, *derived]
    for batch in _rows(dataset, gone):
        names = [places.name(row) or "" for row in batch.column("_rowid").to_pylist()]
        rejected += [
            _rejected(batch, row, found.extra, places)
            for row, number in enumerate(batch.column("_rowid").to_pylist())
            if number in found.extra
        ]
        plain = batch.drop_columns(["_rowid"])
        for name in sorted(set(names)):
            part = plain.filter(pa.array([other == name for other in names]))
            before = removed.get(name, {"rows": 0, "chunks": 0, "sums": {}})
            pieces = part.num_rows - part.column(chunks.FIELD.name).null_count if derived else 0
            sums = digests.add(dict(before["sums"]), digests.content_hashes(part))  # type: ignore[call-overload]  # parsed JSON of our own making
            removed[name] = {
                "rows": int(str(before["rows"])) + part.num_rows,
                "chunks": int(str(before["chunks"])) + pieces,
                "sums": sums,
            }
            add_centroids(account.vectors, part, -1)
    receipt = Receipt(
        DUPLICATES,
        DUPLICATES,
        nonce,
        quarantined=len(rejected),
        centroids=account.centroids(),
        counts={
            "quarantined: same identity as another record": len(rejected),
            **({"derived_frames": -len(derived)} if derived else {}),
        },
        resolved=removed,
    )
    publish(state, receipt, rejected)

    def change(ledger: Ledger) -> Ledger | None:
        return None if DUPLICATES in ledger.entries else ledger.with_entry(DUPLICATES, 0, nonce)

    commit(target, change, rewrite=lambda latest: without_rows(latest, gone))
    return receipt


def _chunks_of(dataset: LanceDataset, documents: list[int]) -> list[int]:
    """Find the row ids of the chunks that were cut from some documents.

    They stand right behind theirs.
    """
    if chunks.FIELD.name not in dataset.schema.names:
        return []
    scanner = dataset.scanner(
        columns=[], filter=f"{chunks.FIELD.name} IS NOT NULL", with_row_id=True
    )
    pieces = {row for batch in scanner.to_batches() for row in batch.column("_rowid").to_pylist()}
    found: list[int] = []
    for row in documents:
        following = row + 1
        while following in pieces:
            found.append(following)
            following += 1
    return found


def _rows(dataset: LanceDataset, row_ids: list[int]) -> Iterator[pa.RecordBatch]:
    if row_ids:
        yield from dataset.scanner(
            filter=f"_rowid IN ({','.join(map(str, row_ids))})",
            with_row_id=True,
            blob_handling="all_binary",
            batch_size=1024,
        ).to_batches()


def _rejected(
    batch: pa.RecordBatch, row: int, extra: dict[int, str], places: RowOrigins
) -> Rejected:
    """Set one frame aside: readable, and exact for replay (the frame itself is the record)."""
    import base64

    number = batch.column("_rowid")[row].as_py()
    one = batch.slice(row, 1).drop_columns(["_rowid"])
    content = {
        name: parsed(text)
        for name, column in zip(one.schema.names, one.columns, strict=True)
        if (text := values.json_texts(column)[0].as_py()) is not None
    }
    own = next(
        (
            entry["value"]
            for entry in one.column("custom_metadata")[0].as_py() or []
            if entry["key"] == ORIGINAL_ID
        ),
        None,
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, one.schema) as writer:
        writer.write_batch(one)
    return Rejected(
        "commit",
        extra[number],
        places.position(number),
        own,
        content,
        base64.b64encode(sink.getvalue()).decode(),
    )
