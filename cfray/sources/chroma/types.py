"""Chroma's names and values as records.

A record has ``id``, ``vector``, ``text`` (the document), ``uri``, then the metadata keys.

A server and the copy of a persistent directory both answer with JSON, so one function
reads both.  An answer is not in the order of the request, hence the join by id; ids that
were asked for and are missing from the answer are named.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeAlias, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cfray.errors import SourceError
from cfray.formats import points
from cfray.records.record import canonical
from cfray.runtime.sdk import import_sdk

TENANT, DATABASE = "default_tenant", "default_database"

#: What stands before a metadata key that is named like a column of the record.
_PAYLOAD = "metadata"
#: The column that Chroma's records have beside those of every store.
_URI = ("uri",)
_GONE = "deleted meanwhile or lost: it was listed, and Chroma does not give it"
_NO_NUMBER = (
    "metadata key {key}: Chroma's JSON says null, which Chroma cannot hold: it writes Infinity so; "
    "a persistent directory, read with source.uri, gives the number"
)

#: A collection as the store describes it: ``id``, ``name``, ``dimension``, ``metadata``,
#: ``configuration_json``.
CollectionModel: TypeAlias = "Mapping[str, object]"


@dataclass(frozen=True, slots=True)
class CollectionAddress:
    """Where a collection is; its text is the source collection's name.

    The text is ``collection`` in Chroma's default tenant and database, otherwise
    ``tenant/database/collection``.
    """

    tenant: str
    database: str
    collection: str

    def __str__(self) -> str:
        """Leave the tenant and the database out where both are Chroma's defaults."""
        if (self.tenant, self.database) == (TENANT, DATABASE):
            return self.collection
        return f"{self.tenant}/{self.database}/{self.collection}"

    @classmethod
    def parse(cls, text: str, tenant: str = TENANT, database: str = DATABASE) -> CollectionAddress:
        """Read a name; a bare name belongs to the given tenant and database.

        Raises:
            SourceError: the text is neither one name nor three.
        """
        names = text.split("/")
        if len(names) not in (1, 3) or not all(names):
            raise SourceError(
                f"{text} names no Chroma collection",
                "write collection or tenant/database/collection in source.collections",
            )
        return cls(tenant, database, text) if len(names) == 1 else cls(*names)


def parse_answer(answer: bytes) -> object:
    """Read the JSON of an answer; the copy of a directory writes Infinity and NaN as bare words.

    Raises:
        SourceError: the answer is no JSON, so it does not come from Chroma.
    """
    try:
        return cast("object", import_sdk("orjson", "chroma").loads(answer))
    except ValueError:
        with suppress(ValueError):
            return cast("object", json.loads(answer))
        raise SourceError(
            f"the answer is not Chroma's: {answer[:80]!r}",
            "let source.url name the Chroma server itself",
        ) from None


#: Id of a record that was asked for -> why it cannot be read, and what there is of it.
Unreadable: TypeAlias = "dict[str, tuple[str, bytes]]"


def build_records(
    answer: bytes, requested_ids: Sequence[str], dimension: int | None
) -> tuple[pa.RecordBatch, Unreadable]:
    """Make records of an answer, in the order in which they were asked for.

    Args:
        answer: JSON, with a list for each column.
        requested_ids: without repetitions.
        dimension: of the collection; None where it declares none.

    Returns:
        The records of the answer, and the requested ids that give none.

    Raises:
        SourceError: a record is in the answer twice, or was not asked for.
    """
    page = cast("dict[str, list[object] | None]", parse_answer(answer))
    ids = cast("list[str]", page["ids"])
    index_of = {record_id: index for index, record_id in enumerate(ids)}
    if len(index_of) != len(ids) or not index_of.keys() <= set(requested_ids):
        raise SourceError(
            "Chroma gave a record twice, or a record that was not asked for",
            "report this: nothing was written of the shard",
        )
    documents, uris, metadatas, embeddings = (
        page.get(name) or [None] * len(ids)
        for name in ("documents", "uris", "metadatas", "embeddings")
    )
    unreadable: Unreadable = {}
    order: list[int] = []
    for record_id in requested_ids:
        index = index_of.get(record_id)
        if index is None:
            unreadable[record_id] = _GONE, record_id.encode()
        elif nulls := [key for key, value in as_mapping(metadatas[index]).items() if value is None]:
            content = {
                "id": record_id,
                "document": documents[index],
                "uri": uris[index],
                "metadata": metadatas[index],
                "embedding": embeddings[index],
            }
            unreadable[record_id] = _NO_NUMBER.format(key=nulls[0]), canonical(content).encode()
        else:
            order.append(index)
    if dimension is None:
        dimension = next((len(vector) for vector in embeddings if isinstance(vector, list)), None)
    vectors = {} if dimension is None else {"": _vectors(embeddings, order, dimension)}
    records = points.build_batch(
        pa.array([ids[index] for index in order], pa.string()),
        vectors,
        [_payload(metadatas[index], uris[index]) for index in order],
        payload_name=_PAYLOAD,
        texts=pa.array([documents[index] for index in order], pa.string()),
    )
    return records, unreadable


def _vectors(column: list[object], order: list[int], dimension: int) -> pa.Array:
    """Make the vector column; a record without a vector is null."""
    kind = pa.list_(pa.float32(), dimension)
    if None in column or not order:
        vectors = [column[index] for index in order]
        return points.dense_column(
            [
                None if vector is None else points.to_float32(np.asarray(vector, np.float64))
                for vector in vectors
            ],
            kind,
        )
    matrix = points.to_float32(np.asarray(column, np.float64))[order]
    return points.dense_column(cast("Sequence[npt.NDArray[np.float32]]", matrix), kind)


def _payload(metadata: object, uri: object) -> dict[str, object]:
    """Put the metadata and the record's uri together.

    A metadata key ``uri`` becomes ``metadata.uri``, as every key does that is named like a
    column of the record.
    """
    payload = {
        points.unreserved_name(key, _URI, _PAYLOAD): value
        for key, value in as_mapping(metadata).items()
    }
    return payload if uri is None else {**payload, "uri": uri}


def as_mapping(value: object) -> dict[str, object]:
    """Give a part of an answer that is an object, or an empty one for anything else."""
    return value if isinstance(value, dict) else {}
