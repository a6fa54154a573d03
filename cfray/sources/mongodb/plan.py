"""Plan the shards of a live collection: ranges of ``_id`` with equal numbers of documents.

The bounds come from one walk over the index on ``_id``, which the server does alone: each
request skips a shard's documents and gives the next ``_id``.  Unlike a random sample
(``$sample``), the same documents give the same shards every time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from cfray.errors import SourceError
from cfray.sources.base import Json, Shard
from cfray.sources.mongodb import ids
from cfray.sources.mongodb.client import Connection
from cfray.sources.mongodb.elements import find_element
from cfray.sources.mongodb.pages import Range

#: Shards of a collection at most.
_MAX_SHARDS = 9_999
#: Documents whose size is measured where the server does not say how large they are.
_MEASURED_ROWS = 100


def plan_collection(connection: Connection, database: str, collection: str) -> Iterator[Shard]:
    """Plan one collection."""
    documents = Range(database, collection)
    row_bytes = average_bytes(connection, documents)
    rows = count_documents(connection, documents)
    step = max(1, connection.settings.shard_bytes // row_bytes, math.ceil(rows / _MAX_SHARDS))
    lower: Json = None
    left = rows
    for number, upper in enumerate(_bounds(connection, documents, step)):
        shard_rows = max(0, left) if upper is None else step
        yield Shard(
            f"{documents.name}#{number:04d}",
            {"from": lower, "to": upper},
            rows=shard_rows,
            size=row_bytes * shard_rows,
            collection=documents.name,
        )
        lower = upper
        left -= step


def _bounds(connection: Connection, documents: Range, step: int) -> Iterator[Json]:
    """Give the ids at which shards end, and None for the end of the last one.

    Raises:
        SourceError: the ids do not rise, for the server ignores the bound.
    """
    address = f"{connection.settings.address} {documents.name}"
    lower: Json = None
    while True:
        command: dict[str, Any] = {
            **documents.command(1, start=lower),
            "skip": step,
            "projection": {"_id": 1},
        }
        answer = connection.find(documents.database, command)
        if not answer.spans:
            yield None
            return
        start, end = answer.spans[0]
        identity = find_element(answer.data, start, end, b"_id")
        assert identity is not None
        order = ids.order_of(answer.data, identity.kind, identity.start, identity.end)
        previous = ids.bound_order(lower)
        if previous is not None and not previous < order:
            raise ids.ignored_bounds(address)
        lower = ids.encode_bound(answer.data, identity)
        yield lower


def count_documents(connection: Connection, documents: Range) -> int:
    """Count the documents of a collection by its index on ``_id``.

    The count that the server keeps is an estimate after a crash and on a sharded cluster.
    """
    command = {
        "aggregate": documents.collection,
        "pipeline": [{"$match": {}}, {"$group": {"_id": 1, "n": {"$sum": 1}}}],
        "hint": {"_id": 1},
        "cursor": {},
    }
    answer = connection.find(documents.database, command)
    if not answer.spans:
        return 0
    start, end = answer.spans[0]
    number = find_element(answer.data, start, end, b"n")
    assert number is not None
    return int.from_bytes(answer.data[number.start : number.end], "little")


def average_bytes(connection: Connection, documents: Range) -> int:
    """Give the average bytes of a document: as the server says, or as the first ones show."""
    try:
        stats = connection.run(
            documents.database,
            {
                "aggregate": documents.collection,
                "pipeline": [{"$collStats": {"storageStats": {}}}],
                "cursor": {},
            },
        )
        found = [
            int(shard["storageStats"]["avgObjSize"]) for shard in stats["cursor"]["firstBatch"]
        ]
        if found and max(found) > 0:
            return max(found)
    except (SourceError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, SourceError) and error.transient:
            raise
    answer = connection.find(documents.database, documents.command(_MEASURED_ROWS))
    sizes = [end - start for start, end in answer.spans]
    return max(1, sum(sizes) // len(sizes)) if sizes else 1
