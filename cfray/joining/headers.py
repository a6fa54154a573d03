"""Headers: a row that describes the dataset, and a row for each collection.

They are the last pseudo-shard.  A collection's header carries the centroid of its
members' vectors, so that a client can read it and a search that hits it hits for a
reason.  The commit that brings other vectors or further records replaces them, too; they
never count as records.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import Any

import numpy as np
import pyarrow as pa

from cfray.conversion.relationships import relationship_structs
from cfray.copying.write import SchemaOf, Tally, new_nonce, publish, write_frames
from cfray.embedders.recipe import Recipe
from cfray.embedding.pieces import VectorTask
from cfray.embedding.swap import swapped_schema
from cfray.embedding.vectors import in_order_of, schema_of_target, target_schema
from cfray.frames.schema import dataset_uuid, header_uuid, uuid_namespace
from cfray.job.mapping import rule_paths
from cfray.job.spec import JobSpec
from cfray.joining.nesting import folder_above, folders_below, texts_about, with_folders
from cfray.report.consistency import consistency_of
from cfray.report.run import Run
from cfray.runtime.plurals import counted
from cfray.target.books import Books, CollectionVectors, read_books
from cfray.target.commit import Rewrite, Target, commit, renumbered, without_rows
from cfray.target.ledger import EntryKind, Ledger
from cfray.target.receipts import EmbedReceipt, HeadersReceipt
from cfray.target.state import Plan

#: A row of the target, column -> value; columns that are left out are null.
Row = dict[str, object]


def write_headers(run: Run) -> bool:
    """Write the headers, or replace them if the counts they state have changed, or the texts.

    Returns:
        whether anything was committed.
    """
    ledger = run.target.ledger()
    books = read_books(run.state, ledger)
    if are_current(books) and _folders_are_current(run, books):
        return False
    new = prepare_headers(run, books)
    commit(run.target, new.with_entry, lambda: new.fragments, rewrite=new.rewrite)
    return True


@dataclass(frozen=True, slots=True)
class NewHeaders:
    """Headers that are written and not committed, and the rows in whose place they come.

    Attributes:
        receipt: of the new headers, published.
        stale_rows: row ids of the headers that leave.
        fragments: Lance's metadata (parsed JSON), with the field ids of the target.
    """

    receipt: HeadersReceipt
    stale_rows: list[int]
    fragments: list[dict[str, Any]]

    def with_entry(self, ledger: Ledger) -> Ledger:
        """Put the new headers into the ledger, behind all other entries."""
        entries = {
            name: entry
            for name, entry in ledger.entries.items()
            if entry.kind is not EntryKind.HEADERS
        }
        receipt = self.receipt
        return replace(ledger, entries=entries).with_entry(
            EntryKind.HEADERS, receipt.name, receipt.frames, receipt.nonce
        )

    @property
    def rewrite(self) -> Rewrite | None:
        """Give what takes the stale headers out; None where there are none."""
        if not self.stale_rows:
            return None
        return lambda dataset: without_rows(dataset, self.stale_rows)


def prepare_headers(
    run: Run, books: Books, new_vectors: tuple[Recipe, pa.Schema] | None = None
) -> NewHeaders:
    """Write and publish the headers that state the counts of the books; commit nothing.

    Args:
        run: a command that holds the target.
        books: as they will be when the headers are committed.
        new_vectors: the recipe and the dataset's schema of the same commit, where it brings other
            vectors.
    """
    target = run.target
    schema_of: SchemaOf = "latest version"
    schema = schema_of_target(run.job, run.plan.shape, target)
    width = run.plan.shape.dimension
    if new_vectors is not None:
        recipe, new_schema = new_vectors
        width, schema_of = recipe.dimension, "next commit"
        schema = in_order_of(new_schema, target_schema(run.job, run.plan.shape, recipe))
    # the header states what the receipts say, which the plan could not know
    plan = replace(run.plan, consistency=consistency_of(books, run.state, run.plan))
    counts = _counts(books)
    texts = _texts_about(run, books.collections)
    rows = header_rows(run.job, plan, books.collections, counts, width, texts=texts)
    receipt = _write(pa.RecordBatch.from_pylist(rows, schema=schema), counts, target, schema_of)
    publish(run.state, receipt, [])
    old = target.ledger().entries.get(EntryKind.HEADERS)
    stale_rows = list(range(old.start, old.start + old.rows)) if old is not None else []
    fragments = receipt.fragments
    if new_vectors is not None:
        fragments = renumbered(fragments, schema, new_vectors[1])
    return NewHeaders(receipt, stale_rows, fragments)


def headers_of_swap(run: Run, task: VectorTask, receipt: EmbedReceipt) -> NewHeaders:
    """Make the headers that come with new vectors, in the commit that brings these."""
    books = read_books(run.state, run.target.ledger())
    books.add(receipt)
    return prepare_headers(run, books, (task.recipe, swapped_schema(task)))


def are_current(books: Books) -> bool:
    """Tell whether the headers are there and state the counts of the books."""
    return books.headers is not None and books.headers.stated == _counts(books)


def expected_headers(run: Run, books: Books) -> dict[str, str]:
    """Give the uuid and the title of each header that a target must have."""
    width = run.plan.shape.dimension
    rows = header_rows(run.job, run.plan, books.collections, _counts(books), width)
    return {str(row["uuid"]): str(row["title"]) for row in rows}


def _counts(books: Books) -> dict[str, int]:
    """Give the counts that the dataset's header states."""
    counts = {"records": books.staged, "read": books.read}
    if books.embeds:
        counts["embedded"] = books.embeds
    return counts


def _write(
    headers: pa.RecordBatch, counts: dict[str, int], target: Target, schema_of: SchemaOf
) -> HeadersReceipt:
    """Write header rows, and note in the receipt which counts they state."""
    tally = Tally(has_members=False)
    fragments, files = write_frames(
        target.uri, headers.schema, [headers], tally, schema_of=schema_of
    )
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


def _texts_about(run: Run, collections: Iterable[str]) -> dict[str, str]:
    """Give what folders say of themselves, where records are files and have their paths as ids."""
    job = run.job
    if not _are_nested(job) or rule_paths(job.mapping.id) != [("id",)]:
        return {}
    return texts_about(run.target, uuid_namespace(job.name, ""), collections)


def _folders_are_current(run: Run, books: Books) -> bool:
    """Tell whether the headers of folders have the texts of the README files that are there now.

    A commit that changes a README has headers that were made before it.
    """
    if not _are_nested(run.job):
        return True
    texts = _texts_about(run, books.collections)
    width = run.plan.shape.dimension
    rows = header_rows(run.job, run.plan, books.collections, _counts(books), width, texts=texts)
    expected = {
        row["uuid"]: row["text_content"]
        for row in rows
        if row["record_type"] == "collection_header"
    }
    found = run.target.open().to_table(
        columns=["uuid", "text_content"], filter="record_type = 'collection_header'"
    )
    return expected == {row["uuid"]: row["text_content"] for row in found.to_pylist()}


def _are_nested(job: JobSpec) -> bool:
    return job.source.nests_collections and job.mapping.collection is not None


def header_rows(
    job: JobSpec,
    plan: Plan,
    collections: dict[str, CollectionVectors],
    counts: dict[str, int],
    width: int,
    *,
    texts: Mapping[str, str] | None = None,
) -> list[Row]:
    """Make the header rows: the dataset's, then the collections' by name.

    Args:
        job: the job file.
        plan: of the target.
        collections: name -> its vectors.
        counts: that the dataset's header states.
        width: of the vectors.
        texts: name -> what a collection says of itself; other headers say where they are from.
    """
    collections = dict(collections)
    if job.mapping.collection is None:
        # a source collection without records is a collection, too
        for name in plan.facts.keys() - collections.keys():
            uuid = header_uuid(uuid_namespace(job.name, name))
            collections[name] = CollectionVectors(uuid, 0, np.zeros(width))
    today = dt.datetime.now(dt.UTC).date().isoformat()
    all_vectors = CollectionVectors(
        dataset_uuid(job.name),
        sum(vectors.count for vectors in collections.values()),
        sum((vectors.total for vectors in collections.values()), np.zeros(width)),
    )
    rows = _HeaderRows(job, plan, today)
    if _are_nested(job):
        collections = with_folders(collections, uuid_namespace(job.name, ""))
        uuids = {name: vectors.header_uuid for name, vectors in collections.items()}
        rows = _HeaderRows(job, plan, today, uuids, folders_below(collections), texts or {})
    return [
        rows.of_dataset(all_vectors, counts),
        *(rows.of_collection(name, collections[name]) for name in sorted(collections)),
    ]


@dataclass(frozen=True, slots=True)
class _HeaderRows:
    job: JobSpec
    plan: Plan
    today: str
    #: Uuids of the headers by name, and the folders in each folder, where collections are nested.
    uuids: Mapping[str, str] = field(default_factory=dict)
    below: Mapping[str, list[str]] = field(default_factory=dict)
    #: What folders say of themselves.
    texts: Mapping[str, str] = field(default_factory=dict)

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
        above = self.uuids.get(folder_above(name), dataset_uuid(self.job.name))
        inner = [self.uuids[folder] for folder in self.below.get(name, ())]
        relationships = [
            *relationship_structs("parent", pa.array([above])).to_pylist(),
            *relationship_structs("contains", pa.array(inner, pa.string())).to_pylist(),
        ]
        return {
            **self._common(vectors),
            "title": name,
            "record_type": "collection_header",
            "collection": name,
            "collection_id": vectors.header_uuid,
            "collection_id_type": "uuid",
            "text_content": self.texts.get(name, f"Collection {name}, {self._origin()}"),
            "custom_metadata": _metadata_entries(facts),
            "relationships": relationships,
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
