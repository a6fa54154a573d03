"""The quarantine: rows that did not fit, listed, and tried again with the mapping as it is now.

A replay converts the records that were set aside; the repaired ones come in as
a pseudo-shard of their own, in one commit that also notes which rows of the
quarantine it resolved.  So a replay that is killed and run again brings each
row in once.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from cfray.conversion import chunks
from cfray.conversion.convert import Conversion, Converted
from cfray.conversion.embed import Embed
from cfray.copying.write import Tally, new_nonce, publish, write_frames
from cfray.job.spec import JobSpec
from cfray.target.commit import Target, commit
from cfray.target.ledger import REPLAY, Ledger
from cfray.target.receipts import Receipt
from cfray.target.state import State

#: Rows converted at once, and uuids looked up at once.
_STEP = 1000


@dataclass(frozen=True, slots=True)
class QuarantinedRow:
    """One row in quarantine.

    Attributes:
        file, line: where its entry stands.
        entry: ``stage, reason, position, id, content`` and, for replay, ``record`` and
            ``collection``.
    """

    file: str
    line: int
    entry: dict[str, Any]


def quarantined_rows(state: State, ledger: Ledger) -> Iterator[QuarantinedRow]:
    """Yield the rows of committed shards that no replay has brought in yet."""
    resolved: dict[str, set[int]] = {}
    for name in ledger.replays:
        for file, lines in state.receipt(name, ledger.entries[name].nonce).resolved.items():
            resolved.setdefault(file, set()).update(lines)
    for name, entry in ledger.entries.items():
        file = f"{name}.{entry.nonce}.jsonl"
        for line, text in enumerate((state.quarantine.read(file) or b"").splitlines()):
            if line not in resolved.get(file, ()):
                yield QuarantinedRow(file, line, json.loads(text))


def replay_quarantined(job: JobSpec, embed: Embed, target: Target, state: State) -> int:
    """Try every waiting row again; commit those that fit now.

    Returns:
        how many records came in.
    """
    ledger = target.ledger()
    conversion = Conversion(job, embed.layout)
    good: list[tuple[QuarantinedRow, pa.RecordBatch]] = []
    for rows in _groups(quarantined_rows(state, ledger)):
        good += _repaired(conversion, embed, rows)
    fresh = _not_there_yet(target, good)
    if not fresh:
        return 0
    account = Tally()
    fragments, files = write_frames(
        target.uri, embed.schema, (frame for _, frame in fresh), account
    )
    resolved: dict[str, list[int]] = {}
    for row, _ in fresh:
        resolved.setdefault(row.file, []).append(row.line)
    name = f"{REPLAY}{len(ledger.replays) + 1:04d}"
    receipt = Receipt(
        name,
        name,
        new_nonce(),
        staged=len(fresh),
        frames=account.frames,
        fragments=fragments,
        files=files,
        sums=account.sums,
        centroids=account.centroids(),
        size=account.size,
        resolved=resolved,
    )
    publish(state, receipt, [])

    def change(current: Ledger) -> Ledger | None:
        if name in current.entries:
            return None
        accepted = (
            current.fingerprints
            if job.fingerprint in current.fingerprints
            else (*current.fingerprints, job.fingerprint)
        )
        return replace(current, fingerprints=accepted).with_entry(
            name, account.frames, receipt.nonce
        )

    commit(target, change, lambda: fragments)
    return len(fresh)


def _groups(rows: Iterator[QuarantinedRow]) -> Iterator[list[QuarantinedRow]]:
    """Gather rows that can be converted at once.

    Same stage, same source collection, same columns.
    """
    groups: dict[tuple[str, str, str], list[QuarantinedRow]] = {}
    for row in rows:
        if not row.entry["record"]:
            continue  # it never was a record; no mapping can make it one
        key = (row.entry["stage"], row.entry["collection"], str(_record(row).schema))
        groups.setdefault(key, []).append(row)
        if len(groups[key]) == _STEP:
            yield groups.pop(key)
    yield from groups.values()


def _record(row: QuarantinedRow) -> pa.RecordBatch:
    return pa.ipc.open_stream(base64.b64decode(row.entry["record"])).read_next_batch()


def _repaired(
    conversion: Conversion, embed: Embed, rows: list[QuarantinedRow]
) -> list[tuple[QuarantinedRow, pa.RecordBatch]]:
    """Convert rows anew; give the ones that fit with their frame, and the chunks behind it."""
    batch = pa.concat_batches([_record(row) for row in rows])
    if (
        rows[0].entry["stage"] == "commit"
    ):  # a duplicate: its record is the frame itself, with the vector of its time
        frames = batch if embed.recipe.policy == "keep" else _embedded(embed, batch)
        return [(row, frames.slice(place, 1)) for place, row in enumerate(rows)]
    collection = rows[0].entry["collection"]
    converted = embed(conversion.convert(batch, collection), collection)
    own = chunks.documents(converted.frames)
    ends = [*own, converted.frames.num_rows][1:]
    return [
        (rows[int(row)], converted.frames.slice(start, end - start))
        for row, start, end in zip(converted.rows, own, ends, strict=True)
    ]


def _embedded(embed: Embed, frames: pa.RecordBatch) -> pa.RecordBatch:
    """Give frames the vector that the target's model makes of their text.

    They may be older than it.
    """
    every = np.ones(frames.num_rows, np.bool_)
    made = embed.made(
        Converted(frames, np.arange(frames.num_rows), [], Counter(), every, frames.column("uuid"))
    )
    return embed.finished(frames, made)


def _not_there_yet(
    target: Target, good: list[tuple[QuarantinedRow, pa.RecordBatch]]
) -> list[tuple[QuarantinedRow, pa.RecordBatch]]:
    """Leave out rows whose identity the target, or an earlier row, already has."""
    uuids = [frame.column("uuid")[0].as_py() for _, frame in good]
    dataset = target.open()
    taken: set[str] = set()
    for start in range(0, len(uuids), _STEP):
        names = ",".join(f"'{uuid}'" for uuid in uuids[start : start + _STEP])
        taken.update(
            dataset.to_table(columns=["uuid"], filter=f"uuid IN ({names})")["uuid"].to_pylist()
        )
    fresh = np.zeros(len(good), np.bool_)
    for place, uuid in enumerate(uuids):
        fresh[place] = uuid not in taken
        taken.add(uuid)
    return [pair for pair, new in zip(good, fresh, strict=True) if new]
