"""Plain columns: records as Arrow, pandas and Ray Data compute with them, one type a column.

A variant column keeps the type of each value; a plain column has one type, chosen from a sample.
A value that the type of its column cannot hold exactly is never cut to fit: it is an error that
names the row.  A missing key and a null are both null in a plain column.

Nothing here knows a store or a file.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from cfray.records.record import (
    is_variant,
    parsed,
    variant_field,
    variant_numbers,
    variant_texts,
    variant_types,
)

#: Largest magnitude up to which every integer is a float64 (IEEE 754).
_EXACT_INT = 2**53
#: Type of a list that tells nothing of its items.
_EMPTY_LIST = "[]"
_TEXT = pa.string()
_SCALARS = {"string": _TEXT, "bool": pa.bool_(), "int64": pa.int64(), "double": pa.float64()}
_LISTS = {
    "list<string>": pa.list_(pa.string()),
    "list<int64>": pa.list_(pa.int64()),
    "list<double>": pa.list_(pa.float64()),
}


#: Types of numbers that a store declares, and the type of JSON that holds their values.
_NARROW_NUMBERS = {
    r"^(list<)?u?int(8|16|32)(>?)$": r"\1int64\3",
    r"^(list<)?(float|halffloat)(>?)$": r"\1double\3",
}


class Unfit(ValueError):
    """A value does not fit the type of its column.

    Attributes:
        field: name of the column.
        row: of the batch; None where the whole column has another type.
        kind: type of the value.
        expected: type of the column.
    """

    def __init__(self, field: str, row: int | None, kind: str, expected: str) -> None:
        """Keep all four in ``args``: that is what makes the error pickle."""
        super().__init__(field, row, kind, expected)
        self.field, self.row, self.kind, self.expected = field, row, kind, expected


def sampled_schema(batches: Sequence[pa.RecordBatch], *, plain: bool) -> pa.Schema:
    """Choose a column for each field of a sample, in the order in which fields first appear.

    Args:
        batches: of records.
        plain: give a variant column the type of its values; else it stays a variant column.

    Raises:
        Unfit: a column has types in two batches that no type can hold.
    """
    kinds: dict[str, set[str]] = {}
    fields: dict[str, pa.Field] = {}
    for batch in batches:
        for field, column in zip(batch.schema, batch.columns, strict=True):
            if is_variant(field):
                kinds.setdefault(field.name, set()).update(_kinds(column))
                fields.setdefault(field.name, variant_field(field.name))
            elif field.name in fields:
                fields[field.name] = _common(fields[field.name], field)
            else:
                fields[field.name] = field.with_nullable(True)
    if plain:
        fields |= {name: pa.field(name, plain_type(types)) for name, types in kinds.items()}
    return pa.schema(list(fields.values()))


def plain_type(kinds: set[str]) -> pa.DataType:
    """Choose the type of a column from the types of its values.

    Values of several types, objects, and lists of anything but numbers or texts make a column of
    texts, in which a string stands as it is and any other value as canonical JSON.
    """
    kinds = kinds - {"null"}
    if kinds == {"int64", "double"}:
        return pa.float64()
    if len(kinds) == 1 and (scalar := _SCALARS.get(next(iter(kinds)))):
        return scalar
    lists = kinds - {_EMPTY_LIST}
    if lists == {"list<int64>", "list<double>"}:
        return _LISTS["list<double>"]
    return _LISTS.get(next(iter(lists)), _TEXT) if len(lists) == 1 else _TEXT


def fitted(batch: pa.RecordBatch, schema: pa.Schema, *, plain: bool) -> pa.RecordBatch:
    """Give a batch the columns of a schema; fields that the schema lacks follow.

    ``plain``: variants of a field that the schema lacks become texts.

    Raises:
        Unfit: a value does not fit its column.
    """
    columns, fields = [], []
    for field in schema:
        index = batch.schema.get_field_index(field.name)
        column = pa.nulls(len(batch), field.type) if index < 0 else batch.column(index)
        if index >= 0:
            column = _fit(batch.schema.field(index), column, field)
        columns.append(column)
        fields.append(field.with_nullable(True))
    for field, column in zip(batch.schema, batch.columns, strict=True):
        if schema.get_field_index(field.name) < 0:
            is_text = plain and is_variant(field)
            columns.append(texts_of_variants(column) if is_text else column)
            fields.append(pa.field(field.name, _TEXT) if is_text else field)
    return pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields))


def _common(field: pa.Field, other: pa.Field) -> pa.Field:
    """Give the field that holds the values of both."""
    if field.type == other.type:
        return field
    try:
        pair = [pa.schema([field]), pa.schema([other.with_name(field.name)])]
        return pa.unify_schemas(pair, promote_options="permissive").field(0)
    except pa.ArrowException:
        raise Unfit(field.name, None, str(other.type), str(field.type)) from None


def _fit(given: pa.Field, column: pa.Array, field: pa.Field) -> pa.Array:
    if is_variant(field) and is_variant(given):
        return column
    if is_variant(given):
        return _plain(field, column)
    if given.type == field.type:
        return column
    are_integers = pa.types.is_integer(given.type) and pa.types.is_integer(field.type)
    if not are_integers and _common(field, given).type != field.type:
        raise Unfit(field.name, None, str(given.type), str(field.type))
    try:
        return column.cast(field.type)
    except pa.ArrowException:
        raise Unfit(field.name, None, str(given.type), str(field.type)) from None


def _kinds(column: pa.StructArray) -> set[str]:
    """Name the types of a column's values; lists without items and of numbers by what they hold."""
    kinds = set(_precise_kinds(column).unique().to_pylist())
    return {kind for kind in kinds if kind is not None}


def _precise_kinds(column: pa.StructArray) -> pa.StringArray:
    """Give the type of each value; a list that is empty, or of numbers of both kinds, says so."""
    kinds, (_, texts, _) = variant_types(column), column.flatten()
    is_list = pc.fill_null(pc.equal(kinds, "list"), fill_value=False)
    is_empty = pc.fill_null(pc.and_(is_list, pc.equal(texts, _EMPTY_LIST)), fill_value=False)
    has_numbers = pc.and_(is_list, variant_numbers(column).is_valid())
    kinds = pc.if_else(is_empty, _EMPTY_LIST, kinds)
    kinds = pc.if_else(pc.and_(has_numbers, pc.invert(is_empty)), "list<double>", kinds)
    for pattern, kind in _NARROW_NUMBERS.items():
        kinds = pc.replace_substring_regex(kinds, pattern, kind)
    return kinds


def _plain(field: pa.Field, column: pa.StructArray) -> pa.Array:
    """Make a plain column of a variant column.

    Raises:
        Unfit: names the first value that the type cannot hold.
    """
    if field.type == _TEXT:
        return texts_of_variants(column)
    kinds = _precise_kinds(column)
    texts = pc.if_else(pc.equal(kinds, "null"), None, column.flatten()[1])
    accepted = _accepted(field.type)
    fits = pc.or_(kinds.is_null(), pc.is_in(kinds, pa.array([*accepted, "null"])))
    if field.type == pa.float64():
        fits = pc.and_(fits, pc.invert(_inexact(kinds, texts)))
    if not pc.all(fits, min_count=0).as_py():
        row = pc.index(fits, value=False).as_py()
        raise Unfit(field.name, row, kinds[row].as_py(), str(field.type))
    if pa.types.is_list(field.type):
        return _lists(field.type, kinds, column)
    if pa.types.is_boolean(field.type):
        return pc.equal(texts, "true")
    return texts.cast(field.type)


def _accepted(kind: pa.DataType) -> list[str]:
    """Name the types of values that a column of this type holds."""
    named = {**_SCALARS, **_LISTS}
    names = [name for name, arrow_type in named.items() if arrow_type == kind]
    if kind == pa.float64():
        names.append("int64")
    if kind == _LISTS["list<double>"]:
        names.append("list<int64>")
    return [*names, _EMPTY_LIST] if pa.types.is_list(kind) else names


def _inexact(kinds: pa.StringArray, texts: pa.StringArray) -> pa.BooleanArray:
    """Tell which values are integers that no float64 is."""
    integers = pc.if_else(pc.equal(kinds, "int64"), texts, None).cast(pa.int64())
    is_large = pc.or_(pc.greater(integers, _EXACT_INT), pc.less(integers, -_EXACT_INT))
    return pc.fill_null(is_large, fill_value=False)


def _lists(kind: pa.DataType, kinds: pa.StringArray, column: pa.StructArray) -> pa.Array:
    texts = pc.if_else(pc.equal(kinds, "null"), pa.scalar(None, _TEXT), column.flatten()[1])
    read = [None if text is None else parsed(text) for text in texts.to_pylist()]
    lists = pa.array(read, kind)
    if pa.types.is_string(kind.value_type):
        return lists
    return pc.if_else(texts.is_valid(), lists, variant_numbers(column).cast(kind))


def texts_of_variants(column: pa.StructArray) -> pa.StringArray:
    """Give the text of each value; null where there is none.

    A text to which a store gives a type of its own, such as a date, stands without the quotes
    that make it JSON.
    """
    kinds, texts = variant_types(column), variant_texts(column)
    is_null = pc.fill_null(pc.equal(kinds, "null"), fill_value=False)
    texts = pc.if_else(is_null, pa.scalar(None, _TEXT), texts)
    is_quoted = pc.and_(pc.not_equal(kinds, "string"), pc.starts_with(texts, '"'))
    if not pc.any(is_quoted).as_py():
        return texts
    pairs = zip(texts.to_pylist(), is_quoted.to_pylist(), strict=True)
    return pa.array([parsed(text) if quoted else text for text, quoted in pairs], _TEXT)
