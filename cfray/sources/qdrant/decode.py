"""Points as gRPC, REST and the engine give them, decoded without a loss.

gRPC's packed floats are read as bytes: a Python float for each number would cost more than
the request.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from cfray.sources.qdrant.types import Point, PointId

#: A protobuf message or a model of the vendor's client, which ships no usable types.
Message: TypeAlias = Any

#: From here to twice this a gRPC double may have been an unsigned integer of 64 bits: the protocol
#: has int64 only (``json_with_int.proto``).
_BEYOND_INT64 = 2.0**63


class AmbiguousNumber(Exception):
    """A page of gRPC holds a double that may have been an integer; REST says which it was."""


def decode_record(record: Message) -> Point:
    """Decode a point as the REST client and the engine give it."""
    point_id, vector = record.id, record.vector
    if isinstance(vector, dict):
        named_vectors = vector
    elif vector is None:
        named_vectors = {}
    else:
        named_vectors = {"": vector}
    vectors = {
        name: (value.indices, value.values) if hasattr(value, "indices") else value
        for name, value in named_vectors.items()
    }
    return point_id if isinstance(point_id, int) else str(point_id), record.payload or {}, vectors


def decode_message(point: Message) -> Point:
    """Decode a point as gRPC gives it.

    Raises:
        AmbiguousNumber: only REST can say what a number in it was.
    """
    vectors: dict[str, Any] = {}
    if point.HasField("vectors"):
        if point.vectors.WhichOneof("vectors_options") == "vector":
            vectors = {"": _decode_vector(point.vectors.vector)}
        else:
            named_vectors = point.vectors.vectors.vectors
            vectors = {name: _decode_vector(vector) for name, vector in named_vectors.items()}
    payload = {name: _decode_value(value) for name, value in point.payload.items()}
    return decode_id(point.id), payload, vectors


def decode_id(message: Message) -> PointId:
    """Decode a point id of gRPC."""
    point_id: PointId = message.uuid if message.HasField("uuid") else message.num
    return point_id


def _check_exact(number: float) -> float:
    # the largest unsigned integer is rounded up to 2**64
    if _BEYOND_INT64 <= number <= 2 * _BEYOND_INT64:
        raise AmbiguousNumber
    return number


_DECODERS: dict[str | None, Callable[[Message], object]] = {
    "string_value": lambda value: value.string_value,
    "integer_value": lambda value: value.integer_value,
    "double_value": lambda value: _check_exact(value.double_value),
    "bool_value": lambda value: value.bool_value,
    "null_value": lambda _null: None,
    # the server, too, reads a value without content as null
    None: lambda _unset: None,
    "list_value": lambda value: [_decode_value(item) for item in value.list_value.values],
    "struct_value": lambda value: {
        name: _decode_value(item) for name, item in value.struct_value.fields.items()
    },
}


def _decode_value(value: Message) -> object:
    return _DECODERS[value.WhichOneof("kind")](value)


def _decode_vector(vector: Message) -> Any:
    """Decode a vector: an array, a list of arrays, or (indices, values)."""
    form = vector.WhichOneof("vector")
    if form == "dense":
        return decode_floats(vector.dense)
    if form == "sparse":
        return list(vector.sparse.indices), list(vector.sparse.values)
    if form == "multi_dense":
        return [decode_floats(inner) for inner in vector.multi_dense.vectors]
    # servers before 1.16 fill only the fields that are now deprecated
    numbers = np.array(vector.data, np.float32)
    if vector.HasField("indices"):
        return list(vector.indices.data), numbers
    if vector.HasField("vectors_count"):
        return list(numbers.reshape(vector.vectors_count, -1))
    return numbers


def decode_floats(dense: Message) -> npt.NDArray[np.float32]:
    """Read the packed floats of a ``DenseVector`` out of the bytes of its message.

    They are the tag 0x0A, the length as a varint, then the numbers as little-endian float32.
    """
    raw = dense.SerializeToString()
    start, length, shift = 1, 0, 0
    while raw and start < len(raw):
        byte = raw[start]
        start, length, shift = start + 1, length | (byte & 0x7F) << shift, shift + 7
        if byte < 0x80:
            break
    if raw[:1] == b"\n" and length == len(raw) - start:
        return np.frombuffer(raw, "<f4", offset=start)
    # the message is empty, or has fields of a newer protocol
    return np.array(dense.data, np.float32)
