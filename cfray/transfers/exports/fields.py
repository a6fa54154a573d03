"""The fields that an export writes, with one type each, for formats whose columns have types.

A field of a source without a schema may hold values of several types.  Which ones it holds is
surveyed before anything is written: every row whose value has another type than the dataset records
names it.  A field of one type has a column of that type; one of several types, or of a type that
Arrow does not have, a column of JSON texts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import pyarrow as pa
import pyarrow.compute as pc

from cfray.conversion.list_items import item_of
from cfray.conversion.restore import Restoration
from cfray.conversion.shown_values import ABSENT, MetadataRows
from cfray.frames.schema import ORIGINAL_ID
from cfray.job.mapping import Path
from cfray.records.plain import texts_of_variants
from cfray.records.reading import read_texts
from cfray.records.record import EXACT_INT, is_variant, variant_texts, variant_types
from cfray.records.type_names import read_type
from cfray.records.values import json_texts, metadata_texts, type_name
from cfray.records.vector_values import is_vector_type
from cfray.transfers.exports.texts import variant_json

#: Types of JSON's numbers, as records of a source without a schema have them.
_INTEGER, _DOUBLE = "int64", "double"
#: What a list of no single type is called where it is empty.
_EMPTY_LIST = "empty list"
#: Types of values of sources without a schema -> Arrow's type, where the names differ.
_VARIANT_TYPES = {
    "list<double>": pa.list_(pa.float64()),
    "list<int64>": pa.list_(pa.int64()),
    "list<string>": pa.list_(pa.string()),
    "list<bool>": pa.list_(pa.bool_()),
    "binary": pa.binary(),
    _EMPTY_LIST: pa.list_(pa.string()),
}


@dataclass(slots=True)
class Kinds:
    """The types that the values of fields have.

    Attributes:
        of_key: key -> types that rows name for it.
        wide: keys with integers beyond 2**53, which a float64 would round.
        kept: keys that custom_metadata has, whose values are not shown by a column alone.
    """

    of_key: dict[str, set[str]] = field(default_factory=dict)
    wide: set[str] = field(default_factory=set)
    kept: set[str] = field(default_factory=set)

    def add(self, other: Kinds) -> None:
        """Add the types of further rows."""
        for key, kinds in other.of_key.items():
            self.of_key.setdefault(key, set()).update(kinds)
        self.wide |= other.wide
        self.kept |= other.kept

    def add_rows(self, metadata: MetadataRows, types: dict[str, str]) -> None:
        """Add what the custom_metadata of some rows says."""
        for key in metadata.texts.keys() - {ORIGINAL_ID}:
            if (metadata.has(key) & ~metadata.nulls(key)).any():
                self.kept.add(key)
            # a row that another program wrote names no types
            if key not in types and (metadata.has(key) & metadata.untyped(key)).any():
                self.of_key.setdefault(key, set()).add("string")
        for key, rows in metadata.types.items():
            kinds = {kind for kind in rows.values() if kind not in ABSENT}
            if "list" in kinds and _are_empty(metadata, key, rows):
                kinds = kinds - {"list"} | {_EMPTY_LIST}
            self.of_key.setdefault(key, set()).update(kinds)
        for key in metadata.texts.keys() - self.wide:
            if _INTEGER in {types.get(key), *metadata.types.get(key, {}).values()}:
                texts = metadata.texts[key].drop_null()
                whole = texts.filter(pc.match_substring_regex(texts, r"^-?\d{16,}$"))
                if any(abs(int(text)) > EXACT_INT for text in whole.to_pylist()):
                    self.wide.add(key)


def _are_empty(metadata: MetadataRows, key: str, rows: dict[int, str]) -> bool:
    """Tell whether the lists of no single type are all empty; tags and contributors are."""
    texts = metadata.of_key(key)
    return all(texts[row].as_py() in (None, "[]") for row, kind in rows.items() if kind == "list")


@dataclass(frozen=True, slots=True)
class Column:
    """A column of an export.

    Attributes:
        name: of the field.
        type: Arrow's.
        is_json: whether it holds each value as JSON.
        lost: what the column does not say of the field; empty where it says all.
    """

    name: str
    type: pa.DataType
    is_json: bool = False
    lost: str = ""

    def of(self, values: pa.Array | None, source: pa.Field | None, rows: int) -> pa.Array:
        """Give the values of a batch as this column has them.

        Args:
            values: of the field in some records; None where no record of the batch has it.
            source: the field itself.
            rows: of the batch.
        """
        if values is None or source is None:
            return pa.nulls(rows, self.type)
        if is_variant(source):
            return variant_json(values) if self.is_json else self._of_variants(values)
        if self.is_json:
            return json_texts(values)
        if values.type == self.type:
            return values
        if is_vector_type(values.type) and is_vector_type(self.type):
            return values.cast(self.type)
        return read_texts(metadata_texts(values), self.type)

    def _of_variants(self, values: pa.StructArray) -> pa.Array:
        if self.type == pa.string():
            return texts_of_variants(values)
        is_value = pc.fill_null(pc.not_equal(variant_types(values), "null"), fill_value=False)
        return read_texts(pc.if_else(is_value, variant_texts(values), None), self.type)


def columns_of(restoration: Restoration, kinds: Kinds, frames: pa.Schema) -> list[Column]:
    """Give the columns of the records of a dataset.

    Args:
        restoration: gives the records back.
        kinds: of every row.
        frames: schema of the dataset.
    """
    paths: dict[str, list[Path]] = {}
    named = {restoration.field_of(key): key for key in kinds.of_key}
    for path in [*restoration.types, *named, *restoration.vector_paths]:
        paths.setdefault(restoration.first_name(path), []).append(path)
    return [
        _column(name, restoration, kinds, {named.get(path, "") for path in paths[name]}, frames)
        for name in paths
    ]


def _column(
    name: str, restoration: Restoration, kinds: Kinds, keys: set[str], frames: pa.Schema
) -> Column:
    path = (name,)
    further = {kind for key in keys for kind in kinds.of_key.get(key, ())}
    recorded = restoration.types.get(path)
    is_fixed = restoration.shape.fixed
    if path in restoration.vector_paths:
        column = restoration.column_of_vectors(path)
        vector = frames.field(column).type
        kind = _vector_type(recorded, vector) if is_fixed else vector
        is_kept = any(restoration.field_of(key) == path for key in kinds.kept)
        if is_kept and not (is_fixed and is_vector_type(read_type(recorded or "") or pa.null())):
            lost = "vectors of several widths, or other values among them, written as JSON"
            return Column(name, pa.string(), is_json=True, lost=lost)
        is_carried = not is_fixed or recorded is None or read_type(recorded) is not None
        lost = "" if is_carried else f"{recorded}, written as a list of numbers"
        return Column(name, kind, lost=lost)
    is_opened = any(
        other != path and (other[0] == name or item_of(other[0]) is not None)
        for other in restoration.types
        if restoration.first_name(other) == name
    )
    if is_opened and not (is_fixed and recorded and not further):
        return Column(name, pa.string(), is_json=True, lost="an object, written as JSON")
    own = further | ({recorded} if recorded else set())
    if _EMPTY_LIST in own and path in restoration.shown_paths:
        own = own - {_EMPTY_LIST} | {"list"}  # of whose items custom_metadata says nothing
    if any(kind.startswith("list<") for kind in own):
        own = own - {_EMPTY_LIST}  # which fits a column of any lists
    is_wide = bool(keys & kinds.wide) or path in restoration.shown_paths
    if own == {_INTEGER, _DOUBLE} and not is_wide:
        return Column(name, pa.float64(), lost="integers and floats, written as floats")
    if len(own) > 1:
        return Column(
            name, pa.string(), is_json=True, lost=f"{', '.join(sorted(own))}, written as JSON"
        )
    kind = next(iter(own), "null")
    return _column_of_kind(name, kind, is_fixed=is_fixed)


def _column_of_kind(name: str, kind: str, *, is_fixed: bool) -> Column:
    arrow = read_type(kind) if is_fixed else _VARIANT_TYPES.get(kind, read_type(kind))
    if arrow is not None and not pa.types.is_null(arrow):
        return Column(name, arrow)
    if kind in ("list", "struct"):
        return Column(name, pa.string(), is_json=True, lost=f"{kind}, written as JSON")
    if kind == "null":
        return Column(name, pa.string(), lost="nulls alone")
    return Column(name, pa.string(), lost=f"{kind}, written as text")


def _vector_type(recorded: str | None, vector: pa.DataType) -> pa.DataType:
    """Give the type of a vector: the source's, where that is a list of numbers."""
    kind = read_type(recorded or "")
    if kind is None or not is_vector_type(kind):
        return vector
    is_of_width = not pa.types.is_fixed_size_list(kind) or kind.list_size == vector.list_size
    return kind if is_of_width else vector  # which a model made


def held_column(column: Column, holds: Callable[[pa.DataType], bool]) -> Column:
    """Give a column a type that the format has: one of the same values, or texts of JSON.

    Args:
        column: of the source's type.
        holds: tells whether the format has a type.
    """
    if holds(column.type):
        return column
    kind = _same_values(column.type)
    name = type_name(column.type)
    if kind is not None and holds(kind):
        return replace(column, type=kind, lost=f"{name}, written as {type_name(kind)}")
    return Column(column.name, pa.string(), is_json=True, lost=f"{name}, written as JSON")


def _same_values(kind: pa.DataType) -> pa.DataType | None:
    """Give a common type that has the values of a rare one."""
    if pa.types.is_run_end_encoded(kind):
        return kind.value_type
    if pa.types.is_decimal32(kind) or pa.types.is_decimal64(kind):
        return pa.decimal128(kind.precision, kind.scale)
    return None


def describe_columns(columns: Iterable[Column]) -> list[dict[str, str]]:
    """Say of each column what it holds, for the manifest."""
    return [
        {
            "name": column.name,
            "type": type_name(column.type),
            **({"lost": column.lost} if column.lost else {}),
        }
        for column in columns
    ]
