"""Values as a store takes them: each is judged by the JSON that it is written as."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cfray.records.record import EXACT_INT, VARIANT, is_variant, variant_field, variant_types
from cfray.records.values import json_texts, type_name
from cfray.transfers.exports.texts import variant_json

#: What JSON texts begin with, or are.
TEXT, LOGICAL, NUMBER = r'^"', r"^(true|false)$", r"^-?\d"
TEXTS = r'^\[("([^"\\]|\\.)*"(,"([^"\\]|\\.)*")*)?\]$'
ANYTHING = r"^"
#: What no store may take, and is looked for more closely: words that are no JSON, long integers.
_SUSPECT = r"NaN|Infinity|\d{16}"
#: Types of a source without a schema that JSON has.
_PLAIN = ("string", "bool", "int64", "uint64", "integer", "double", "null", "struct")


@dataclass(frozen=True, slots=True)
class Limits:
    """The values that a store takes; others become the text of their JSON.

    Attributes:
        takes: patterns, one of which the JSON text of a value fits.
        least: integer that the store keeps exactly.
        greatest: the same.
        takes_null: whether null is told from a key that is missing.
    """

    takes: tuple[str, ...]
    least: int = -EXACT_INT
    greatest: int = EXACT_INT
    takes_null: bool = False

    def keep(self, text: str) -> bool:
        """Tell whether the store keeps all numbers in a JSON text."""
        numbers: list[int] = []
        others: list[str] = []

        def integer(digits: str) -> int:
            numbers.append(int(digits))
            return 0

        json.loads(text, parse_int=integer, parse_constant=others.append)
        return not others and all(self.least <= number <= self.greatest for number in numbers)


@dataclass(frozen=True, slots=True)
class Values:
    """The values of a field as a store takes them.

    Attributes:
        texts: JSON of each value; null where there is none.
        lost: what the store does not say of the values.
    """

    texts: pa.StringArray
    lost: frozenset[str]


def json_of(column: pa.Array, field: pa.Field) -> pa.StringArray:
    """Write values as JSON; null where there is none."""
    return variant_json(column) if is_variant(field) else json_texts(column)


def stored_values(column: pa.Array, field: pa.Field, limits: Limits) -> Values:
    """Write values as a store takes them."""
    texts = json_of(column, field)
    lost = {f"{kind}, written as JSON has it" for kind in _other_kinds(column, field)}
    is_null = pc.fill_null(pc.equal(texts, "null"), fill_value=False)
    if not limits.takes_null and pc.any(is_null).as_py():
        texts = pc.if_else(is_null, None, texts)
        lost.add("nulls, left out")
    is_taken = pc.equal(texts, "null")
    for pattern in limits.takes:
        is_taken = pc.or_(is_taken, pc.match_substring_regex(texts, pattern))
    is_exact = _exact(texts, limits)
    is_whole = pc.and_(is_taken, is_exact)
    if not pc.all(pc.fill_null(is_whole, fill_value=True)).as_py():
        texts = pc.if_else(is_whole, texts, json_texts(texts))
        is_other = pc.and_(pc.invert(is_taken), is_exact)
        if pc.any(is_other).as_py():
            lost.add("lists or objects, written as the text of their JSON")
        if not pc.all(pc.fill_null(is_exact, fill_value=True)).as_py():
            lost.add("numbers that it does not keep exactly, written as text")
    return Values(texts, frozenset(lost))


def _exact(texts: pa.StringArray, limits: Limits) -> pa.BooleanArray:
    is_suspect = pc.fill_null(pc.match_substring_regex(texts, _SUSPECT), fill_value=False)
    exact = np.ones(len(texts), np.bool_)
    for row in pc.indices_nonzero(is_suspect).to_pylist():
        exact[row] = limits.keep(texts[row].as_py())
    return pa.array(exact, mask=texts.is_null().to_numpy(zero_copy_only=False))


def _other_kinds(column: pa.Array, field: pa.Field) -> list[str]:
    """Name the types that JSON does not have."""
    if is_variant(field):
        kinds = pc.unique(variant_types(column).drop_null()).to_pylist()
        plain = [kind for kind in kinds if kind in _PLAIN or kind in _LISTS]
        return sorted(set(kinds) - set(plain))
    return [] if _is_plain(column.type) else [type_name(column.type)]


_LISTS = ("list", "list<string>", "list<double>", "list<int64>", "list<bool>")


def _is_plain(kind: pa.DataType) -> bool:
    if kind.num_fields:
        is_map = pa.types.is_map(kind)
        return not is_map and all(_is_plain(kind.field(n).type) for n in range(kind.num_fields))
    tests = (
        *(pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view),
        *(pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating, pa.types.is_null),
    )
    return any(test(kind) for test in tests)


def unquoted(texts: pa.StringArray) -> pa.StringArray:
    """Take the quotes off those JSON texts that are strings."""
    is_quoted = pc.fill_null(pc.starts_with(texts, '"'), fill_value=False)
    if not pc.any(is_quoted).as_py():
        return texts
    quoted = pc.if_else(is_quoted, texts, None).to_pylist()
    plain = [None if text is None else json.loads(text) for text in quoted]
    return pc.if_else(is_quoted, pa.array(plain, pa.string()), texts)


def raw_json(texts: pa.StringArray) -> pa.StructArray:
    """Make a column whose JSON is these texts; a null is a key that is left out."""
    kinds = pc.if_else(texts.is_valid(), "struct", None)
    numbers = pa.nulls(len(texts), pa.list_(pa.float64()))
    return pa.StructArray.from_arrays(
        [kinds, texts, numbers], fields=list(VARIANT), mask=texts.is_null()
    )


def raw_rows(columns: dict[str, pa.StringArray]) -> pa.RecordBatch:
    """Make rows whose members are these JSON texts."""
    return pa.RecordBatch.from_arrays(
        [raw_json(texts) for texts in columns.values()],
        schema=pa.schema([variant_field(name) for name in columns]),
    )
