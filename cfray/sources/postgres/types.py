"""How each type of PostgreSQL is asked for, decoded and named in a record.

A type that Arrow has is decoded from its binary form.  Any other type is asked for as text or as
JSON and becomes a variant that carries the name of its type, so that nothing of it is lost.

Source: https://www.postgresql.org/docs/current/datatype.html; pgvector 0.8, src/*.c (``*_send``)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from cfray.formats.points import unreserved_name
from cfray.records.record import VARIANT
from cfray.records.types import SPARSE
from cfray.sources.postgres.catalog import TypeInfo

#: Types of PostgreSQL that Arrow has: name -> how they are decoded and Arrow's type.
_SCALARS: dict[str, tuple[str, pa.DataType]] = {
    "bool": ("bool", pa.bool_()),
    "int2": ("int2", pa.int16()),
    "int4": ("int4", pa.int32()),
    "int8": ("int8", pa.int64()),
    "oid": ("oid", pa.uint32()),
    "float4": ("float4", pa.float32()),
    "float8": ("float8", pa.float64()),
    "text": ("text", pa.string()),
    "varchar": ("text", pa.string()),
    "bpchar": ("text", pa.string()),
    "name": ("text", pa.string()),
    "citext": ("text", pa.string()),
    "xml": ("text", pa.string()),
    "bytea": ("bytea", pa.binary()),
    "uuid": ("uuid", pa.uuid()),
    "date": ("date", pa.date32()),
    "time": ("time", pa.time64("us")),
    "timestamp": ("timestamp", pa.timestamp("us")),
    "timestamptz": ("timestamp", pa.timestamp("us", "UTC")),
}
#: Types of pgvector that are dense vectors of floats: name -> type of a number.
_DENSE = {"vector": pa.float32(), "halfvec": pa.float16()}
#: Fewest bits of a column that is taken for a binary vector; fewer are flags.
_MIN_VECTOR_BITS = 64
#: Digits that Arrow's decimals hold at most.
_MAX_DIGITS = 76
#: Bytes that stand before the modifier of a type with a length or a precision.
_HEADER = 4
_DOMAIN, _ENUM, _COMPOSITE = "d", "e", "c"
#: Names of fields that belong to the record itself.
RESERVED = ("id", "vector", "vectors")
#: What stands before the name of a column that is named like one of those.
PREFIX = "columns"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table, and how it is read.

    Attributes:
        name: of the column.
        type: as PostgreSQL writes it.
        decoder: name of the function that decodes it (``decode.py``).
        arrow: type of its values; ``VARIANT`` where each value carries its own.
        cast: what stands around the column in the query, with ``{}`` for the column.
        path: where it is in the record: one name, or two in ``vectors``.
    """

    name: str
    type: str
    decoder: str
    arrow: pa.DataType
    cast: str = "{}"
    path: tuple[str, ...] = ()

    @property
    def is_variant(self) -> bool:
        """Tell whether each value carries its type."""
        return bool(self.arrow.equals(VARIANT))

    @property
    def dimension(self) -> int | None:
        """Give the declared width of a dense vector."""
        return self.arrow.list_size if pa.types.is_fixed_size_list(self.arrow) else None

    @property
    def is_dense(self) -> bool:
        """Tell whether it is a dense vector of floats."""
        return self.decoder in ("vector", "halfvec")

    @property
    def is_vector(self) -> bool:
        """Tell whether it is a vector of any kind."""
        return self.is_dense or self.decoder in ("sparsevec", "bits")


def describe_column(
    name: str, number: int, modifier: int, types: Mapping[int, TypeInfo], type_text: str
) -> Column:
    """Say how a column is read.

    Args:
        name: of the column.
        number: of its type.
        modifier: of the type: length, precision, dimension; -1 where it has none.
        types: number -> type, with the types of elements.
        type_text: the type as PostgreSQL writes it.
    """
    kind = types[number]
    if kind.element:
        return _describe_array(name, types[kind.element], type_text)
    native = _SCALARS.get(kind.name) or _describe_vector(kind.name, modifier)
    if kind.kind == _ENUM:
        native = ("text", pa.string())
    if native is not None:
        decoder, arrow = native
        return Column(name, type_text, decoder, arrow)
    if kind.name in ("json", "jsonb"):
        return Column(name, type_text, kind.name, VARIANT)
    if kind.kind == _COMPOSITE or kind.name in ("hstore", "record"):
        return Column(name, type_text, "json", VARIANT, "to_json({})")
    decimal = _decimal_type(modifier) if kind.name == "numeric" else None
    if decimal is not None:
        return Column(name, type_text, "decimal", decimal, "{}::text")
    # how money is written depends on the server's locale
    cast = "{}::numeric::text" if kind.name == "money" else "{}::text"
    return Column(name, type_text, "other", VARIANT, cast)


def _describe_vector(kind: str, modifier: int) -> tuple[str, pa.DataType] | None:
    """Give decoder and type of a type of vectors; None for any other."""
    if kind in _DENSE:
        number = _DENSE[kind]
        return kind, pa.list_(number, modifier) if modifier > 0 else pa.list_(number)
    if kind == "sparsevec":
        return kind, SPARSE
    if kind == "bit" and modifier >= _MIN_VECTOR_BITS and modifier % 8 == 0:
        return "bits", pa.list_(pa.uint8(), modifier // 8)
    return None


def _decimal_type(modifier: int) -> pa.DataType | None:
    """Give the type of a numeric; None where none of Arrow's holds it."""
    precision = (modifier - _HEADER) >> 16 if modifier >= _HEADER else 0
    # PostgreSQL 15 and later have scales from -1000 to 1000, in 11 bits
    scale = (((modifier - _HEADER) & 0x7FF) ^ 1024) - 1024 if precision else -1
    if not 0 < precision <= _MAX_DIGITS or not 0 <= scale <= precision:
        return None
    return (pa.decimal128 if precision <= 38 else pa.decimal256)(precision, scale)


def _describe_array(name: str, element: TypeInfo, type_text: str) -> Column:
    # pyarrow 26.0.1 cannot filter lists of an extension type
    if (element.name in _SCALARS and element.name != "uuid") or element.kind == _ENUM:
        decoder, arrow = _SCALARS.get(element.name, ("text", pa.string()))
        return Column(name, type_text, f"{decoder}[]", pa.list_(arrow))
    if element.name in ("json", "jsonb") or element.kind == _COMPOSITE:
        return Column(name, type_text, "json", VARIANT, "to_json({})")
    return Column(name, type_text, "others", VARIANT, "to_json({}::text[])")


def place_columns(columns: Sequence[Column], key: Sequence[str]) -> list[Column]:
    """Say where each column is in the record.

    The only column of the key is ``id``; the only ``vector`` column, or the only ``halfvec`` column
    of a table without such, is ``vector``.  Other vectors are in ``vectors``, and a column that is
    named like one of these fields gets a prefix.  Where the key is of no or of several columns, a
    column called ``id`` keeps its name.
    """
    reserved = RESERVED if len(key) == 1 else tuple(name for name in RESERVED if name != "id")
    main = [column.name for column in columns if column.decoder == "vector"] or [
        column.name for column in columns if column.is_dense
    ]
    placed = []
    for column in columns:
        if [column.name] == list(key):
            path: tuple[str, ...] = ("id",)
        elif column.is_vector:
            path = ("vector",) if [column.name] == main else ("vectors", column.name)
        else:
            path = (unreserved_name(column.name, reserved, PREFIX),)
        placed.append(
            Column(column.name, column.type, column.decoder, column.arrow, column.cast, path)
        )
    return placed
