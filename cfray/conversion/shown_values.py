"""The values that frames hold, as canonical texts with their types: what ``restore`` reads.

A column shows a value without the quotes of its JSON, an id as the text that its uuid is computed
from, a blob as its bytes.  Which canonical text that was follows from the value's type.
"""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cfray.frames.schema import TYPES_KEY
from cfray.records.record import canonical, variant_array, variant_types
from cfray.records.type_names import read_type
from cfray.records.values import json_texts

Mask = npt.NDArray[np.bool_]
#: Type name of each value; None where there is no value.
Kinds = npt.NDArray[np.object_]

#: Types of a row that say that a field has no value there.
ABSENT = ("null", "missing")
#: Types of a store's values whose canonical text is no JSON string: those of JSON itself, numbers,
#: and what is written as an object or an array.
_BARE = re.compile(
    r"null|bool(ean)?|u?int\d*|integer|long|short|byte|unsigned_long|number|double|float\d*"
    r"|half_?float|scaled_float|struct|list.*|key|extendedJson"
)
_HEX = re.compile(r"([0-9a-f]{2})*")


@dataclass(slots=True)
class Cells:
    """The values of a field in the rows of a batch.

    Attributes:
        kinds: type of each value ``(n,)``.
        texts: canonical text of each value; null where there is none.
        numbers: lists of numbers; where one is not null it stands in place of a text.
    """

    kinds: Kinds
    texts: pa.StringArray
    numbers: pa.Array | None = None

    @classmethod
    def none(cls, rows: int) -> Cells:
        """Give a field without values."""
        return cls(np.full(rows, None, object), pa.nulls(rows, pa.string()))

    @property
    def is_present(self) -> Mask:
        """Tell which rows have a value."""
        return np.array([kind is not None for kind in self.kinds], np.bool_)

    def put(self, rows: Mask, kinds: Kinds, texts: pa.StringArray) -> None:
        """Put values into some rows."""
        self.kinds = np.where(rows, kinds, self.kinds)
        self.texts = pc.if_else(pa.array(rows), texts, self.texts)

    def put_numbers(self, rows: Mask, kinds: Kinds, numbers: pa.Array) -> None:
        """Put lists of numbers into some rows."""
        self.kinds = np.where(rows, kinds, self.kinds)
        is_alike = self.numbers is not None and self.numbers.type == numbers.type
        others = self.numbers if is_alike else pa.scalar(None, numbers.type)
        self.numbers = pc.if_else(pa.array(rows), numbers, others)

    def as_texts(self) -> pa.StringArray:
        """Give every value as its canonical text."""
        if self.numbers is None:
            return self.texts
        return pc.coalesce(self.texts, json_texts(self.numbers))

    def as_json(self) -> pa.StringArray:
        """Give every value as JSON: as its canonical text, a string in quotes."""
        texts = self.as_texts()
        is_text = np.array([kind is not None and is_text_type(kind) for kind in self.kinds])
        return pc.if_else(pa.array(is_text, pa.bool_()), json_texts(texts), texts)


@dataclass(slots=True)
class MetadataRows:
    """The custom_metadata of a batch by its keys.

    Attributes:
        count: of the rows.
        texts: key -> text of each row; null where the row has no such key.
        types: key -> row -> type that the row names for it.
    """

    count: int
    texts: dict[str, pa.StringArray] = field(default_factory=dict)
    types: dict[str, dict[int, str]] = field(default_factory=dict)

    @classmethod
    def of(cls, column: pa.ListArray) -> MetadataRows:
        """Sort the entries of a batch."""
        rows = cls(len(column))
        owners = pc.list_parent_indices(column).to_numpy()
        keys, values = column.flatten().flatten()
        encoded = keys.dictionary_encode()
        codes = encoded.indices.to_numpy()
        for code, key in enumerate(encoded.dictionary.to_pylist()):
            places = np.full(rows.count, -1, np.int64)
            entries = np.flatnonzero(codes == code)
            places[owners[entries]] = entries
            rows.texts[key] = values.take(pa.array(places, mask=places < 0))
        for row, text in enumerate(rows.texts.pop(TYPES_KEY, pa.array([])).to_pylist()):
            for key, kind in json.loads(text or "{}").items():
                rows.types.setdefault(key, {})[row] = kind
        return rows

    def of_key(self, key: str) -> pa.StringArray:
        """Give the text of a key in each row; null where the row has no such key."""
        return self.texts.get(key, pa.nulls(self.count, pa.string()))

    def has(self, key: str) -> Mask:
        """Tell which rows have a key."""
        has: Mask = self.of_key(key).is_valid().to_numpy(zero_copy_only=False)
        return has

    def kinds(self, key: str, recorded: str | None) -> Kinds:
        """Give the type of each row's value, which is ``recorded`` where the row names none.

        None where it is not known, or the row says that there is no value.
        """
        kinds = np.full(self.count, recorded, object)
        for row, kind in self.types.get(key, {}).items():
            kinds[row] = None if kind in ABSENT else kind
        return kinds

    def untyped(self, key: str) -> Mask:
        """Tell which rows name no type for a key."""
        is_untyped = np.ones(self.count, np.bool_)
        is_untyped[list(self.types.get(key, ()))] = False
        return is_untyped

    def nulls(self, key: str) -> Mask:
        """Tell which rows say that a field is null."""
        is_null = np.zeros(self.count, np.bool_)
        is_null[[row for row, kind in self.types.get(key, {}).items() if kind == "null"]] = True
        return is_null


def is_text_type(kind: str) -> bool:
    """Tell whether the canonical text of a type's values is the value itself, without quotes."""
    if kind == "string":
        return True
    read = unwrapped(kind)
    return read is not None and bool(
        pa.types.is_string(read) or pa.types.is_large_string(read) or pa.types.is_string_view(read)
    )


def is_bare(kind: str) -> bool:
    """Tell whether the values of a store's type are written without quotes."""
    return bool(_BARE.fullmatch(kind))


def unwrapped(kind: str) -> pa.DataType | None:
    """Give the Arrow type of the values that a dictionary, runs or JSON wrap; None for another."""
    read = read_type(kind)
    while read is not None:
        if pa.types.is_dictionary(read) or pa.types.is_run_end_encoded(read):
            read = read.value_type
        elif isinstance(read, pa.JsonType):
            read = read.storage_type
        else:
            break
    return read


def of_shown(kind: str, text: str) -> str:
    """Give the canonical text of a value that a text column shows."""
    return canonical(text) if _is_quoted(kind, text) else text


def of_id(kind: str, text: str) -> str:
    """Give the canonical text of a value that is an id; its text is the one behind the tag."""
    read = unwrapped(kind)
    is_bytes = kind == "binary" or (read is not None and _is_binary(read))
    if is_bytes and _HEX.fullmatch(text):
        return canonical(base64.b64encode(bytes.fromhex(text)).decode())
    return of_shown(kind, text)


def of_part(kind: str, part: Any) -> str:  # parsed JSON
    """Give the canonical text of a value that is a part of a composite id."""
    return part if isinstance(part, str) and is_text_type(kind) else canonical(part)


def of_list(kind: str, items: list[str]) -> str:
    """Give the canonical text of a value that a column of lists shows."""
    if "list" in kind.partition("<")[0]:
        return canonical(items)
    return items[0]


def of_blob(kind: str, blob: bytes) -> str:
    """Give the canonical text of a value that the column of blobs shows."""
    read = unwrapped(kind)
    if kind == "binary" or (read is not None and _is_binary(read)):
        return canonical(base64.b64encode(blob).decode())
    return of_shown(kind, blob.decode())


def kind_of_json(text: str) -> str:
    """Name the type of a value of JSON, as a record of a source without a schema has it."""
    kind: str = variant_types(variant_array([json.loads(text)]))[0].as_py()
    return kind


def _is_quoted(kind: str, text: str) -> bool:
    """Tell whether the canonical text of a value has quotes that a text column does not show."""
    if is_text_type(kind):
        return False
    read = unwrapped(kind)
    if read is None:
        return not is_bare(kind) and not _is_object(text)
    if pa.types.is_time(read):
        return ":" in text  # a count outside the day is a number
    is_instant = pa.types.is_date(read) or pa.types.is_timestamp(read)
    is_uuid = isinstance(read, pa.UuidType)
    return is_instant or is_uuid or pa.types.is_decimal(read) or _is_binary(read)


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict | list)
    except ValueError:
        return False


def _is_binary(kind: pa.DataType) -> bool:
    tests = (
        pa.types.is_binary,
        pa.types.is_large_binary,
        pa.types.is_fixed_size_binary,
        pa.types.is_binary_view,
    )
    return any(test(kind) for test in tests)
