"""Records of the documents on a page, and the reason for each document that cannot become one.

Vectors become columns of the type that the mapping declares; what else a document holds stays as
it is.  A scalar where the mapping declares a vector is refused: OpenSearch 3.6 gives the integer 1
for some vectors within objects (opensearch-project/OpenSearch#21184).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cfray.formats import points
from cfray.formats.columns import interleave, split_by_bytes
from cfray.records.record import MISSING, Reject, Typed, canonical
from cfray.sources.base import Context
from cfray.sources.lucene.schema import IndexSchema, VectorField

#: A document as a page gives it: ``_id``, ``_source``, and ``_routing`` where it has one.
Hit: TypeAlias = dict[str, Any]
Vector: TypeAlias = list[Any] | npt.NDArray[np.generic]

#: What stands before a field that is named like a column of the record.
_SOURCE = "_source"


class NoVector(Exception):
    """A value that is no vector; its text is the reason."""


def convert_page(
    hits: Sequence[Hit],
    schema: IndexSchema,
    context: Context,
    index: str,
    faults: Mapping[str, str] | None = None,
) -> Iterator[pa.RecordBatch | Reject]:
    """Make records of a page, in its order, and a Reject of each document that has a fault.

    Args:
        hits: of the page; their documents are taken apart.
        schema: of the index.
        context: of the run.
        index: name of the index, for positions.
        faults: ids of documents -> what is known against them already.
    """
    rejects: list[tuple[int, Reject]] = []
    rows: list[int] = []
    columns: dict[str, list[Any]] = {name: [] for name in schema.vectors}
    for row, hit in enumerate(hits):
        reason = (faults or {}).get(hit["_id"]) or _inner_fault(hit["_source"], schema)
        vectors: dict[str, Any] = {}
        if reason is None:
            try:
                vectors = {
                    name: read_vector(find_value(hit["_source"], vector.path), vector)
                    for name, vector in schema.vectors.items()
                }
            except NoVector as error:
                reason = str(error)
        if reason is not None:
            rejects.append((row, _reject(hit, reason, index)))
            continue
        rows.append(row)
        for name, vector_value in vectors.items():
            columns[name].append(vector_value)
    records = _build([hits[row] for row in rows], columns, schema)
    for item in interleave(rows, records, iter(rejects)):
        if isinstance(item, Reject):
            yield item
        else:
            yield from _bounded(item, context, index)


def _build(
    hits: Sequence[Hit], columns: Mapping[str, list[Any]], schema: IndexSchema
) -> pa.RecordBatch:
    payload: list[dict[str, object]] = []
    for hit in hits:
        fields: dict[str, object] = hit["_source"]
        for vector in schema.vectors.values():
            fields.pop(vector.path, None)
        for name, kind in schema.types.items():
            if isinstance(value := fields.get(name), str):
                fields[name] = Typed(kind, value)
        if "_routing" in hit:
            fields["_routing"] = hit["_routing"]
        payload.append(fields)
    arrays = {
        name: _vector_column(columns[name], vector) for name, vector in schema.vectors.items()
    }
    ids = pa.array([hit["_id"] for hit in hits], pa.string())
    return points.build_batch(ids, arrays, payload, payload_name=_SOURCE)


def _bounded(
    batch: pa.RecordBatch, context: Context, index: str
) -> Iterator[pa.RecordBatch | Reject]:
    """Cut a batch by bytes; a single record beyond the limit is refused."""
    for part in split_by_bytes(batch, context.batch_bytes):
        if len(part) == 1 and part.nbytes > context.max_record:
            record_id = part.column(0)[0].as_py()
            yield Reject(
                f"document of {part.nbytes} bytes is over limits.max_document",
                f"{index}, _id {str(record_id)[:80]}",
                str(record_id).encode(),
            )
        else:
            yield part


def _reject(hit: Hit, reason: str, index: str) -> Reject:
    content = {key: hit[key] for key in ("_id", "_routing", "_source") if key in hit}
    return Reject(reason, f"{index}, _id {hit['_id'][:80]}", canonical(content).encode())


def find_value(source: Mapping[str, Any], path: str) -> Any:
    """Give the value of a field; ``MISSING`` where the document has none.

    A document may write ``a.b`` as one key or as an object within an object.
    """
    if path in source:
        return source[path]
    head, dot, rest = path.partition(".")
    while dot:
        inner = source.get(head)
        if isinstance(inner, Mapping) and (value := find_value(inner, rest)) is not MISSING:
            return value
        step, dot, rest = rest.partition(".")
        head = f"{head}.{step}"
    return MISSING


def _inner_fault(source: Mapping[str, Any], schema: IndexSchema) -> str | None:
    """Say which vector within an object is none."""
    for vector in schema.inner_vectors:
        try:
            for value in inner_values(source, vector.path):
                read_vector(value, vector)
        except NoVector as error:
            return str(error)
    return None


def inner_values(source: Any, path: str) -> Iterator[Any]:
    """Give every value that objects, and lists of objects, have under a path."""
    if isinstance(source, list):
        for item in source:
            yield from inner_values(item, path)
        return
    if not isinstance(source, Mapping):
        return
    if path in source:
        yield source[path]
    parts = path.split(".")
    for length in range(1, len(parts)):
        key = ".".join(parts[:length])
        if key in source:
            yield from inner_values(source[key], ".".join(parts[length:]))


def read_vector(value: Any, vector: VectorField) -> Any:
    """Read a vector's value: numbers, base64 of big-endian float32, or hex digits of bytes.

    Returns:
        A list or an array of numbers; None where there is no vector.

    Raises:
        NoVector: the value is something else.
    """
    if value is MISSING or value is None:
        return None
    if isinstance(value, str):
        return _read_text(value, vector)
    if not isinstance(value, list):
        raise NoVector(
            f"field {vector.path} is {canonical(value)[:80]} where the mapping declares a vector: "
            "the server did not give the vector that was indexed"
        )
    if vector.is_multi:
        return [_check_numbers(item, vector) for item in value]
    return _check_numbers(value, vector)


def _check_numbers(value: Any, vector: VectorField) -> Vector:
    """Check a list without looking at each number where it is made of floats."""
    if isinstance(value, list):
        types = set(map(type, value))
        if types <= {float, int}:
            return value
    raise NoVector(f"field {vector.path} holds what is no number where a vector should be")


def _read_text(value: str, vector: VectorField) -> Vector:
    if vector.element != "float":
        try:
            raw = bytes.fromhex(value)
        except ValueError:
            raw = b""
        if raw and len(raw) == vector.width:
            return np.frombuffer(raw, np.int8)
    try:
        raw = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if vector.element == "float" and raw and len(raw) == 4 * vector.width:
        return np.frombuffer(raw, ">f4").astype(np.float32)
    if vector.element != "float" and raw and len(raw) == vector.width:
        return np.frombuffer(raw, np.int8)
    raise NoVector(
        f"field {vector.path} is a text that is neither base64 nor hex of {vector.width} numbers"
    )


def _vector_column(values: list[Any], vector: VectorField) -> pa.Array:
    """Make the column of a page; a document without the vector is null."""
    if not vector.width:
        width = next((len(value) for value in values if value is not None), 1)
        kind = pa.list_(vector.arrow_type().value_type, width)
    else:
        kind = vector.arrow_type()
    if vector.is_multi:
        return _multi_vector_column(values, vector)
    if vector.element == "bit":
        values = [None if value is None else _as_bytes(value) for value in values]
    return points.dense_column(values, kind)


def _as_bytes(value: Vector) -> npt.NDArray[np.uint8]:
    """Read bits, which the servers write as signed bytes."""
    return np.asarray(value, np.int16).astype(np.uint8)


def _multi_vector_column(values: list[Any], vector: VectorField) -> pa.Array:
    """Make a column of lists of vectors."""
    width = vector.width or next((len(row[0]) for row in values if row), 1)
    kind = pa.list_(vector.arrow_type().value_type, width)
    lists = [row or [] for row in values]
    inner = points.dense_column([item for row in lists for item in row], kind)
    if not pa.types.is_fixed_size_list(inner.type):
        return pa.array(values, pa.list_(pa.list_(kind.value_type)))
    offsets = np.cumsum([0, *map(len, lists)], dtype=np.int32)
    is_missing = pa.array([row is None for row in values], pa.bool_())
    return pa.ListArray.from_arrays(pa.array(offsets), inner, mask=is_missing)
