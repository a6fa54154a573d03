"""The paths of the fields that hold values: objects opened, vectors and maps left whole.

An object whose keys are 0, 1, 2, ... is a vector that JavaScript wrote, and an object with
hundreds of keys is a map: neither is opened.  Of a list of objects only a single object that
holds a vector is opened, as an answer of an embedding service has it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from cfray.conversion.list_items import item_path
from cfray.inspection.vector_probe import MIN_DIMENSION
from cfray.job.mapping import Path
from cfray.records.record import is_variant, parsed, variant_texts, variant_types
from cfray.records.types import SPARSE
from cfray.records.vector_values import is_vector_type

#: Levels that a path may have.
_MAX_DEPTH = 6
#: Keys of an object from which on it is a map.
_MAX_KEYS = 200


def leaf_paths(item: pa.Field, column: pa.Array) -> list[Path]:
    """List the paths of a column that have no field below them, in the column's order."""
    if is_variant(item):
        is_opened = pc.is_in(variant_types(column), pa.array(["struct", "list"]))
        values = [parsed(text) for text in variant_texts(column.filter(is_opened)).to_pylist()]
        return list(dict.fromkeys(_value_leaves((item.name,), values)))
    return list(_column_leaves((item.name,), column))


def _column_leaves(path: Path, column: pa.Array) -> Iterator[Path]:
    kind = column.type
    if _is_single_answer(column):
        yield from _column_leaves(item_path(path, 0), column.flatten())
        return
    names = [child.name for child in kind] if pa.types.is_struct(kind) else []
    if not _is_opened(path, names) or kind.equals(SPARSE):
        yield path
        return
    for index, name in enumerate(names):
        yield from _column_leaves((*path, name), pc.struct_field(column, [index]))


def _is_single_answer(column: pa.Array) -> bool:
    """Tell lists that hold one object each, with a list of numbers in it."""
    kind = column.type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        return False
    if not pa.types.is_struct(kind.value_type) or not any(
        is_vector_type(child.type) for child in kind.value_type
    ):
        return False
    return bool(pc.max(pc.list_value_length(column)).as_py() == 1)


def _value_leaves(path: Path, values: Sequence[object]) -> Iterator[Path]:
    answers = [value for value in values if isinstance(value, list) and value]
    if answers and all(map(_is_answer, answers)):
        yield from _value_leaves(item_path(path, 0), [answer[0] for answer in answers])
        return
    objects = [value for value in values if isinstance(value, dict)]
    names = list(dict.fromkeys(key for value in objects for key in value))
    if not _is_opened(path, names):
        yield path
        return
    for name in names:
        yield from _value_leaves((*path, name), [value[name] for value in objects if name in value])


def _is_answer(value: list[object]) -> bool:
    """Tell a list of one object that holds a list of numbers."""
    if len(value) != 1 or not isinstance(value[0], dict):
        return False
    return any(
        isinstance(item, list)
        and len(item) >= MIN_DIMENSION
        and all(type(number) in (int, float) for number in item)
        for item in value[0].values()
    )


def _is_opened(path: Path, names: list[str]) -> bool:
    is_vector = len(names) >= MIN_DIMENSION and all(map(str.isdigit, names))
    return bool(names) and not is_vector and len(names) <= _MAX_KEYS and len(path) < _MAX_DEPTH
