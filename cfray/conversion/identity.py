"""Ids of a source's records, and the tagged texts that their uuids are computed from.

The tag of an id follows the type that the source declares, so ``42`` and ``"42"`` are two ids, and
a live store and its export give the same uuids.  A value that cannot be an id (a float, a bool, a
null, a nested value) is a fault of its row.

These rules are a contract: a change gives every frame another uuid.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cfray.conversion.fields import Fields
from cfray.job.mapping import Key, Path, dotted, rule_paths
from cfray.records import values
from cfray.records.record import variant_texts, variant_types

Mask = npt.NDArray[np.bool_]

#: Type name of a variant -> tag that its values have as ids.
VARIANT_TAGS = {
    "string": "s",
    "int64": "i",
    "uint64": "i",
    "integer": "i",
    "uuid": "u",
    "objectId": "o",
    "binary": "b",
    # of several parts (DynamoDB), or of a type of MongoDB that has no tag of its own
    "key": "j",
    "extendedJson": "j",
}
UUID = r"^[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}$"


@dataclass(frozen=True, slots=True)
class Ids:
    """Ids of one batch.

    Attributes:
        tagged: ``tag:text`` of each row; null where a row has no id that can be used.
        texts: the texts without the tags.
        faults: row -> why it has no id that can be used.
        usable: path -> rows in which the field can be the id, in the order of the rule.
    """

    tagged: pa.StringArray
    texts: pa.StringArray
    faults: dict[int, str]
    usable: dict[Path, Mask] = field(default_factory=dict)


def id_tag(kind: pa.DataType) -> str | None:
    """Give the tag of ids of this Arrow type; None if the type cannot be an id.

    Of a decimal type only the integers can be ids.
    """
    if isinstance(kind, pa.DictionaryType):
        kind = kind.value_type
    if isinstance(kind, pa.UuidType):
        return "u"
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return "s"
    if pa.types.is_integer(kind) or pa.types.is_decimal(kind):
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
        return composite_ids(fields, rule)
    paths = rule_paths(rule)
    tagged: pa.StringArray = pa.nulls(fields.rows, pa.string())
    texts: pa.StringArray = pa.nulls(fields.rows, pa.string())
    wrong_values: dict[int, str] = {}
    usable: dict[Path, Mask] = {}
    for path in paths:
        if path not in fields.columns:
            usable[path] = np.zeros(fields.rows, np.bool_)
            continue
        field_tags, field_texts = _tags_and_texts(fields, path, wrong_values)
        if fields.file is not None:
            field_texts = _without_blanks(field_texts, path, wrong_values)
        field_tagged = pc.binary_join_element_wise(field_tags, field_texts, pa.scalar(":"))
        usable[path] = field_tagged.is_valid().to_numpy(zero_copy_only=False)
        texts = pc.coalesce(texts, pc.if_else(field_tagged.is_valid(), field_texts, None))
        tagged = pc.coalesce(tagged, field_tagged)
    names = " or ".join(dotted(path) for path in paths)
    faults = {
        row: wrong_values.get(row, f"no id: {names} is missing or null")
        for row in np.flatnonzero(tagged.is_null().to_numpy(zero_copy_only=False)).tolist()
    }
    return Ids(tagged, texts, faults, usable)


def _without_blanks(
    texts: pa.StringArray, path: Path, wrong_values: dict[int, str]
) -> pa.StringArray:
    """Take an empty text for no id, in files: every record that lacks an id would share it.

    A store's empty text is a key that the store itself holds to be unique.
    """
    is_blank = pc.equal(texts, "")
    if not pc.any(is_blank).as_py():
        return texts
    reason = f"no id: {dotted(path)} is empty"
    wrong_values.update(dict.fromkeys(pc.indices_nonzero(is_blank).to_pylist(), reason))
    return pc.if_else(is_blank, None, texts)


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
    texts = id_texts(column, tag)
    if texts.null_count > column.null_count:
        for row in pc.indices_nonzero(pc.and_(column.is_valid(), texts.is_null())).to_pylist():
            wrong_values[row] = (
                f"{dotted(path)} is {column[row].as_py()}, which is no integer and cannot be an id"
            )
    return pa.repeat(pa.scalar(tag), len(column)), texts


def id_texts(column: pa.Array, tag: str) -> pa.StringArray:
    """Write a column of ids of one Arrow type as the texts behind their tag.

    A decimal that is no integer gives null.
    """
    if pa.types.is_decimal(column.type):
        return integer_texts(column)
    if tag == "b":
        blobs = column if pa.types.is_binary(column.type) else column.cast(pa.binary())
        return pa.array(
            [None if blob is None else blob.hex() for blob in blobs.to_pylist()], pa.string()
        )
    texts = values.metadata_texts(column)
    # the canonical JSON of a UUID stands in quotes
    return pc.utf8_slice_codeunits(texts, 1, 37) if tag == "u" else texts


def integer_texts(column: pa.Array) -> pa.StringArray:
    """Write decimals that are integers without their fraction; anything else gives null."""
    if column.type.scale < 0:  # Arrow writes them with an exponent
        return pa.array(
            [None if item is None else str(int(item)) for item in column.to_pylist()], pa.string()
        )
    texts = pc.replace_substring_regex(column.cast(pa.string()), r"\.0+$", "")
    return pc.if_else(pc.match_substring(texts, "."), None, texts)


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
        tag = VARIANT_TAGS.get(kind)
        if tag is None and kind not in (None, "null"):
            wrong_values[row] = f"{dotted(path)} is a {kind} ({text[:60]}), which cannot be an id"
        tags.append(tag)
        tag_texts.append(None if tag is None else id_text(tag, text))
    return pa.array(tags, pa.string()), pa.array(tag_texts, pa.string())


def id_text(tag: str, text: str) -> str:
    """Write the canonical text of a variant as the text behind its tag."""
    if tag not in ("u", "o", "b"):
        return text
    value = json.loads(text)
    return base64.b64decode(value).hex() if tag == "b" else str(value).lower()


def composite_ids(fields: Fields, rule: Key) -> Ids:
    """Write a composite id as canonical JSON of an array of its fields; a missing field is null."""
    columns = []
    usable: dict[Path, Mask] = {}
    for path in rule_paths(rule):
        column = fields.columns.get(path)
        usable[path] = is_present(fields, path)
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
    has_part = np.logical_or.reduce(list(usable.values()))
    faults = dict.fromkeys(np.flatnonzero(~has_part).tolist(), reason)
    return Ids(pc.binary_join_element_wise("j:", arrays, ""), arrays, faults, usable)


def is_present(fields: Fields, path: Path) -> Mask:
    """Tell for each row whether a field is neither missing nor null."""
    column = fields.rule_column(path)
    if column is None:
        return np.zeros(fields.rows, np.bool_)
    if path in fields.variants:
        kinds = variant_types(column)
        column = pc.if_else(pc.equal(kinds, "null"), None, kinds)
    is_present: Mask = column.is_valid().to_numpy(zero_copy_only=False)
    return is_present


def kept_uuids(ids: Ids, computed: pa.StringArray) -> pa.StringArray:
    """Keep ids that are UUIDs, in lower case (``mapping.keep_uuid``); compute the others' uuid."""
    is_uuid = pc.match_substring_regex(ids.texts, UUID)
    return pc.if_else(is_uuid, pc.utf8_lower(ids.texts), computed)


def declared_tag(fields: Fields, rule: object) -> str:
    """Give the tag that most ids of a sample have; references are cast to it."""
    ids = read_ids(fields, rule)
    tags = [text.split(":", 1)[0] for text in ids.tagged.drop_null().to_pylist()]
    return max(sorted(set(tags)), key=tags.count) if tags else "s"
