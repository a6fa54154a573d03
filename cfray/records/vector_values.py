"""The numbers of a vector, however a value holds them: one value at a time.

``vectors`` reads lists of numbers for whole columns at once; what is here decodes the values that
are something else: texts, bytes, objects, nested lists and variants.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import suppress

import pyarrow as pa

from cfray.records import values as canonical_texts
from cfray.records.record import VARIANT, canonical, parsed, variant_texts, variant_types
from cfray.records.vector_bytes import bytes_of_json, numbers_of_bytes
from cfray.records.vector_forms import BYTE_FORMS, Numbers, UnreadableVectorError, VectorForm
from cfray.records.vector_texts import numbers_of_json, numbers_of_text


def is_vector_type(kind: pa.DataType) -> bool:
    """Tell whether a column of this type can be a dense vector."""
    if not _is_list(kind) or getattr(kind, "list_size", 1) == 0:
        return False  # lists of no numbers are no vectors
    return bool(pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type))


def _is_list(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def storage_of(column: pa.Array) -> pa.Array:
    """Give the storage of an extension type, and decimals as floats."""
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    kind = column.type
    if _is_list(kind) and pa.types.is_decimal(kind.value_type):
        size = kind.list_size if pa.types.is_fixed_size_list(kind) else -1
        column = column.cast(pa.list_(pa.float64(), size))
    return column


def decoded(column: pa.Array, form: VectorForm) -> Iterator[Numbers | UnreadableVectorError]:
    """Decode the vectors of a column one by one, in the number type of their form.

    Yields:
        for each value its numbers, None where there are none, or why it cannot be read.
    """
    column = storage_of(column)
    kind = column.type
    if kind.equals(VARIANT):
        kinds, texts = variant_types(column).to_pylist(), variant_texts(column).to_pylist()
        for name, text in zip(kinds, texts, strict=True):
            yield _decode_variant(name, text, form)
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        for text in column.to_pylist():
            yield _decode(text, form)
    elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or _is_fixed_binary(kind):
        for blob in column.to_pylist():
            yield _decode(blob, form)
    elif pa.types.is_struct(kind) or (pa.types.is_nested(kind) and form not in BYTE_FORMS):
        for text in _json_texts(column):
            yield _decode_variant("list", text, form)
    else:
        error = UnreadableVectorError(
            f"vector is not a list of numbers (its column is of type {kind})"
            if form not in BYTE_FORMS
            else f"vector is not bytes (as: {form}; its column is of type {kind})"
        )
        for is_valid in column.is_valid().to_pylist():
            yield error if is_valid else None


def _is_fixed_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_fixed_size_binary(kind))


def _json_texts(column: pa.Array) -> list[str | None]:
    """Write lists, objects and maps as JSON; the entries of a map with text keys as an object."""
    texts: list[str | None] = canonical_texts.json_texts(column).to_pylist()
    if not pa.types.is_map(column.type):
        return texts
    entries = [None if text is None else json.loads(text) for text in texts]
    return [
        None if pairs is None else canonical({str(key): value for key, value in pairs})
        for pairs in entries
    ]


def _decode(value: str | bytes | None, form: VectorForm) -> Numbers | UnreadableVectorError:
    """Decode a text or bytes; give the reason where that fails."""
    if value is None:
        return None
    try:
        if isinstance(value, str):
            return numbers_of_text(value, form)
        if form not in BYTE_FORMS and value[:1] in (b"[", b"{", b"("):
            # a text whose column does not say that it is one
            with suppress(UnreadableVectorError, UnicodeDecodeError):
                return numbers_of_text(value.decode(), form)
        return numbers_of_bytes(value, form)
    except OverflowError:
        return UnreadableVectorError("vector holds a number that float32 cannot hold")
    except UnreadableVectorError as error:
        return error


def _decode_variant(
    kind: str | None, text: str | None, form: VectorForm
) -> Numbers | UnreadableVectorError:
    """Decode a variant: a string by its form, a store's bytes as base64, anything else as JSON."""
    if kind is None or kind == "null" or text is None:
        return None
    if kind == "string":
        return _decode(text, form)
    if kind == "binary":
        return _decode(base64.b64decode(str(parsed(text))), form)
    try:
        if form in BYTE_FORMS:
            return numbers_of_bytes(bytes_of_json(parsed(text), form), form)
        return numbers_of_json(parsed(text))
    except UnreadableVectorError as error:
        return error
