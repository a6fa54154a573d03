"""Ids of a source's records, and the tagged texts that their uuids are computed from.

The tag of an id follows the type that the source declares, so ``42`` and ``"42"`` are two ids, and
a live store and its export give the same uuids.  A value that cannot be an id (a float, a bool, a
null, a nested value) is a fault of its row.  References are cast to the type of the ids.

These rules are a contract: a change gives every frame another uuid.
"""

from __future__ import annotations

import base64
import json
import re
import uuid
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cfray.conversion.fields import Fields
from cfray.job.mapping import Key, Path, dotted, rule_paths
from cfray.records import values
from cfray.records.record import canonical, variant_texts, variant_types

Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

#: Type name of a variant -> tag that its values have as ids.
_VARIANT_TAGS = {
    "string": "s",
    "int64": "i",
    "uint64": "i",
    "integer": "i",
    "uuid": "u",
    "objectId": "o",
    "binary": "b",
}
_DIGITS = re.compile(r"^(0|-?[1-9][0-9]*)$")
_UUID = r"^[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}$"


@dataclass(frozen=True, slots=True)
class Ids:
    """Ids of one batch.

    Attributes:
        tagged: ``tag:text`` of each row; null where a row has no id that can be used.
        texts: the texts without the tags.
        faults: row -> why it has no id that can be used.
    """

    tagged: pa.StringArray
    texts: pa.StringArray
    faults: dict[int, str]


def id_tag(kind: pa.DataType) -> str | None:
    """Give the tag of ids of this Arrow type; None if the type cannot be an id."""
    if isinstance(kind, pa.DictionaryType):
        kind = kind.value_type
    if isinstance(kind, pa.UuidType):
        return "u"
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return "s"
    if pa.types.is_integer(kind):
        return "i"
    is_binary = (
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
    )
    return "b" if is_binary else None


def read_ids(fields: Fields, rule: object) -> Ids:
    """Read the record ids that a rule names; of several fields, the first that is present."""
    if isinstance(rule, Key):
        return _composite_ids(fields, rule)
    paths = rule_paths(rule)
    tagged: pa.StringArray = pa.nulls(fields.rows, pa.string())
    texts: pa.StringArray = pa.nulls(fields.rows, pa.string())
    wrong_values: dict[int, str] = {}
    for path in paths:
        if path not in fields.columns:
            continue
        field_tags, field_texts = _tags_and_texts(fields, path, wrong_values)
        field_tagged = pc.binary_join_element_wise(field_tags, field_texts, pa.scalar(":"))
        texts = pc.coalesce(texts, pc.if_else(field_tagged.is_valid(), field_texts, None))
        tagged = pc.coalesce(tagged, field_tagged)
    names = " or ".join(dotted(path) for path in paths)
    faults = {
        row: wrong_values.get(row, f"no id: {names} is missing or null")
        for row in np.flatnonzero(tagged.is_null().to_numpy(zero_copy_only=False)).tolist()
    }
    return Ids(tagged, texts, faults)


def _tags_and_texts(
    fields: Fields, path: Path, wrong_values: dict[int, str]
) -> tuple[pa.Array, pa.StringArray]:
    """Read the ids of one field; say in ``wrong_values`` which rows have no id there, and why."""
    column = fields.rule_column(path)
    assert column is not None
    if path in fields.variants:
        return _variant_tags_and_texts(column, path, wrong_values)
    tag = id_tag(column.type)
    if tag is None:
        reason = f"{dotted(path)} is of type {column.type}, which cannot be an id"
        rows = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False)).tolist()
        wrong_values.update(dict.fromkeys(rows, reason))
        return pa.nulls(len(column), pa.string()), pa.nulls(len(column), pa.string())
    return pa.repeat(pa.scalar(tag), len(column)), id_texts(column, tag)


def id_texts(column: pa.Array, tag: str) -> pa.StringArray:
    """Write a column of ids of one Arrow type as the texts behind their tag."""
    if tag == "b":
        blobs = column if pa.types.is_binary(column.type) else column.cast(pa.binary())
        return pa.array(
            [None if blob is None else blob.hex() for blob in blobs.to_pylist()], pa.string()
        )
    texts = values.metadata_texts(column)
    # the canonical JSON of a UUID stands in quotes
    return pc.utf8_slice_codeunits(texts, 1, 37) if tag == "u" else texts


def _variant_tags_and_texts(
    column: pa.StructArray, path: Path, wrong_values: dict[int, str]
) -> tuple[pa.Array, pa.StringArray]:
    kinds = variant_types(column)
    texts = variant_texts(column)
    if pc.all(pc.equal(kinds, "string")).as_py() and not kinds.null_count:
        return pa.repeat(pa.scalar("s"), len(column)), texts
    tags: list[str | None] = []
    tag_texts: list[str | None] = []
    for row, (kind, text) in enumerate(zip(kinds.to_pylist(), texts.to_pylist(), strict=True)):
        tag = _VARIANT_TAGS.get(kind)
        if tag is None and kind not in (None, "null"):
            wrong_values[row] = f"{dotted(path)} is a {kind} ({text[:60]}), which cannot be an id"
        tags.append(tag)
        tag_texts.append(None if tag is None else _id_text(tag, text))
    return pa.array(tags, pa.string()), pa.array(tag_texts, pa.string())


def _id_text(tag: str, text: str) -> str:
    """Write the canonical text of a variant as the text behind its tag."""
    if tag not in ("u", "o", "b"):
        return text
    value = json.loads(text)
    return base64.b64decode(value).hex() if tag == "b" else str(value).lower()


def _composite_ids(fields: Fields, rule: Key) -> Ids:
    """Write a composite id as canonical JSON of an array of its fields; a missing field is null."""
    columns = []
    is_present = np.zeros(fields.rows, np.bool_)
    for path in rule_paths(rule):
        column = fields.columns.get(path)
        is_present |= _is_present(fields, path)
        if column is None:
            texts = pa.repeat(pa.scalar("null"), fields.rows)
        elif path in fields.variants:
            plain, kinds = variant_texts(column), variant_types(column)
            texts = pc.if_else(pc.equal(kinds, "string"), values.json_texts(plain), plain)
        else:
            texts = values.json_texts(column)
        columns.append(pc.fill_null(texts, "null"))
    arrays = pc.binary_join_element_wise("[", pc.binary_join_element_wise(*columns, ","), "]", "")
    names = ", ".join(dotted(path) for path in rule_paths(rule))
    reason = f"no id: {names} are all missing or null"
    faults = dict.fromkeys(np.flatnonzero(~is_present).tolist(), reason)
    return Ids(pc.binary_join_element_wise("j:", arrays, ""), arrays, faults)


def kept_uuids(ids: Ids, computed: pa.StringArray) -> pa.StringArray:
    """Keep ids that are UUIDs, in lower case (``mapping.keep_uuid``); compute the others' uuid."""
    is_uuid = pc.match_substring_regex(ids.texts, _UUID)
    return pc.if_else(is_uuid, pc.utf8_lower(ids.texts), computed)


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
            is_complete &= _is_present(fields, path)
        ids = _composite_ids(fields, rule).tagged
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
        is_filled |= _is_present(fields, path)
    rows = np.concatenate(all_rows)
    order = np.argsort(rows, kind="stable")
    return rows[order], pa.concat_arrays(all_ids).take(pa.array(order))


def _is_present(fields: Fields, path: Path) -> Mask:
    """Tell for each row whether a field is neither missing nor null."""
    column = fields.rule_column(path)
    if column is None:
        return np.zeros(fields.rows, np.bool_)
    if path in fields.variants:
        kinds = variant_types(column)
        column = pc.if_else(pc.equal(kinds, "null"), None, kinds)
    is_present: Mask = column.is_valid().to_numpy(zero_copy_only=False)
    return is_present


def _column_references(column: pa.Array, tag: str) -> tuple[Rows, pa.StringArray]:
    """Read the references of a column of one Arrow type, which may hold lists."""
    rows = np.arange(len(column))
    kind = column.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        rows = pc.list_parent_indices(column).to_numpy().astype(np.int64)
        column = column.flatten()
    column_tag = id_tag(column.type)
    if column_tag is None:
        ids = _cast(values.metadata_texts(column), "s", tag)
    else:
        ids = _cast(id_texts(column, column_tag), column_tag, tag)
    is_valid = ids.is_valid()
    return rows[is_valid.to_numpy(zero_copy_only=False)], ids.filter(is_valid)


def _variant_references(column: pa.StructArray, tag: str) -> tuple[Rows, pa.StringArray]:
    """Read the references of a variant column; an item of a list is tagged by its JSON type."""
    rows: list[int] = []
    ids: list[str] = []
    kinds, texts = variant_types(column).to_pylist(), variant_texts(column).to_pylist()
    for row, (kind, text) in enumerate(zip(kinds, texts, strict=True)):
        if kind is None or kind == "null":
            continue
        references = [(_VARIANT_TAGS.get(kind, "j"), text)]
        if kind.startswith("list"):
            references = [_tag_and_text(item) for item in json.loads(text) if item is not None]
        for reference_tag, reference_text in references:
            rows.append(row)
            ids.append(_cast_text(_id_text(reference_tag, reference_text), reference_tag, tag))
    return np.array(rows, np.int64), pa.array(ids, pa.string())


def _tag_and_text(item: object) -> tuple[str, str]:
    if isinstance(item, str):
        return "s", item
    return "i" if type(item) is int else "j", canonical(item)


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
    if text_tag == "s" and tag == "i" and _DIGITS.fullmatch(text):
        return f"i:{text}"
    if text_tag == "s" and tag == "u" and re.fullmatch(_UUID, text):
        return f"u:{uuid.UUID(text)}"
    if text_tag == "s" and tag in ("o", "b") and re.fullmatch(r"[0-9A-Fa-f]*", text):
        return f"{tag}:{text.lower()}"
    return f"s:{text}" if text_tag in ("s", "i", "u") and tag == "s" else f"{text_tag}:{text}"


def declared_tag(fields: Fields, rule: object) -> str:
    """Give the tag that most ids of a sample have; references are cast to it."""
    ids = read_ids(fields, rule)
    tags = [text.split(":", 1)[0] for text in ids.tagged.drop_null().to_pylist()]
    return max(sorted(set(tags)), key=tags.count) if tags else "s"
