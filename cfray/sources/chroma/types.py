"""Chroma's names and values as records.

A record has ``id``, ``vector``, ``text`` (the document), ``uri``, then the metadata keys.

A server and the copy of a persistent directory both answer with JSON, so one function
reads both.  An answer is not in the order of the request, hence the join by id; ids that
were asked for and are missing from the answer are named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cfray.errors import SourceError
from cfray.formats import points
from cfray.records.record import canonical
from cfray.runtime.sdk import import_sdk
from cfray.sources.base import Collection, Metric

TENANT, DATABASE = "default_tenant", "default_database"
METRICS: dict[str, Metric] = {"l2": "l2", "cosine": "cosine", "ip": "dot"}
#: A setting of an embedding function is a secret if its name contains one of these words.
_SECRET_WORDS = ("key", "token", "secret", "password", "header", "credential")

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
    """Read the JSON of an answer.

    Raises:
        SourceError: the answer is no JSON, so it does not come from Chroma.
    """
    try:
        return cast("object", import_sdk("orjson", "chroma").loads(answer))
    except ValueError:
        raise SourceError(
            f"the answer is not Chroma's: {answer[:80]!r}",
            "let source.url name the Chroma server itself",
        ) from None


def to_float32(numbers: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Give the float32 numbers whose shortest texts the store wrote.

    Such a text, read as float64, may lie exactly between two float32 (7.038531e-26 does);
    then the neighbour with that text is the stored number.
    """
    flat = numbers.reshape(-1)
    rounded = flat.astype(np.float32)
    # the 29 bits that a float32 lacks are exactly half of its last bit
    ties = np.flatnonzero((flat.view(np.uint64) & 0x1FFFFFFF) == 0x10000000)
    for index in ties:
        neighbours = (
            rounded[index],
            np.nextafter(rounded[index], np.float32(np.inf)),
            np.nextafter(rounded[index], np.float32(-np.inf)),
        )
        with_same_text = (number for number in neighbours if float(str(number)) == flat[index])
        rounded[index] = next(with_same_text, rounded[index])
    return rounded.reshape(numbers.shape)


def build_records(
    answer: bytes, requested_ids: Sequence[str], dimension: int | None
) -> tuple[pa.RecordBatch, list[str]]:
    """Make records of an answer, in the order in which they were asked for.

    Args:
        answer: JSON, with a list for each column.
        requested_ids: without repetitions.
        dimension: of the collection; None where it has no vectors.

    Returns:
        The records of the answer, and the requested ids that it lacks.

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
    order = [index_of[record_id] for record_id in requested_ids if record_id in index_of]
    missing_ids = [record_id for record_id in requested_ids if record_id not in index_of]
    vectors = {} if dimension is None else {"": _vectors(page.get("embeddings"), order, dimension)}
    documents, uris, metadatas = (
        page.get(name) or [None] * len(ids) for name in ("documents", "uris", "metadatas")
    )
    payload = [_payload(metadatas[index], uris[index]) for index in order]
    records = points.build_batch(
        pa.array([ids[index] for index in order], pa.string()),
        vectors,
        payload,
        payload_name="metadata",
        texts=pa.array([documents[index] for index in order], pa.string()),
    )
    return records, missing_ids


def _vectors(column: list[object] | None, order: list[int], dimension: int) -> pa.Array:
    """Make the vector column; a record without a vector is null."""
    kind = pa.list_(pa.float32(), dimension)
    if not column or None in column or not order:
        vectors = [column[index] if column else None for index in order]
        return points.dense_column(
            [
                None if vector is None else to_float32(np.asarray(vector, np.float64))
                for vector in vectors
            ],
            kind,
        )
    matrix = to_float32(np.asarray(column, np.float64))[order]
    return points.dense_column(cast("Sequence[npt.NDArray[np.float32]]", matrix), kind)


def _payload(metadata: object, uri: object) -> dict[str, object]:
    """Put the metadata and the record's uri together.

    A metadata key ``uri`` becomes ``metadata.uri``, as every key does that is named like a
    column of the record.
    """
    payload = _mapping(metadata)
    if "uri" in payload:
        name = "metadata.uri"
        while name in payload:
            name = f"metadata.{name}"
        payload[name] = payload.pop("uri")
    if uri is not None:
        payload["uri"] = uri
    return payload


def to_collection(address: CollectionAddress, model: CollectionModel, rows: int) -> Collection:
    """Describe a collection: its dimension, its metric, and its settings as facts."""
    facts = {
        "id": str(model["id"]),
        **_configuration_facts(_mapping(model.get("configuration_json"))),
    }
    for key, value in _mapping(model.get("metadata")).items():
        facts[f"metadata.{key}"] = _text(value)
    dimension = model.get("dimension")
    space = facts.get("hnsw.space") or facts.get("spann.space") or facts.get("metadata.hnsw:space")
    return Collection(
        str(address),
        rows=rows,
        dimension=dimension if isinstance(dimension, int) else None,
        metric=METRICS.get(space or "l2") if dimension else None,
        facts=dict(sorted(facts.items())),
    )


def _configuration_facts(configuration: dict[str, object]) -> dict[str, str]:
    """Write the index parameters and the embedding function as facts, without secrets."""
    facts: dict[str, str] = {}
    for index in ("hnsw", "spann"):
        for key, value in _mapping(configuration.get(index)).items():
            if value is not None:
                facts[f"{index}.{key}"] = _text(value)
    function = _mapping(configuration.get("embedding_function"))
    if function:
        facts["embedding_function"] = _text(function.get("name") or function.get("type"))
    for key, value in _mapping(function.get("config")).items():
        is_secret = any(word in key.lower() for word in _SECRET_WORDS)
        if value is not None and not is_secret:
            facts[f"embedding_function.{key}"] = _text(value)
    return facts


def _mapping(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else canonical(value)
