"""Headers: a row that describes the dataset, and a row for each collection.

They are the last pseudo-shard.  A collection's header carries the centroid of its
members' vectors, so that a client can read it and a search that hits it hits for a
reason.  The headers are replaced in one commit when the counts they state have changed;
they never count as records.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, replace
from importlib.metadata import version

import numpy as np
import pyarrow as pa

from cfray.conversion.embed import target_schema
from cfray.conversion.relationships import relationship_structs
from cfray.copying.write import Tally, new_nonce, publish, write_frames
from cfray.frames.schema import dataset_uuid, header_uuid, uuid_namespace
from cfray.job.spec import JobSpec
from cfray.report.consistency import consistency_of
from cfray.runtime.plurals import counted
from cfray.target.books import Books, CollectionVectors, read_books
from cfray.target.commit import Target, commit, without_rows
from cfray.target.ledger import EntryKind, Ledger
from cfray.target.receipts import HeadersReceipt
from cfray.target.state import Plan, State

#: A row of the target, column -> value; columns that are left out are null.
Row = dict[str, object]


def write_headers(job: JobSpec, plan: Plan, target: Target, state: State) -> bool:
    """Write the headers, or replace them if the counts they state have changed.

    Returns:
        whether anything was committed.
    """
    ledger = target.ledger()
    books = read_books(state, ledger)
    counts = _counts(books)
    old = ledger.entries.get(EntryKind.HEADERS)
    if are_current(books):
        return False
    # the header states what the receipts say, which the plan could not know
    plan = replace(plan, consistency=consistency_of(books, state, plan))
    rows = header_rows(job, plan, books.collections, counts)
    schema = target_schema(job, plan.shape, target.recipe())
    receipt = _write(pa.RecordBatch.from_pylist(rows, schema=schema), counts, target)
    publish(state, receipt, [])

    def change(current: Ledger) -> Ledger:
        entries = {
            name: entry
            for name, entry in current.entries.items()
            if entry.kind is not EntryKind.HEADERS
        }
        without_headers = replace(current, entries=entries)
        return without_headers.with_entry(
            EntryKind.HEADERS, receipt.name, receipt.frames, receipt.nonce
        )

    stale_rows = list(range(old.start, old.start + old.rows)) if old is not None else []
    commit(
        target,
        change,
        lambda: receipt.fragments,
        rewrite=(lambda dataset: without_rows(dataset, stale_rows)) if stale_rows else None,
    )
    return True


def are_current(books: Books) -> bool:
    """Tell whether the headers are there and state the counts of the books."""
    return books.headers is not None and books.headers.stated == _counts(books)


def _counts(books: Books) -> dict[str, int]:
    """Give the counts that the dataset's header states."""
    counts = {"records": books.staged, "read": books.read}
    if books.embeds:
        counts["embedded"] = books.embeds
    return counts


def _write(headers: pa.RecordBatch, counts: dict[str, int], target: Target) -> HeadersReceipt:
    """Write header rows, and note in the receipt which counts they state."""
    tally = Tally(has_members=False)
    fragments, files = write_frames(target.uri, headers.schema, [headers], tally)
    return HeadersReceipt(
        name=EntryKind.HEADERS.value,
        nonce=new_nonce(),
        frames=headers.num_rows,
        fragments=fragments,
        files=files,
        sums=tally.sums,
        size=tally.size,
        stated=dict(counts),
    )


def header_rows(
    job: JobSpec, plan: Plan, collections: dict[str, CollectionVectors], counts: dict[str, int]
) -> list[Row]:
    """Make the header rows: the dataset's, then the collections' by name."""
    width = plan.shape.dimension
    collections = dict(collections)
    if job.mapping.collection is None:
        # a source collection without records is a collection, too
        for name in plan.facts.keys() - collections.keys():
            uuid = header_uuid(uuid_namespace(job.name, name))
            collections[name] = CollectionVectors(uuid, 0, np.zeros(width))
    today = dt.datetime.now(dt.UTC).date().isoformat()
    rows = _HeaderRows(job, plan, today)
    all_vectors = CollectionVectors(
        dataset_uuid(job.name),
        sum(vectors.count for vectors in collections.values()),
        sum((vectors.total for vectors in collections.values()), np.zeros(width)),
    )
    return [
        rows.of_dataset(all_vectors, counts),
        *(rows.of_collection(name, collections[name]) for name in sorted(collections)),
    ]


@dataclass(frozen=True, slots=True)
class _HeaderRows:
    job: JobSpec
    plan: Plan
    today: str

    def of_dataset(self, vectors: CollectionVectors, counts: dict[str, int]) -> Row:
        records = counted(counts["records"], "record")
        facts = {
            **{name: str(count) for name, count in counts.items()},
            "fingerprint": self.job.fingerprint,
            "consistency": self.plan.consistency,
            **{f"version.{name}": version(name) for name in ("cfray", "pylance", "ray", "pyarrow")},
        }
        return {
            **self._common(vectors),
            "title": self.job.name,
            "record_type": "dataset_header",
            "text_content": f"{self.job.name}: {records} {self._origin()}",
            "custom_metadata": _metadata_entries(facts),
            "relationships": [],
        }

    def of_collection(self, name: str, vectors: CollectionVectors) -> Row:
        source_facts = self.plan.facts.get(name, {})
        facts = {
            "vectors": str(vectors.count),
            **{f"source.{key}": fact for key, fact in source_facts.items()},
        }
        dataset = pa.array([dataset_uuid(self.job.name)])
        to_dataset = relationship_structs("parent", dataset).to_pylist()
        return {
            **self._common(vectors),
            "title": name,
            "record_type": "collection_header",
            "collection": name,
            "collection_id": vectors.header_uuid,
            "collection_id_type": "uuid",
            "text_content": f"Collection {name}, {self._origin()}",
            "custom_metadata": _metadata_entries(facts),
            "relationships": to_dataset,
        }

    def _common(self, vectors: CollectionVectors) -> Row:
        return {
            "uuid": vectors.header_uuid,
            "vector": vectors.centroid,
            "created_at": self.today,
            "source_type": self.plan.shape.kind,
            "source_url": self.plan.shape.url,
        }

    def _origin(self) -> str:
        return f"migrated from {self.plan.shape.kind} {self.plan.shape.url} by cfray."


def _metadata_entries(facts: dict[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in facts.items()]
