"""What the fields of a bulk-writer file are, by the first value that each of them has.

A file holds no schema, and a record may lack a value or hold a null: so a field is judged by
its first present value, wherever in the file that stands.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from cfray.records.record import Reject, is_variant, variant_types
from cfray.sources.base import Json
from cfray.sources.milvus.schema import DENSE

#: Field -> one record of the file: the first in which the field has a value, if any has.
Samples: TypeAlias = "dict[str, pa.RecordBatch]"

_BYTE_LIST = pa.list_(pa.uint8())
#: Kinds whose vectors Parquet holds as bytes, two for each number.
_HALF_KINDS = ("Float16Vector", "BFloat16Vector")


def sample_fields(
    items: Iterable[pa.RecordBatch | Reject],
    is_enough: Callable[[Collection[str], Samples], bool],
) -> Samples:
    """Find the first value of each field.

    Args:
        items: the records of a file, with its columns as they are.
        is_enough: whether no more need be read, by the names of the fields and by the fields that
            have a value so far.

    Returns:
        The fields, in the order in which they came; one that has no value has a record without it.
    """
    names: Samples = {}
    samples: Samples = {}
    for item in items:
        if isinstance(item, Reject):
            continue
        for name in item.schema.names:
            names.setdefault(name, item.slice(0, 1))
            if name not in samples and (rows := present_rows(item, name)):
                samples[name] = item.slice(rows[0], 1)
        if is_enough(names, samples):
            break
    return names | samples


def present_rows(batch: pa.RecordBatch, name: str) -> list[int]:
    """List the records in which a field is neither missing nor null."""
    column = batch[name]
    is_present = column.is_valid()
    if is_variant(batch.schema.field(name)):
        types = variant_types(column).fill_null("null")
        is_present = pc.and_(is_present, pc.not_equal(types, "null"))
    rows: list[int] = pc.indices_nonzero(is_present).to_pylist()
    return rows


def has_list_of_floats(samples: Samples, name: str, numbers: pa.DataType) -> bool:
    """Tell whether the first value of a field is a list of floats of this type, or JSON's."""
    file_field, column = samples[name].schema.field(name), samples[name][name]
    if is_variant(file_field):
        return bool(variant_types(column)[0].as_py() == "list<double>")
    return bool(file_field.type == pa.list_(numbers)) and bool(column[0].is_valid)


def vector_dimension(kind: str, samples: Samples, name: str) -> int:
    """Give the dimension of a field's first vector as the collection counts it; 0 for no vector."""
    if kind not in DENSE:
        return 0
    file_field, column = samples[name].schema.field(name), samples[name][name]
    lists = column.flatten()[2] if is_variant(file_field) else column
    if not is_list_like(lists.type) or not lists[0].is_valid:
        return 0
    return len(lists[0]) * DENSE[kind].packed // (2 if is_halves(kind, file_field) else 1)


def is_list_like(kind: pa.DataType) -> bool:
    """Tell the lists of Arrow whose items are counted one by one."""
    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def is_halves(kind: str, file_field: pa.Field) -> bool:
    """Tell whether a column holds 16-bit floats as bytes."""
    return kind in _HALF_KINDS and bool(file_field.type == _BYTE_LIST)


def merge_kinds(kinds: Iterable[Mapping[str, list[Json]]]) -> dict[str, list[Json]]:
    """Agree on the fields of several files: what the first file says that has a value.

    Args:
        kinds: of each file: field -> kind, kind of the elements, dimension.
    """
    merged: dict[str, list[Json]] = {}
    for fields in kinds:
        for name, parameters in fields.items():
            if name not in merged or not merged[name][2]:
                merged[name] = parameters
    return merged
