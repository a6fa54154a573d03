"""The vectors of a reply, taken as the bytes in which they came.

Source: milvus-proto, ``schema.proto`` (``VectorField``, ``SparseFloatArray``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cfray.errors import SourceError
from cfray.records.types import SPARSE
from cfray.sources.milvus.schema import DENSE, Field, Message

#: Kind of a dense vector field -> the field of a reply that holds its bytes.
_REPLY_FIELDS = {
    "Float16Vector": "float16_vector",
    "BFloat16Vector": "bfloat16_vector",
    "Int8Vector": "int8_vector",
    "BinaryVector": "binary_vector",
}
#: A number of a sparse vector: 8 bytes.
_SPARSE_PAIR = np.dtype([("index", "<u4"), ("value", "<f4")])


def vector_column(field: Field, column: Message, rows: int) -> pa.Array:
    """Give a vector field's column; a null (of a nullable field) takes no room in the reply.

    Raises:
        SourceError: the reply holds more or fewer numbers than its vectors have.
    """
    is_valid = np.ones(rows, np.bool_)
    if column.valid_data:
        is_valid = np.array(column.valid_data, np.bool_)
    if field.kind == "SparseFloatVector":
        return _sparse_column(column.vectors.sparse_float_vector.contents, is_valid)
    width = field.arrow.list_size
    numbers = _dense_numbers(field, column.vectors)
    if numbers.size != is_valid.sum() * width:
        raise SourceError(
            f"field {field.name}: {numbers.size} numbers for {is_valid.sum()} vectors of {width}",
            "report this with the server's version",
        )
    if is_valid.all():
        return pa.FixedSizeListArray.from_arrays(pa.array(numbers), width)
    matrix = np.zeros((rows, width), numbers.dtype)
    matrix[is_valid] = numbers.reshape(-1, width)
    return pa.FixedSizeListArray.from_arrays(
        pa.array(matrix.reshape(-1)), width, mask=pa.array(~is_valid)
    )


def _dense_numbers(field: Field, vectors: Message) -> npt.NDArray[Any]:
    reply_type = DENSE[field.kind].reply_type
    if field.kind == "FloatVector":
        # The numbers are the last bytes of the packed field; to read its items would make a Python
        # float of each.  The copy is aligned, and Lance takes aligned memory only.
        packed = vectors.float_vector.SerializeToString()
        header_bytes = len(packed) - 4 * len(vectors.float_vector.data)
        return np.frombuffer(packed, reply_type, offset=header_bytes).copy()
    numbers = np.frombuffer(getattr(vectors, _REPLY_FIELDS[field.kind]), reply_type)
    return widen_bfloat16(numbers) if field.kind == "BFloat16Vector" else numbers


def widen_bfloat16(numbers: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    """Make float32 of bfloat16, which is the upper half of a float32."""
    return (numbers.astype(np.uint32) << 16).view(np.float32)


def _sparse_column(contents: Sequence[bytes], is_valid: npt.NDArray[np.bool_]) -> pa.Array:
    """Read rows of pairs (uint32 index, float32 value)."""
    if len(contents) == len(is_valid):
        contents = [row for row, valid in zip(contents, is_valid, strict=True) if valid]
    lengths = np.zeros(len(is_valid), np.int64)
    lengths[is_valid] = [len(row) // _SPARSE_PAIR.itemsize for row in contents]
    offsets = pa.array(np.concatenate(([0], np.cumsum(lengths))).astype(np.int32))
    pairs = np.frombuffer(b"".join(contents), _SPARSE_PAIR)
    children = [
        pa.ListArray.from_arrays(offsets, pa.array(np.ascontiguousarray(pairs[name])))
        for name in ("index", "value")
    ]
    mask = None if is_valid.all() else pa.array(~is_valid)
    return pa.StructArray.from_arrays(children, fields=list(SPARSE), mask=mask)
