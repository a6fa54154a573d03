"""A replay: quarantined rows, tried again with the mapping and the embedding as they are now.

A replay converts the records that were set aside.  The records that fit now come in as a
pseudo-shard, in one commit that also states which lines of the quarantine it brought in:
a replay that is killed and run again brings each row in once.  Quarantine files
themselves never change.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pyarrow as pa

from cfray.copying.write import Tally, new_nonce, publish, write_frames
from cfray.embedding.vectors import count_origins, schema_of_target
from cfray.frames.schema import ORIGIN
from cfray.joining.headers import prepare_headers
from cfray.joining.quarantine import quarantined_rows
from cfray.joining.repair import RepairedRow, repaired_rows, with_vectors
from cfray.report.run import Run
from cfray.target.books import read_books
from cfray.target.commit import Target, commit
from cfray.target.ledger import EntryKind, Ledger
from cfray.target.quarantine_counts import count_name
from cfray.target.receipts import ReplayReceipt

#: uuids looked up at once.
_BATCH_ROWS = 1000


def replay_quarantined(run: Run) -> int:
    """Try every quarantined row again; commit those that fit now.

    The target accepts the job that was tried, whether a row fits or not: it can be verified with
    this job afterwards.

    Returns:
        how many records came in.

    Raises:
        CfrayError: nothing of this replay was committed.
    """
    job, target, state = run.job, run.target, run.state
    ledger = target.ledger()
    repaired = list(repaired_rows(run, quarantined_rows(state, ledger)))
    repaired, text_counts = with_vectors(run, _without_known_identities(target, repaired))
    if not repaired:
        if job.fingerprint not in ledger.fingerprints:
            state.remember_job(job.fingerprint, job.agreed)
            commit(target, lambda current: _accepting(current, job.fingerprint))
        return 0
    name = ledger.next_name(EntryKind.REPLAY)
    receipt = _write(run, name, repaired, text_counts)
    publish(state, receipt, [])
    books = read_books(state, ledger)
    books.add(receipt)
    new_headers = prepare_headers(run, books)

    def change(current: Ledger) -> Ledger | None:
        if name in current.entries:
            return None
        accepting = _accepting(current, job.fingerprint)
        joined = accepting.with_entry(EntryKind.REPLAY, name, receipt.frames, receipt.nonce)
        return new_headers.with_entry(joined)

    state.remember_job(job.fingerprint, job.agreed)
    commit(
        target,
        change,
        lambda: [*receipt.fragments, *new_headers.fragments],
        rewrite=new_headers.rewrite,
    )
    return len(repaired)


def _accepting(ledger: Ledger, fingerprint: str) -> Ledger:
    """Have a ledger accept a job, too."""
    if fingerprint in ledger.fingerprints:
        return ledger
    return replace(ledger, fingerprints=(*ledger.fingerprints, fingerprint))


def _write(
    run: Run, name: str, repaired: list[RepairedRow], text_counts: Counter[str]
) -> ReplayReceipt:
    """Write the frames of repaired rows, and say in the receipt which lines they were."""
    schema = schema_of_target(run.job, run.plan.shape, run.target)
    makes_vectors = run.job.embedding.makes_vectors
    tally = Tally()
    frames = (_in_schema(frame, schema) for _, frame in repaired)
    fragments, files = write_frames(run.target.uri, schema, frames, tally)
    replayed_lines: dict[str, list[int]] = {}
    counts = Counter(text_counts)
    for row, frame in repaired:
        replayed_lines.setdefault(row.file, []).append(row.line)
        counts[count_name(row.content.reason, row.content.stage)] -= 1
        counts["derived_frames"] += frame.num_rows - 1
        if makes_vectors:
            counts.update(count_origins(frame.column(ORIGIN)))
            counts["missing_vectors"] += frame.column(ORIGIN).null_count
    return ReplayReceipt(
        name=name,
        nonce=new_nonce(),
        staged=len(repaired),
        frames=tally.frames,
        fragments=fragments,
        files=files,
        sums=tally.sums,
        centroids=tally.centroids(),
        counts={name: count for name, count in counts.items() if count},
        size=tally.size,
        lines=replayed_lines,
    )


def _in_schema(frames: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Put the columns of frames into the order of the target's."""
    return pa.RecordBatch.from_arrays([frames.column(name) for name in schema.names], schema=schema)


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
