"""References of records to other records, cast to the type of the ids.

A reference is often of another type than the ids: pandas makes floats of integers with gaps, an
export writes a UUID as text or as 16 bytes.  What says the same as an id of the ids' type becomes
that id; what does not is kept as it is, and dangles.

These rules are a contract: a change points references elsewhere.
"""

from __future__ import annotations

import json
import re
import uuid

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cfray.conversion.fields import Fields
from cfray.conversion.identity import (
    UUID,
    VARIANT_TAGS,
    composite_ids,
    id_tag,
    id_text,
    id_texts,
    integer_texts,
    is_present,
)
from cfray.job.mapping import Key, rule_paths
from cfray.records import values
from cfray.records.record import canonical, variant_texts, variant_types

Rows = npt.NDArray[np.int64]

#: An integer, to which CSV files that pandas wrote add a fraction of zeros.
_DIGITS = re.compile(r"(0|-?[1-9][0-9]*)(?:\.0+)?")
#: A float as canonical JSON writes it.
_FLOAT = re.compile(r"-?[0-9]+(\.[0-9]+)?(e[-+]?[0-9]+)?")
#: Largest magnitude up to which every integer is a float64 (IEEE 754).
_EXACT_INT = 2**53
#: Spellings of a UUID that refer to a UUID: with dashes, in braces, or digits alone.
_UUID_SPELLINGS = r"\{?[0-9A-Fa-f]{8}(-?)([0-9A-Fa-f]{4}\1){3}[0-9A-Fa-f]{12}\}?"
#: Hexadecimal digits of a UUID's 16 bytes.
_UUID_DIGITS = 32


def read_references(fields: Fields, rule: object, tag: str) -> tuple[Rows, pa.StringArray]:
    """Read the ids that a relationship points to, cast to the type of the ids.

    Args:
        fields: the batch.
        rule: ``to`` of a relationship.
        tag: the tag of the ids of this source.

    Returns:
        rows ``(m,)`` ascending, and m tagged ids; a null points nowhere, a list points to each of
        its items.
    """
    if isinstance(rule, Key):
        is_complete = np.ones(fields.rows, np.bool_)
        for path in rule_paths(rule):
            is_complete &= is_present(fields, path)
        ids = composite_ids(fields, rule).tagged
        return np.flatnonzero(is_complete), ids.filter(pa.array(is_complete))
    is_filled = np.zeros(fields.rows, np.bool_)
    all_rows: list[Rows] = [np.empty(0, np.int64)]
    all_ids: list[pa.StringArray] = [pa.array([], pa.string())]
    for path in rule_paths(rule):
        column = fields.rule_column(path)
        if column is None:
            continue
        is_variant = path in fields.variants
        rows, ids = (_variant_references if is_variant else _column_references)(column, tag)
        is_first = ~is_filled[rows]
        all_rows.append(rows[is_first])
        all_ids.append(ids.filter(pa.array(is_first)))
        is_filled |= is_present(fields, path)
    rows = np.concatenate(all_rows)
    order = np.argsort(rows, kind="stable")
    return rows[order], pa.concat_arrays(all_ids).take(pa.array(order))


def _column_references(column: pa.Array, tag: str) -> tuple[Rows, pa.StringArray]:
    """Read the references of a column of one Arrow type, which may hold lists."""
    rows = np.arange(len(column))
    kind = column.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
        rows = np.repeat(rows, lengths)
        column = column.flatten()  # which leaves out what null lists hide
    ids = _arrow_references(column, tag)
    is_valid = ids.is_valid()
    return rows[is_valid.to_numpy(zero_copy_only=False)], ids.filter(is_valid)


def _arrow_references(column: pa.Array, tag: str) -> pa.StringArray:
    """Tag each reference of a column; null where there is none.

    A float or a decimal that is an integer refers as an integer does, any other as its text.
    """
    kind = column.type
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        texts = pc.utf8_trim(values.metadata_texts(column), '"')
        integers = integer_texts(column) if pa.types.is_decimal(kind) else _float_integers(column)
        if pa.types.is_floating(kind):  # NaN is what pandas writes where there is no number
            texts = pc.if_else(pc.is_nan(column), None, texts)
        return pc.coalesce(_cast(integers, "i", tag), pc.binary_join_element_wise("s", texts, ":"))
    column_tag = id_tag(kind)
    if column_tag is None:
        return _cast(values.metadata_texts(column), "s", tag)
    return _cast(id_texts(column, column_tag), column_tag, tag)


def _float_integers(column: pa.Array) -> pa.StringArray:
    """Write floats that are integers as such (pandas makes floats of integers with gaps).

    A float beyond which not every integer is a float of its width (IEEE 754) may stand for another
    integer: it gives null, as any other float does.
    """
    numbers = pc.fill_null(column, 0).to_numpy(zero_copy_only=False)
    exact = 2.0 ** (np.finfo(numbers.dtype).nmant + 1)
    is_integer = np.isfinite(numbers) & (np.abs(numbers) < exact) & (np.trunc(numbers) == numbers)
    integers = np.where(is_integer, numbers, 0).astype(np.int64)
    is_null = ~is_integer | column.is_null().to_numpy(zero_copy_only=False)
    return pa.array(integers, mask=is_null).cast(pa.string())


def _variant_references(column: pa.StructArray, tag: str) -> tuple[Rows, pa.StringArray]:
    """Read the references of a variant column; an item of a list is tagged by its JSON type."""
    rows: list[int] = []
    ids: list[str] = []
    kinds, texts = variant_types(column).to_pylist(), variant_texts(column).to_pylist()
    for row, (kind, text) in enumerate(zip(kinds, texts, strict=True)):
        if kind is None or kind == "null":
            continue
        references = [(VARIANT_TAGS.get(kind, "j"), text)]
        if kind.startswith("list"):
            references = [_tag_and_text(item) for item in json.loads(text) if item is not None]
        for reference_tag, reference_text in map(_as_integer, references):
            if reference_text == "NaN" and reference_tag == "j":
                continue
            rows.append(row)
            ids.append(_cast_text(id_text(reference_tag, reference_text), reference_tag, tag))
    return np.array(rows, np.int64), pa.array(ids, pa.string())


def _tag_and_text(item: object) -> tuple[str, str]:
    if isinstance(item, str):
        return "s", item
    return "i" if type(item) is int else "j", canonical(item)


def _as_integer(reference: tuple[str, str]) -> tuple[str, str]:
    """Read a float that is an integer as such, below 2**53 as ``_float_integers`` does."""
    tag, text = reference
    if tag != "j" or not _FLOAT.fullmatch(text):
        return reference
    number = float(text)
    is_integer = number.is_integer() and abs(number) < _EXACT_INT
    return ("i", str(int(number))) if is_integer else reference


def _cast(texts: pa.StringArray, text_tag: str, tag: str) -> pa.StringArray:
    """Tag reference texts with the tag of the ids where the text fits it, else with their tag."""
    if text_tag == tag or (text_tag == "i" and tag == "s"):
        return pc.binary_join_element_wise(tag, texts, ":")
    return pa.array(
        [None if text is None else _cast_text(text, text_tag, tag) for text in texts.to_pylist()],
        pa.string(),
    )


def _cast_text(text: str, text_tag: str, tag: str) -> str:
    """Tag one reference text as ``_cast`` does."""
    if text_tag == "s":
        return _cast_string(text, tag)
    if tag in ("u", "b", "s") and (
        text_tag == "u" or (text_tag == "b" and len(text) == _UUID_DIGITS)
    ):
        value = uuid.UUID(text)
        return f"b:{value.hex}" if tag == "b" else f"{tag}:{value}"
    return f"s:{text}" if text_tag == "i" and tag == "s" else f"{text_tag}:{text}"


def _cast_string(text: str, tag: str) -> str:
    """Tag a string that spells an id of another type; any other string stays one."""
    if tag == "i" and (integer := _DIGITS.fullmatch(text)):
        return f"i:{integer[1]}"
    if tag == "u" and re.fullmatch(_UUID_SPELLINGS, text):
        return f"u:{uuid.UUID(text)}"
    if tag == "b" and re.fullmatch(UUID, text):
        return f"b:{uuid.UUID(text).hex}"
    if tag in ("o", "b") and re.fullmatch(r"[0-9A-Fa-f]*", text):
        return f"{tag}:{text.lower()}"
    return f"s:{text}"
