"""Chroma's names and values as records.

``id``, ``vector``, ``text`` (the document), ``uri``, then the metadata keys.

An answer comes as JSON, from a server and from the copy of a persistent directory
alike, so there is one way to read it.  Its order is not the order that was asked
for, hence the join by id; what was asked for and is not in it is named.
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
#: Settings of embedding functions whose values are nobody's business.
_PRIVATE = ("key", "token", "secret", "password", "header", "credential")

#: A collection as the store describes it: ``id``, ``name``, ``dimension``, ``metadata``,
#: ``configuration_json``.
Model: TypeAlias = "Mapping[str, object]"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a collection is; its text is the source collection's name.

    ``[tenant/database/]collection``.
    """

    tenant: str
    database: str
    collection: str

    def __str__(self) -> str:
        """Leave the tenant and the database out where both are Chroma's defaults."""
        usual = (self.tenant, self.database) == (TENANT, DATABASE)
        return self.collection if usual else f"{self.tenant}/{self.database}/{self.collection}"

    @classmethod
    def named(cls, text: str, tenant: str = TENANT, database: str = DATABASE) -> Place:
        """Read a name; a bare one is in the tenant and database given.

        Raises:
            SourceError: neither one name nor three.
        """
        parts = text.split("/")
        if len(parts) not in (1, 3) or not all(parts):
            raise SourceError(
                f"{text} names no Chroma collection",
                "write collection or tenant/database/collection in source.collections",
            )
        return cls(tenant, database, text) if len(parts) == 1 else cls(*parts)


def parsed(answer: bytes) -> object:
    """Read an answer.

    Raises:
        SourceError: it is no JSON, so what sent it is no Chroma.
    """
    try:
        return cast("object", import_sdk("orjson", "chroma").loads(answer))
    except ValueError:
        raise SourceError(
            f"the answer is not Chroma's: {answer[:80]!r}",
            "let source.url name the Chroma server itself",
        ) from None


def narrowed(numbers: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Give the float32 that the store wrote as its shortest text.

    Read as float64, such a text may fall just between two float32 (7.038531e-26 does): then the one
    with that text is meant.
    """
    flat = numbers.reshape(-1)
    found = flat.astype(np.float32)
    for at in np.flatnonzero((flat.view(np.uint64) & 0x1FFFFFFF) == 0x10000000):
        near = (
            found[at],
            np.nextafter(found[at], np.float32(np.inf)),
            np.nextafter(found[at], np.float32(-np.inf)),
        )
        found[at] = next((one for one in near if float(str(one)) == flat[at]), found[at])
    return found.reshape(numbers.shape)


def batch(
    answer: bytes, wanted: Sequence[str], width: int | None
) -> tuple[pa.RecordBatch, list[str]]:
    """Put the records of an answer into the order they were asked for.

    Args:
        answer: JSON, columns side by side.
        wanted: the ids asked for, each once.
        width: dimension of the collection; None where it has no vectors.

    Returns:
        the records that came, and the ids that did not.
    """
    page = cast("dict[str, list[object] | None]", parsed(answer))
    ids = cast("list[str]", page["ids"])
    place = {name: number for number, name in enumerate(ids)}
    if len(place) != len(ids) or not place.keys() <= set(wanted):
        raise SourceError(
            "Chroma gave a record twice, or one that was not asked for",
            "report this: nothing was written of the shard",
        )
    order = [place[name] for name in wanted if name in place]
    missing = [name for name in wanted if name not in place] if len(place) < len(wanted) else []
    vectors = {} if width is None else {"": _vectors(page.get("embeddings"), order, width)}
    documents, uris, metadatas = (
        page.get(name) or [None] * len(ids) for name in ("documents", "uris", "metadatas")
    )
    payload = [_payload(cast("dict[str, object] | None", metadatas[at]), uris[at]) for at in order]
    names = pa.array([ids[at] for at in order], pa.string())
    texts = pa.array([documents[at] for at in order], pa.string())
    return points.batch(names, vectors, payload, inside="metadata", texts=texts), missing


def _vectors(column: list[object] | None, order: list[int], width: int) -> pa.Array:
    """Make the vector column; a record without a vector is null."""
    kind = pa.list_(pa.float32(), width)
    given = column or [None] * (max(order, default=-1) + 1)
    if None in given or not order:
        some = [given[at] for at in order]
        return points.dense(
            [None if one is None else narrowed(np.asarray(one, np.float64)) for one in some], kind
        )
    return points.dense(
        cast("Sequence[npt.NDArray[np.float32]]", narrowed(np.asarray(given, np.float64))[order]),
        kind,
    )


def _payload(metadata: dict[str, object] | None, uri: object) -> dict[str, object]:
    """Give the metadata, and the record's uri.

    Metadata of that name goes the way of every name that is the record's own.
    """
    payload = metadata or {}
    if "uri" in payload:
        name = "metadata.uri"
        while name in payload:
            name = f"metadata.{name}"
        payload[name] = payload.pop("uri")
    if uri is not None:
        payload["uri"] = uri
    return payload


def collection(place: Place, model: Model, rows: int) -> Collection:
    """Say what the store says of a collection."""
    configured = _mapping(model.get("configuration_json"))
    metadata = _mapping(model.get("metadata"))
    facts = {"id": str(model["id"])}
    for index in ("hnsw", "spann"):
        facts |= {
            f"{index}.{key}": _text(value)
            for key, value in _mapping(configured.get(index)).items()
            if value is not None
        }
    function = _mapping(configured.get("embedding_function"))
    if function:
        facts["embedding_function"] = _text(function.get("name") or function.get("type"))
        settings = {
            key: value
            for key, value in _mapping(function.get("config")).items()
            if not any(word in key.lower() for word in _PRIVATE)
        }
        facts |= {
            f"embedding_function.{key}": _text(value)
            for key, value in settings.items()
            if value is not None
        }
    facts |= {f"metadata.{key}": _text(value) for key, value in metadata.items()}
    width = model.get("dimension")
    space = facts.get("hnsw.space") or facts.get("spann.space") or facts.get("metadata.hnsw:space")
    metric = METRICS.get(space or "l2") if width else None
    return Collection(
        str(place),
        rows,
        width if isinstance(width, int) else None,
        metric,
        facts=dict(sorted(facts.items())),
    )


def _mapping(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else canonical(value)
