"""Pages of Qdrant's points, from gRPC, from REST and from the engine, in the order of their ids.

As records.

gRPC's packed floats are read as bytes: a Python float for each number would cost more than the
request.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cfray.errors import SourceError
from cfray.formats import points
from cfray.records.record import Typed, variant_array
from cfray.sources.base import Json
from cfray.sources.qdrant.schema import Vector

Id: TypeAlias = int | str
#: A protobuf message or a model of the vendor's client, which ships no usable types.
Message: TypeAlias = Any
Point: TypeAlias = tuple[Id, dict[str, object], Mapping[str, Any]]

_OWN = {"shard_key": "payload.shard_key"}
#: From here to twice this a gRPC double may have been an integer of 64 bits without sign: the
#: protocol has int64 only (``json_with_int.proto``).
_BEYOND_INT64 = 2.0**63


class Inexact(Exception):
    """A page of gRPC holds a number that may have been an integer; REST says which it was."""


@dataclass(slots=True)
class Page:
    """Points as they came: ``vectors`` has a list for each declared vector.

    With None where a point has none.
    """

    ids: list[Id] = field(default_factory=list)
    payloads: list[dict[str, object]] = field(default_factory=list)
    vectors: dict[str, list[Any]] = field(default_factory=dict)
    following: Id | None = None

    def until(self, end: Id | None) -> Page:
        """Leave out what belongs to the next range, and end there."""
        stop = len(self.ids) if end is None else bisect_left(self.ids, key(end), key=key)
        if stop == len(self.ids) and (
            end is None or self.following is None or key(self.following) < key(end)
        ):
            return self
        return Page(
            self.ids[:stop],
            self.payloads[:stop],
            {name: column[:stop] for name, column in self.vectors.items()},
        )

    def batch(self, declares: Mapping[str, Vector]) -> pa.RecordBatch:
        """Make records of the page."""
        ids = variant_array(Typed("uuid", one) if isinstance(one, str) else one for one in self.ids)
        columns = {name: vector.column(self.vectors[name]) for name, vector in declares.items()}
        return points.batch(ids, columns, self.payloads, inside="payload")


def key(one: Id) -> tuple[bool, Id]:
    """Give what Qdrant orders points by.

    All integers first, then UUIDs by their 128 bits, which the texts order alike.
    """
    return isinstance(one, str), one


def id_json(one: Json) -> Id | None:
    """Read an id out of a shard's ``where``."""
    assert one is None or isinstance(one, int | str)
    return one


def tagged(one: object) -> str:
    """Write an id with its type."""
    return f"i:{one}" if isinstance(one, int) else f"u:{one}"


def page_of(
    found: Iterable[Point],
    declares: Mapping[str, Vector],
    *,
    following: Id | None = None,
    shard_key: Id | None = None,
    place: str = "",
) -> Page:
    """Gather points; each has an id, a payload and vectors by name.

    Under custom sharding the key of its shard is a field ``shard_key`` of each point, and a
    payload's own becomes ``payload.shard_key``.

    Raises:
        SourceError: a point has a vector that the collection did not declare when the plan was
            made.
    """
    page = Page(vectors={name: [] for name in declares}, following=following)
    for number, payload, vectors in found:
        if not vectors.keys() <= declares.keys():
            extra = min(vectors.keys() - declares.keys())
            raise SourceError(
                f"{place}: point {number} has a vector {extra!r} that the collection did not have when the plan was made",
                "start anew with another target, so that the new vector is planned for",
            )
        page.ids.append(number)
        if shard_key is None:
            page.payloads.append(payload)
        else:
            renamed = {_OWN.get(name, name): value for name, value in payload.items()}
            page.payloads.append({"shard_key": shard_key} | renamed)
        for name, column in page.vectors.items():
            column.append(vectors.get(name))
    return page


def from_record(record: Message) -> Point:
    """Read a point as the REST client and the engine give it."""
    number, vector = record.id, record.vector
    by_name = vector if isinstance(vector, dict) else {} if vector is None else {"": vector}
    vectors = {
        name: (one.indices, one.values) if hasattr(one, "indices") else one
        for name, one in by_name.items()
    }
    return number if isinstance(number, int) else str(number), record.payload or {}, vectors


def from_message(point: Message) -> Point:
    """Read a point as gRPC gives it."""
    given = point.vectors
    vectors: dict[str, Any] = {}
    if point.HasField("vectors"):
        if given.WhichOneof("vectors_options") == "vector":
            vectors = {"": _vector(given.vector)}
        else:
            vectors = {name: _vector(one) for name, one in given.vectors.vectors.items()}
    return id_of(point.id), {name: _value(one) for name, one in point.payload.items()}, vectors


def id_of(message: Message) -> Id:
    """Read a point id of gRPC."""
    found: Id = message.uuid if message.HasField("uuid") else message.num
    return found


def risen(page: Page, last: Id | None, place: str) -> Id | None:
    """Check that the ids of a page rise.

    Also from the page before to this one and to where the next begins; give the last one.

    Raises:
        SourceError: they do not: a page that repeats or goes back would double or lose rows.
    """
    told = (
        ([] if last is None else [last])
        + page.ids
        + ([] if page.following is None else [page.following])
    )
    if any(key(one) >= key(other) for one, other in pairwise(told)):
        raise SourceError(
            f"{place}: a scroll gave its points out of order",
            "report it with the server's version: rows would be lost or doubled",
        )
    return page.ids[-1] if page.ids else last


def ranges(ids: Iterable[Id], step: int) -> Iterator[tuple[str, dict[str, Json], int]]:
    """Cut rising ids into ranges of ``step``.

    Label, bounds (the first and the last are open) and number of ids.

    Labels sort as Qdrant orders ids.
    """
    start: Id | None = None
    count = 0
    for one in ids:
        if count == step:
            yield _range(start, one, count)
            start, count = one, 0
        count += 1
    yield _range(start, None, count)


def _range(start: Id | None, end: Id | None, count: int) -> tuple[str, dict[str, Json], int]:
    label = f"u-{start}" if isinstance(start, str) else f"i-{start or 0:020d}"
    return f"from-{label}", {"from": start, "to": end}, count


def _exact(number: float) -> float:
    if _BEYOND_INT64 <= number <= 2 * _BEYOND_INT64:  # the largest integer is rounded up to 2**64
        raise Inexact
    return number


_SCALARS: dict[str | None, Callable[[Message], object]] = {
    "string_value": lambda value: value.string_value,
    "integer_value": lambda value: value.integer_value,
    "double_value": lambda value: _exact(value.double_value),
    "bool_value": lambda value: value.bool_value,
    "null_value": lambda _null: None,
    None: lambda _unset: None,  # the server reads a value without content as null, too
    "list_value": lambda value: [_value(one) for one in value.list_value.values],
    "struct_value": lambda value: {
        name: _value(one) for name, one in value.struct_value.fields.items()
    },
}


def _value(value: Message) -> object:
    return _SCALARS[value.WhichOneof("kind")](value)


def _vector(given: Message) -> Any:
    """Read a vector: an array, a list of arrays, or (indices, values)."""
    form = given.WhichOneof("vector")
    if form == "dense":
        return floats(given.dense)
    if form == "sparse":
        return list(given.sparse.indices), list(given.sparse.values)
    if form == "multi_dense":
        return [floats(one) for one in given.multi_dense.vectors]
    flat = np.array(
        given.data, np.float32
    )  # servers before 1.16 fill only the fields that are now deprecated
    if given.HasField("indices"):
        return list(given.indices.data), flat
    return list(flat.reshape(given.vectors_count, -1)) if given.HasField("vectors_count") else flat


def floats(dense: Message) -> npt.NDArray[np.float32]:
    """Read the packed floats of a ``DenseVector`` out of its own bytes.

    Tag 0x0A, length, then little-endian float32.
    """
    raw = dense.SerializeToString()
    at, length, shift = 1, 0, 0
    while raw and at < len(raw):
        byte = raw[at]
        at, length, shift = at + 1, length | (byte & 0x7F) << shift, shift + 7
        if byte < 0x80:
            break
    if raw[:1] == b"\n" and length == len(raw) - at:
        return np.frombuffer(raw, "<f4", offset=at)
    return np.array(dense.data, np.float32)  # empty, or with fields of a newer protocol
