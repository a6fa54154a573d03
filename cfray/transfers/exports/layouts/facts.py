"""What a layout knows of the whole dataset before its first row is written.

Ids of one store are of one type, a field has one name in every file: no worker can find that out
from its own rows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import pyarrow as pa

from cfray.conversion.restore import Restoration
from cfray.job.mapping import Key, primary_vectors, rule_paths
from cfray.transfers.exports.fields import Column, Kinds

#: Types of ids that are integers of at most 64 bits with a sign.
_SIGNED = re.compile(r"int(8|16|32|64)|uint(8|16|32)")
#: Field that holds the id of a record where a store cannot take it as its own.
_ORIGINAL_ID = "original_id"


@dataclass(frozen=True, slots=True)
class VectorColumn:
    """A vector that frames have.

    Attributes:
        name: of the vector, the last part of its field's path.
        column: of the frames.
        type: Arrow's, of that column.
        is_named: whether the source calls it by a name beside others (``vectors.<name>``).
    """

    name: str
    column: str
    type: pa.DataType
    is_named: bool = False

    @property
    def is_sparse(self) -> bool:
        """Tell whether it is a struct of indices and values."""
        return bool(pa.types.is_struct(self.type))

    @property
    def is_multi(self) -> bool:
        """Tell whether it is a list of vectors."""
        return not self.is_sparse and _is_list(self.type.value_type)

    @property
    def is_dense(self) -> bool:
        """Tell whether it is a list of numbers."""
        return not self.is_sparse and not self.is_multi


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a dataset.

    Attributes:
        names: of all fields of the records, sorted.
        id_field: the field that is the id, where one field is it; else empty.
        id_kinds: types of its values.
        text_field: the field that is the text of every document; None where no single one is.
        vectors: that the records have; the primary vector is first, if there is one.
        vector_fields: names of the fields that hold vectors and nothing else.
        columns: the fields with one type each.
        wide: names of fields with integers beyond 2**53.
        collections: of the frames, sorted.
        shared: collections that hold records of several source collections, whose ids may meet.
    """

    names: tuple[str, ...]
    id_field: str
    id_kinds: frozenset[str]
    text_field: str | None
    vectors: tuple[VectorColumn, ...]
    vector_fields: frozenset[str] = frozenset()
    columns: tuple[Column, ...] = ()
    wide: frozenset[str] = frozenset()
    collections: tuple[str, ...] = ()
    shared: frozenset[str] = frozenset()

    @property
    def primary(self) -> VectorColumn | None:
        """Give the primary vector, where any record has one."""
        return next((item for item in self.vectors if item.column == "vector"), None)

    @property
    def has_integer_ids(self) -> bool:
        """Tell whether every id is an integer of at most 64 bits with a sign."""
        return len(self.id_kinds) == 1 and all(map(_SIGNED.fullmatch, self.id_kinds))

    @property
    def original_id(self) -> str:
        """Name the field that holds an id which the store cannot take."""
        return free_name(_ORIGINAL_ID, self.names)


def facts_of(
    restoration: Restoration,
    kinds: Kinds,
    schema: pa.Schema,
    *,
    has_primary: bool,
    columns: Iterable[Column],
    collections: dict[str, set[str]],
    text_field: str | None,
) -> Facts:
    """Put together what is known of a dataset.

    Args:
        restoration: gives its records back.
        kinds: of every row.
        schema: of the dataset.
        has_primary: whether any row has a primary vector.
        columns: the fields with one type each.
        collections: name -> uuids of the headers of its source collections.
        text_field: the field that is the text of every document.
    """
    columns = tuple(columns)
    id_paths = rule_paths(restoration.mapping.id)
    is_single = not isinstance(restoration.mapping.id, Key) and len(id_paths) == 1
    id_path = id_paths[0] if is_single and len(id_paths[0]) == 1 else None
    keys = {restoration.field_of(key): key for key in kinds.of_key}
    id_kinds: set[str] = set()
    if id_path is not None:
        id_kinds = kinds.of_key.get(keys.get(id_path, ""), set()) | {
            restoration.types.get(id_path, "")
        }
    wide = {restoration.first_name(restoration.field_of(key)) for key in kinds.wide}
    return Facts(
        names=tuple(sorted(column.name for column in columns)),
        id_field=id_path[0] if id_path else "",
        id_kinds=frozenset(id_kinds - {""}),
        text_field=text_field,
        vectors=tuple(_vectors(restoration, schema, has_primary=has_primary)),
        vector_fields=_vector_fields(restoration),
        columns=columns,
        wide=frozenset(wide),
        collections=tuple(sorted(collections)),
        shared=frozenset(name for name, headers in collections.items() if len(headers) > 1),
    )


def _vectors(
    restoration: Restoration, schema: pa.Schema, *, has_primary: bool
) -> Iterable[VectorColumn]:
    """List the vectors; one that stands in two columns, in two widths, is listed once."""
    further = {path: f"x_vector_{name}" for name, path in restoration.shape.vectors.items()}
    primary = [rule.path for rule in primary_vectors(restoration.mapping, restoration.shape)]
    used: set[str] = set()
    if has_primary:
        path = primary[0] if len(primary) == 1 else ("vector",)
        further.pop(path, None)  # the same numbers in the width that the source has them in
        used.add(path[-1])
        yield VectorColumn(path[-1], "vector", schema.field("vector").type, len(path) > 1)
    for path, column in further.items():
        if column in schema.names:
            name = free_name(path[-1], used)
            used.add(name)
            yield VectorColumn(name, column, schema.field(column).type, is_named=True)


def _vector_fields(restoration: Restoration) -> frozenset[str]:
    """Name the fields under which nothing but vectors stands."""
    paths = [rule.path for rule in primary_vectors(restoration.mapping, restoration.shape)]
    vectors = {*paths, *restoration.shape.vectors.values()}
    others = {
        restoration.first_name(path)
        for path in restoration.types
        if not any(path == vector[: len(path)] for vector in vectors)
    }
    return frozenset(restoration.first_name(path) for path in vectors) - others


def free_name(name: str, used: Iterable[str]) -> str:
    """Give a name that is not used: ``name``, else ``name_2``, ``name_3``."""
    names, candidate, number = set(used), name, 1
    while candidate in names:
        number += 1
        candidate = f"{name}_{number}"
    return candidate


def stored_names(
    names: Iterable[str], clean: Callable[[str], str], used: Iterable[str] = ()
) -> dict[str, str]:
    """Name fields as a store allows it, each by a name of its own.

    Args:
        names: of the fields.
        clean: gives a name that the store allows; an allowed one stays.
        used: names that stand for something else.
    """
    taken, stored = set(used), {}
    for name in sorted(names, key=lambda name: (clean(name) != name, name)):
        stored[name] = free_name(clean(name), taken)
        taken.add(stored[name])
    return stored


def _is_list(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )
