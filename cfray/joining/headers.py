"""Headers: one row that describes the dataset, and one a collection; the last pseudo-shard.

A collection's header carries the centroid of its members' vectors, so that a
client can read it and a search that hits it hits for a reason.  Replaced in
one commit when the counts they state have changed.
"""

from __future__ import annotations

import base64
import datetime as dt
from dataclasses import dataclass, replace
from importlib.metadata import version

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cfray.conversion.convert import relations
from cfray.conversion.embed import target_schema
from cfray.copying.write import Tally, new_nonce, publish, write_frames
from cfray.frames.schema import dataset_uuid, header_uuid, namespace
from cfray.job.spec import JobSpec
from cfray.target.commit import Target, commit, without_rows
from cfray.target.ledger import DUPLICATES, EMBED, HEADERS, Ledger
from cfray.target.receipts import Receipt
from cfray.target.state import Plan, State


@dataclass(slots=True)
class Members:
    """Vectors of one collection, summed."""

    uuid: str
    vectors: int
    total: npt.NDArray[np.float64]

    @property
    def centroid(self) -> npt.NDArray[np.float32]:
        """Give the mean; zeros where there is no vector."""
        return (self.total / max(1, self.vectors)).astype(np.float32)


def write_headers(job: JobSpec, plan: Plan, target: Target, state: State) -> bool:
    """Write the headers, or write them anew if the counts they state have changed.

    Returns:
        whether anything was committed.
    """
    ledger = target.ledger()
    receipts = [receipt for receipt in state.committed(ledger) if receipt.name != HEADERS]
    stated = {
        "records": sum(receipt.staged for receipt in receipts)
        - sum(
            int(part["rows"]) - int(part["chunks"])
            for receipt in receipts
            if receipt.name == DUPLICATES
            for part in receipt.resolved.values()
        ),
        "read": sum(receipt.read for receipt in receipts),
        **({"embedded": len(ledger.embeds)} if ledger.embeds else {}),
    }
    old = ledger.entries.get(HEADERS)
    if old is not None and state.receipt(HEADERS, old.nonce).resolved == stated:
        return False
    rows = _rows(job, plan, receipts, stated)
    batch = pa.RecordBatch.from_pylist(
        rows, schema=target_schema(job, plan.layout, target.recipe())
    )
    account = Tally(members=False)
    fragments, files = write_frames(target.uri, batch.schema, [batch], account)
    receipt = Receipt(
        HEADERS,
        HEADERS,
        new_nonce(),
        frames=len(rows),
        fragments=fragments,
        files=files,
        sums=account.sums,
        size=account.size,
        resolved=dict(stated),
    )
    publish(state, receipt, [])

    def change(current: Ledger) -> Ledger:
        entries = {name: entry for name, entry in current.entries.items() if name != HEADERS}
        return replace(current, entries=entries).with_entry(HEADERS, len(rows), receipt.nonce)

    stale = list(range(old.start, old.start + old.rows)) if old is not None else []
    commit(
        target,
        change,
        lambda: fragments,
        rewrite=(lambda dataset: without_rows(dataset, stale)) if stale else None,
    )
    return True


def _rows(
    job: JobSpec, plan: Plan, receipts: list[Receipt], stated: dict[str, int]
) -> list[dict[str, object]]:
    """Make the header rows: the dataset's, then the collections' by name."""
    members = _members(receipts)
    if job.mapping.collection is None:  # an empty source collection is a collection, too
        for name in plan.facts:
            members.setdefault(
                name,
                Members(header_uuid(namespace(job.name, name)), 0, np.zeros(plan.layout.dimension)),
            )
    everything = Members(
        dataset_uuid(job.name),
        sum(one.vectors for one in members.values()),
        sum((one.total for one in members.values()), np.zeros(plan.layout.dimension)),
    )
    origin = {"source_type": plan.layout.kind, "source_url": plan.layout.url}
    today = dt.datetime.now(dt.UTC).date().isoformat()
    facts = {
        **{name: str(count) for name, count in stated.items()},
        "fingerprint": job.fingerprint,
        "consistency": plan.consistency,
        **{f"version.{name}": version(name) for name in ("cfray", "pylance", "ray", "pyarrow")},
    }
    dataset = {
        "uuid": everything.uuid,
        "title": job.name,
        "record_type": "dataset_header",
        "vector": everything.centroid,
        "created_at": today,
        **origin,
        "text_content": f"{job.name}: {stated['records']:,} records migrated from {plan.layout.kind} {plan.layout.url} by cfray.",
        "custom_metadata": _entries(facts),
        "relationships": [],
    }
    to_dataset = relations("parent", pa.array([everything.uuid])).to_pylist()
    headers = [
        {
            "uuid": one.uuid,
            "title": name,
            "record_type": "collection_header",
            "vector": one.centroid,
            "created_at": today,
            **origin,
            "collection": name,
            "collection_id": one.uuid,
            "collection_id_type": "uuid",
            "text_content": f"Collection {name}, migrated from {plan.layout.kind} {plan.layout.url} by cfray.",
            "custom_metadata": _entries(
                {
                    "vectors": str(one.vectors),
                    **{f"source.{key}": fact for key, fact in plan.facts.get(name, {}).items()},
                }
            ),
            "relationships": to_dataset,
        }
        for name, one in sorted(members.items())
    ]
    return [dataset, *headers]


def _members(receipts: list[Receipt]) -> dict[str, Members]:
    found: dict[str, Members] = {}
    for receipt in receipts:
        if receipt.name.startswith(EMBED):
            found.clear()  # every vector before it was made anew, and is summed in it
        for name, (count, uuid, text) in receipt.centroids.items():
            total = np.frombuffer(base64.b64decode(text), np.float64)
            one = found.setdefault(name, Members(uuid, 0, np.zeros(len(total))))
            one.vectors += count
            one.total = one.total + total
    return found


def _entries(facts: dict[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in facts.items()]
