"""The vector columns of a source: which is the primary vector, and which travel beside it.

A frame has one primary vector, and all frames of a dataset have it in one width.  Every other
vector that a source holds lands in a column ``x_vector_<name>``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cfray.conversion.fields import Fields
from cfray.errors import ConfigError
from cfray.job.mapping import Path, VectorField, dotted, vector_field
from cfray.job.spec import JobSpec
from cfray.records import vectors
from cfray.records.record import VARIANT, is_variant, variant_numbers
from cfray.records.types import SPARSE
from cfray.records.vector_forms import BYTE_FORMS, UnreadableVectorError, VectorForm
from cfray.records.vector_values import decoded, is_vector_type
from cfray.sources.base import Collection, Description

#: The column of a store's named vectors (``vectors.<name>``).
_NAMED = "vectors"
#: The name behind ``x_vector_`` of the column that says how a vector was made.
_ORIGIN = "origin"
#: Begin of the names of columns that hold further vectors.
_PREFIX = "x_vector_"
#: Collections that a message lists for each width.
_LISTED_COLLECTIONS = 5


Types = dict[Path, list[pa.DataType]]


@dataclass(frozen=True, slots=True)
class FurtherVectors:
    """The vectors that travel beside the primary vector.

    Attributes:
        paths: name behind ``x_vector_`` -> source path.
        types: name behind ``x_vector_`` -> type name, where it is not the first type that the
            sample has of the path.
    """

    paths: dict[str, Path]
    types: dict[str, str]


def typed_columns(batches: list[pa.RecordBatch]) -> Types:
    """List the columns that are no variants with their types, in the order they appear.

    A store's named vectors count as columns; a column has several types where the source
    collections differ.
    """
    types: Types = {}
    for batch in batches:
        for item in batch.schema:
            if is_variant(item):
                continue
            columns: list[tuple[Path, pa.DataType]] = [((item.name,), item.type)]
            if item.name == _NAMED and pa.types.is_struct(item.type):
                columns = [((_NAMED, child.name), child.type) for child in item.type]
            for path, kind in columns:
                known = types.setdefault(path, [])
                if kind not in known:
                    known.append(kind)
    return types


def choose_primary(types: Types) -> Path:
    """Choose the primary vector where the mapping does not.

    It is the column ``vector``, or the only dense vector among a store's named vectors.

    Raises:
        ConfigError: the store has several named dense vectors.
    """
    named = {
        path: kind
        for path, kinds in types.items()
        for kind in kinds[:1]
        if path[0] == _NAMED
        and pa.types.is_fixed_size_list(kind)
        and pa.types.is_floating(kind.value_type)
    }
    if ("vector",) in types or not named:
        return ("vector",)
    if len(named) > 1:
        listed = ", ".join(
            f"{dotted(path)} ({kind.list_size} wide)" for path, kind in named.items()
        )
        first, second, *_ = map(dotted, named)
        raise ConfigError(
            f"the source has several vectors: {listed}",
            f"choose the primary vector (mapping.vector: {first}), or several of which each record "
            f"has one (mapping.vector: [{first}, {second}]); the others land in x_vector_<name>",
        )
    return next(iter(named))


def check_widths(description: Description, primary: list[VectorField]) -> None:
    """Refuse source collections whose primary vectors have different widths.

    Raises:
        ConfigError: names the widths and the collections.
    """
    collections: dict[int, list[str]] = {}
    for collection in description.collections:
        width = _primary_width(collection, primary)
        if width:
            collections.setdefault(width, []).append(collection.name)
    if len(collections) > 1:
        listed = "; ".join(
            f"{width} in {', '.join(names[:_LISTED_COLLECTIONS])}"
            for width, names in sorted(collections.items())
        )
        names = " or ".join(dotted(field.path) for field in primary)
        raise ConfigError(
            f"the source collections have {names} of different widths: {listed}",
            "a dataset has one width: name the collections of one width in source.collections, and "
            "write another job for each other width",
        )


def _primary_width(collection: Collection, primary: list[VectorField]) -> int | None:
    """Give the width of the first of these vectors that a collection has."""
    widths = [
        collection.dimension
        if field.path == ("vector",)
        else collection.vectors.get(field.path[-1], (None, None))[0]
        for field in primary
    ]
    return next((width for width in widths if width), None)


def further_vectors(
    job: JobSpec, types: Types, primary: list[VectorField], sample: list[Fields]
) -> FurtherVectors:
    """Name the vectors beside the primary vector.

    They are the vectors that the mapping names, every vector column that no rule takes, and the
    primary vector itself where its numbers are narrower than the target's float32, or where a
    record has a second one of several fields.  Where the source collections have vectors of one
    name in several types, each type has a column.

    Raises:
        ConfigError: the mapping names a column that holds no vectors.
    """
    paths: dict[str, Path] = {}
    column_types: dict[str, str] = {}
    for name, rule in job.mapping.vectors.items():
        further = vector_field(rule)
        paths[name] = further.path
        if type_name := _declared_type(name, further, sample):
            column_types[name] = type_name
    primary_paths = [field.path for field in primary]
    used = {path for _, path in job.mapping.rules()} | {*primary_paths, *paths.values()}
    doubled = _second_vectors(primary_paths, sample)
    for path, kinds in types.items():
        is_further = path not in used or path in doubled
        for kind in kinds:
            if (
                _is_further_vector(kind, named=path[0] == _NAMED)
                if is_further
                else path in primary_paths and _is_narrow_list(kind)
            ):
                name = _free_name(path, kind, paths)
                paths[name] = path
                if kind != kinds[0]:
                    column_types[name] = str(kind)
    return FurtherVectors(paths, column_types)


def vectors_of_frames(schema: pa.Schema) -> FurtherVectors:
    """Give the further vectors of records that are frames: their columns keep their names."""
    names = [
        field.name
        for field in schema
        if field.name.startswith(_PREFIX) and field.name != _PREFIX + _ORIGIN
    ]
    return FurtherVectors(
        {name.removeprefix(_PREFIX): (name,) for name in names},
        {name.removeprefix(_PREFIX): str(schema.field(name).type) for name in names},
    )


def check_column_names(columns: Iterable[str], vectors: dict[str, Path]) -> None:
    """Refuse a vector of the source whose column cfray writes itself.

    Args:
        columns: names behind ``x_vector_`` of the columns that the embedding makes.
        vectors: of the source, by the name behind ``x_vector_``.

    Raises:
        ConfigError: one of them would stand in the place of the other.
    """
    for name, path in vectors.items():
        if name == _ORIGIN:
            raise ConfigError(
                f"the source's vector {dotted(path)} would land in x_vector_{name}, which cfray "
                "writes itself",
                f"give it another name: mapping.vectors: {{source_{name}: {dotted(path)}}}",
            )
        if name in columns:
            raise ConfigError(
                f"embedding.columns.{name}: x_vector_{name} is the column of the source's vector "
                f"{dotted(path)}",
                "give the new column another name",
            )


def _free_name(path: Path, kind: pa.DataType, used: dict[str, Path]) -> str:
    """Name a column; a name that is used already gets the width or a number behind it."""
    name = _column_name(path)
    if used.get(name) == path and pa.types.is_fixed_size_list(kind):
        name = f"{name}_{kind.list_size}"
    return name if name not in used else f"{name}_{len(used)}"


def _second_vectors(primary: list[Path], sample: list[Fields]) -> set[Path]:
    """Find the fields that hold a second vector in a record of the sample."""
    doubled: set[Path] = set()
    for fields in sample if len(primary) > 1 else []:
        is_filled = np.zeros(fields.rows, np.bool_)
        for path in primary:
            column = fields.columns.get(path)
            if column is not None:
                is_present = column.is_valid().to_numpy(zero_copy_only=False)
                if (is_filled & is_present).any():
                    doubled.add(path)
                is_filled |= is_present
    return doubled


def _declared_type(name: str, field: VectorField, sample: list[Fields]) -> str | None:
    """Work out the type of a column whose vectors are texts, objects or bytes; None for lists.

    Raises:
        ConfigError: the field holds something, and none of it is a vector.
    """
    widths: Counter[int] = Counter()
    reason, is_list = "", False
    for fields in sample:
        column = fields.columns.get(field.path)
        if column is None or len(column) == column.null_count:
            continue
        if _is_further_vector(column.type, named=True):
            return None
        if field.form not in BYTE_FORMS:
            is_number_list = _number_lists(column)
            is_list = is_list or bool(pc.any(is_number_list).as_py())
            column = column.filter(pc.invert(is_number_list))
        widths.update(vectors.widths_of(column, field.form))
        reason = reason or first_reason(column, field.form)
    if is_list and not widths:
        return None
    if reason and not widths:
        raise ConfigError(
            f"mapping.vectors.{name}: {dotted(field.path)} holds no vector: {reason}",
            "correct the field, or say how its vectors are written (as: ...); nothing was created",
        )
    if not widths:
        return None
    number = {"floats": "float", "base64": "float", "halves": "halffloat"}.get(field.form, "double")
    return f"fixed_size_list<item: {number}>[{widths.most_common(1)[0][0]}]"


def _number_lists(column: pa.Array) -> pa.BooleanArray:
    """Tell which values are lists of numbers that need no decoding."""
    if column.type.equals(VARIANT):
        return variant_numbers(column).is_valid()
    is_list = pa.scalar(is_vector_type(column.type))
    return pc.and_(column.is_valid(), is_list)


def first_reason(column: pa.Array, form: VectorForm) -> str:
    """Say why the first value that is no vector cannot be read; empty if all can be read."""
    if is_vector_type(column.type) and form not in BYTE_FORMS:
        return ""
    errors = (item for item in decoded(column, form) if _is_error(item))
    return str(next(errors, ""))


def _is_error(item: object) -> bool:
    return isinstance(item, UnreadableVectorError)


def _column_name(path: Path) -> str:
    return re.sub(r"[^A-Za-z0-9_]", "_", path[-1])


def _is_further_vector(kind: pa.DataType, *, named: bool) -> bool:
    """Tell whether a column that no rule takes holds vectors.

    That is a fixed-size list of numbers; among a store's named vectors, a sparse vector or a
    multi-vector, too.
    """
    if pa.types.is_fixed_size_list(kind):
        return is_vector_type(kind) and (
            pa.types.is_floating(kind.value_type) or _is_narrow(kind.value_type)
        )
    return named and (
        kind.equals(SPARSE)
        or (pa.types.is_list(kind) and pa.types.is_fixed_size_list(kind.value_type))
    )


def _is_narrow_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_fixed_size_list(kind)) and _is_narrow(kind.value_type)


def _is_narrow(kind: pa.DataType) -> bool:
    """Tell the numbers that vectors may be stored in and that are narrower than float32."""
    return bool(pa.types.is_float16(kind) or pa.types.is_int8(kind) or pa.types.is_uint8(kind))
