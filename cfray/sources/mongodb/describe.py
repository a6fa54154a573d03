"""Say what a collection is: its documents, its vector, its references and its options.

MongoDB declares no fields.  What is said of them is what the first documents show, or what
a vector search index declares; it is never more than a help for ``inspect`` and the plan.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from cfray.errors import SourceError
from cfray.sources.base import Collection, Metric
from cfray.sources.mongodb import elements as bson
from cfray.sources.mongodb import values
from cfray.sources.mongodb.catalog import Entry
from cfray.sources.mongodb.client import Connection
from cfray.sources.mongodb.elements import DamagedBsonError, read_elements
from cfray.sources.mongodb.number_arrays import read_number_arrays
from cfray.sources.mongodb.pages import Range
from cfray.sources.mongodb.vectors import width_of_vector

#: Documents that show which fields there are.
_SHOWN_ROWS = 100
#: The field whose width and metric a collection states.
_VECTOR = "vector"
_METRICS: dict[str, Metric] = {"cosine": "cosine", "euclidean": "l2", "dotProduct": "dot"}


def describe_collection(
    connection: Connection, entry: Entry, rows: int
) -> tuple[Collection, list[str]]:
    """Describe a collection, and give notes on it."""
    documents = Range(entry.database, entry.name)
    answer = connection.find(documents.database, documents.command(_SHOWN_ROWS))
    shown = Shown(answer.data, answer.spans, entry.database)
    facts, notes = _facts(connection, entry)
    indexes = _vector_indexes(connection, entry)
    declared = {index["path"]: index for index in indexes}
    if indexes:
        facts["vector_indexes"] = json.dumps(indexes, sort_keys=True, default=str)
    dimension, metric = shown.width, None
    if _VECTOR in declared:
        dimension = int(declared[_VECTOR].get("numDimensions") or 0) or dimension
        metric = _METRICS.get(str(declared[_VECTOR].get("similarity")))
    if entry.options.get("capped"):
        notes.append(
            f"{entry.full_name} is capped: documents that are overwritten while it is read are "
            "not in the target"
        )
    return (
        Collection(
            entry.full_name,
            rows=rows,
            dimension=dimension,
            metric=metric,
            facts=facts,
        ),
        notes + shown.notes(entry.full_name),
    )


class Shown:
    """What some documents of a collection show.

    Attributes:
        width: numbers of the first vector in the field ``vector``; None where none is.
        references: path of a DBRef's id -> the source collections that the field refers to.
    """

    def __init__(self, data: bytes, spans: list[tuple[int, int]], database: str) -> None:
        """Look at the documents."""
        self.width: int | None = None
        targets: dict[str, set[str]] = {}
        for start, end in spans:
            # a damaged document shows nothing; where it is read it becomes a Reject
            with suppress(DamagedBsonError):
                self._look(data, start, end, database, targets)
        self.references = {path: sorted(found) for path, found in sorted(targets.items())}

    def _look(
        self, data: bytes, start: int, end: int, database: str, targets: dict[str, set[str]]
    ) -> None:
        for name, kind, at, to in read_elements(data, start, end):
            if name == _VECTOR.encode() and self.width is None:
                self.width = _width(data, kind, at, to)
            if kind == bson.DOCUMENT:
                for path, target in _reference(data, at, to, database):
                    full_path = f"{name.decode(errors='replace')}.{path}"
                    targets.setdefault(full_path, set()).add(target)

    def notes(self, collection: str) -> list[str]:
        """Say where the DBRefs point, which the documents say and the collection does not."""
        return [
            f"{collection}: {path} is a DBRef to {targets[0]} in the first documents; as a "
            f"relationship: {{type: reference, to: {path}, collection: {targets[0]}}}"
            if len(targets) == 1
            else f"{collection}: {path} is a DBRef to several collections ({', '.join(targets)}), "
            "and a relationship can name one"
            for path, targets in self.references.items()
        ]


def _width(data: bytes, kind: int, start: int, end: int) -> int | None:
    if kind == bson.ARRAY:
        arrays = read_number_arrays(data, [(start, end)])
        return len(arrays[0][1]) if arrays else None
    if kind == bson.BINARY:
        subtype, content = values.read_binary(data, start, end)
        return width_of_vector(content) if subtype == values.VECTOR_BINARY else None
    return None


def _reference(data: bytes, start: int, end: int, database: str) -> Iterator[tuple[str, str]]:
    """Give the path of the id and the source collection of an embedded document that is a DBRef."""
    members = {name: (kind, at, to) for name, kind, at, to in read_elements(data, start, end)}
    if not {b"$ref", b"$id"} <= members.keys() or members[b"$ref"][0] != bson.STRING:
        return
    if b"$db" in members and members[b"$db"][0] == bson.STRING:
        database = values.read_text(data, *members[b"$db"][1:])
    target = values.read_text(data, *members[b"$ref"][1:])
    wrapper = {bson.OBJECT_ID: ".$oid", bson.BINARY: ".$uuid"}.get(members[b"$id"][0], "")
    yield f"$id{wrapper}", f"{database}.{target}"


def _facts(connection: Connection, entry: Entry) -> tuple[dict[str, str], list[str]]:
    """Give the options and indexes of a collection as text."""
    facts = {
        name: json.dumps(value, sort_keys=True, default=str)
        for name, value in sorted(entry.options.items())
    }
    try:
        command: dict[str, Any] = {"listIndexes": entry.name, "cursor": {}}
        listed = connection.run(entry.database, command)["cursor"]["firstBatch"]
    except SourceError as error:
        if error.transient:
            raise
        return facts, [f"{entry.full_name}: its indexes could not be listed ({error.what})"]
    facts["indexes"] = json.dumps(
        [{key: value for key, value in index.items() if key != "ns"} for index in listed],
        sort_keys=True,
        default=str,
    )
    return facts, []


def _vector_indexes(connection: Connection, entry: Entry) -> list[dict[str, Any]]:
    """List the fields of the vector search indexes; none where the deployment has no such index."""
    command = {
        "aggregate": entry.name,
        "pipeline": [{"$listSearchIndexes": {}}],
        "cursor": {},
    }
    try:
        listed = connection.run(entry.database, command)["cursor"]["firstBatch"]
    except SourceError as error:
        if error.transient:
            raise
        return []
    return [
        dict(field)
        for index in listed
        for field in (index.get("latestDefinition") or {}).get("fields", [])
        if field.get("type") == "vector" and "path" in field
    ]
