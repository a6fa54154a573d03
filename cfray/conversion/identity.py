"""Ids as a source holds them, made the tagged texts that uuids are computed from.

The tag follows the source's declared type, so ``42`` and ``"42"`` are two ids
and a live read and an export agree.  A value that cannot be an id (float, bool,
null, nested) is a fault of its row.  References are cast to the id's type.

Source of the rules: ``shared/contextframe.md``, "Identity" (a contract).
"""

from __future__ import annotations

import json
import re
import uuid
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cfray.job.mapping import Fields, Key, Path, dotted, rule_paths
from cfray.records import values
from cfray.records.record import canonical, variant_texts, variant_types

#: Type names of variants and the tag their values have as ids.
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
        tagged: ``tag:text`` a row; null where there is none or it is refused.
        texts: the text alone.
        faults: row number -> why it has no usable id.
    """

    tagged: pa.StringArray
    texts: pa.StringArray
    faults: dict[int, str]


def id_tag(kind: pa.DataType) -> str | None:
    """Give the tag ids of this Arrow type have; None if the type cannot be an id."""
    if isinstance(kind, pa.DictionaryType):
        kind = kind.value_type
    if isinstance(kind, pa.UuidType):
        return "u"
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return "s"
    if pa.types.is_integer(kind):
        return "i"
    binary = (
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
    )
    return "b" if binary else None


def read_ids(fields: Fields, rule: object) -> Ids:
    """Read the record ids a rule names."""
    if isinstance(rule, Key):
        return _composite(fields, rule)
    paths = rule_paths(rule)
    tagged: pa.StringArray = pa.nulls(fields.rows, pa.string())
    texts: pa.StringArray = pa.nulls(fields.rows, pa.string())
    wrong: dict[int, str] = {}
    for path in paths:
        if path not in fields.columns:
            continue
        tags, own = _tags_and_texts(fields, path, wrong)
        joined = pc.binary_join_element_wise(tags, own, pa.scalar(":"))
        texts = pc.coalesce(texts, pc.if_else(joined.is_valid(), own, None))
        tagged = pc.coalesce(tagged, joined)
    name = " or ".join(dotted(path) for path in paths)
    faults = {
        row: wrong.get(row, f"no id: {name} is missing or null")
        for row in np.flatnonzero(tagged.is_null().to_numpy(zero_copy_only=False)).tolist()
    }
    return Ids(tagged, texts, faults)


def _tags_and_texts(
    fields: Fields, path: Path, wrong: dict[int, str]
) -> tuple[pa.Array, pa.StringArray]:
    column = fields.given(path)
    assert column is not None
    if path in fields.variants:
        return _variant_tags(column, path, wrong)
    tag = id_tag(column.type)
    if tag is None:
        bad = column.is_valid().to_numpy(zero_copy_only=False)
        wrong.update(
            {
                int(row): f"{dotted(path)} is of type {column.type}, which cannot be an id"
                for row in np.flatnonzero(bad)
            }
        )
        return pa.nulls(len(column), pa.string()), pa.nulls(len(column), pa.string())
    texts = plain_texts(column, tag)
    return pa.repeat(pa.scalar(tag), len(column)), texts


def plain_texts(column: pa.Array, tag: str) -> pa.StringArray:
    """Write a column of ids of one Arrow type as the texts behind their tag."""
    if tag == "b":
        raw = column.cast(pa.binary()) if not pa.types.is_binary(column.type) else column
        return pa.array(
            [None if value is None else value.hex() for value in raw.to_pylist()], pa.string()
        )
    texts = values.metadata_texts(column)
    return (
        pc.utf8_slice_codeunits(texts, 1, 37) if tag == "u" else texts
    )  # a UUID's canonical JSON stands in quotes


def _variant_tags(
    column: pa.StructArray, path: Path, wrong: dict[int, str]
) -> tuple[pa.Array, pa.StringArray]:
    kinds = variant_types(column)
    texts = variant_texts(column)
    if pc.all(pc.equal(kinds, "string")).as_py() and not kinds.null_count:
        return pa.repeat(pa.scalar("s"), len(column)), texts
    tags: list[str | None] = []
    own: list[str | None] = []
    for row, (kind, text) in enumerate(zip(kinds.to_pylist(), texts.to_pylist(), strict=True)):
        tag = _VARIANT_TAGS.get(kind)
        if tag is None and kind not in (None, "null"):
            wrong[row] = f"{dotted(path)} is a {kind} ({text[:60]}), which cannot be an id"
        tags.append(tag)
        own.append(text if tag in ("s", "i") else (_unquoted(tag, text) if tag else None))
    return pa.array(tags, pa.string()), pa.array(own, pa.string())


def _unquoted(tag: str, text: str) -> str:
    """Take an id out of its canonical JSON string."""
    value = json.loads(text)
    if tag == "b":
        import base64

        return base64.b64decode(value).hex()
    return str(value).lower()


def _composite(fields: Fields, rule: Key) -> Ids:
    """Write a composite id as canonical JSON of the array of its parts; a missing part is null."""
    parts = []
    for path in rule_paths(rule):
        column = fields.columns.get(path)
        if column is None:
            parts.append(pa.repeat(pa.scalar("null"), fields.rows))
        elif path in fields.variants:
            texts, kinds = variant_texts(column), variant_types(column)
            quoted = pc.if_else(pc.equal(kinds, "string"), values.json_texts(texts), texts)
            parts.append(pc.fill_null(quoted, "null"))
        else:
            parts.append(pc.fill_null(values.json_texts(column), "null"))
    texts = pc.binary_join_element_wise("[", pc.binary_join_element_wise(*parts, ","), "]", "")
    given = np.zeros(fields.rows, np.bool_)
    for path in rule_paths(rule):
        given |= _is_given(fields, path)
    name = ", ".join(dotted(path) for path in rule_paths(rule))
    faults = dict.fromkeys(
        np.flatnonzero(~given).tolist(), f"no id: {name} are all missing or null"
    )
    return Ids(pc.binary_join_element_wise("j:", texts, ""), texts, faults)


def kept_uuids(ids: Ids, computed: pa.StringArray) -> pa.StringArray:
    """Keep ids that are UUIDs (``mapping.keep_uuid``), lower-case.

    Take the computed uuid elsewhere.
    """
    return pc.if_else(
        pc.match_substring_regex(ids.texts, _UUID), pc.utf8_lower(ids.texts), computed
    )


def read_references(
    fields: Fields, rule: object, tag: str
) -> tuple[npt.NDArray[np.int64], pa.StringArray]:
    """Read the ids a relationship points to, cast to the id's type.

    Args:
        fields: the batch.
        rule: ``to`` of a relationship.
        tag: the tag of the ids of this source.

    Returns:
        row numbers ``(m,)`` ascending, and m tagged ids; a null gives none, a list gives one for
        each of its items.
    """
    if isinstance(rule, Key):
        whole = np.ones(fields.rows, np.bool_)
        for part in rule_paths(rule):
            whole &= _is_given(fields, part)  # a null part points nowhere
        return np.flatnonzero(whole), _composite(fields, rule).tagged.filter(pa.array(whole))
    before = np.zeros(fields.rows, np.bool_)
    parts: list[tuple[npt.NDArray[np.int64], pa.StringArray]] = [
        (np.empty(0, np.int64), pa.array([], pa.string()))
    ]
    for path in rule_paths(rule):
        column = fields.given(path)
        if column is None:
            continue
        rows, tagged = (
            _variant_references(column, tag)
            if path in fields.variants
            else _column_references(column, tag)
        )
        free = ~before[rows]
        parts.append((rows[free], tagged.filter(pa.array(free))))
        present = (
            pc.fill_null(pc.not_equal(variant_types(column), "null"), False)
            if path in fields.variants
            else column.is_valid()
        )
        before |= present.to_numpy(zero_copy_only=False)
    rows = np.concatenate([part for part, _ in parts])
    order = np.argsort(rows, kind="stable")
    return rows[order], pa.concat_arrays([part for _, part in parts]).take(pa.array(order))


def _column_references(column: pa.Array, tag: str) -> tuple[npt.NDArray[np.int64], pa.StringArray]:
    rows = np.arange(len(column))
    if (
        pa.types.is_list(column.type)
        or pa.types.is_large_list(column.type)
        or pa.types.is_fixed_size_list(column.type)
    ):
        rows = pc.list_parent_indices(column).to_numpy().astype(np.int64)
        column = column.flatten()
    own = id_tag(column.type)
    texts = plain_texts(column, own) if own else values.metadata_texts(column)
    tagged = _cast(texts, own or "s", tag)
    valid = tagged.is_valid()
    return rows[valid.to_numpy(zero_copy_only=False)], tagged.filter(valid)


def _is_given(fields: Fields, path: Path) -> npt.NDArray[np.bool_]:
    """Tell for each row whether a field is neither missing nor null."""
    column = fields.given(path)
    if column is None:
        return np.zeros(fields.rows, np.bool_)
    if path in fields.variants:
        column = pc.if_else(pc.equal(variant_types(column), "null"), None, variant_types(column))
    given: npt.NDArray[np.bool_] = column.is_valid().to_numpy(zero_copy_only=False)
    return given


def _cast(texts: pa.StringArray, own: str, tag: str) -> pa.StringArray:
    """Tag reference texts: cast to the id's tag where the text fits it.

    Else with their own type's tag.
    """
    if own == tag or (own == "i" and tag == "s"):
        return pc.binary_join_element_wise(tag, texts, ":")
    return pa.array(
        [None if text is None else _cast_one(text, own, tag) for text in texts.to_pylist()],
        pa.string(),
    )


def _cast_one(text: str, own: str, tag: str) -> str:
    if own == "s" and tag == "i" and _DIGITS.fullmatch(text):
        return f"i:{text}"
    if own == "s" and tag == "u" and re.fullmatch(_UUID, text):
        return f"u:{uuid.UUID(text)}"
    if own == "s" and tag in ("o", "b") and re.fullmatch(r"[0-9A-Fa-f]*", text):
        return f"{tag}:{text.lower()}"
    return f"s:{text}" if own in ("s", "i", "u") and tag == "s" else f"{own}:{text}"


def _variant_references(
    column: pa.StructArray, tag: str
) -> tuple[npt.NDArray[np.int64], pa.StringArray]:
    rows: list[int] = []
    tagged: list[str] = []
    kinds, texts = variant_types(column).to_pylist(), variant_texts(column).to_pylist()
    for row, (kind, text) in enumerate(zip(kinds, texts, strict=True)):
        if kind is None or kind == "null":
            continue
        own_tag = _VARIANT_TAGS.get(kind, "j")
        found = (
            [_tagged_item(item) for item in json.loads(text) if item is not None]
            if kind.startswith("list")
            else [(own_tag, text)]
        )
        for own, one in found:
            rows.append(row)
            tagged.append(
                _cast_one(one if own not in ("u", "o", "b") else _unquoted(own, one), own, tag)
                if own != tag
                else f"{tag}:{one if own in ('s', 'i', 'j') else _unquoted(own, one)}"
            )
    return np.array(rows, np.int64), pa.array(tagged, pa.string())


def _tagged_item(item: object) -> tuple[str, str]:
    if isinstance(item, str):
        return "s", item
    return "i" if type(item) is int else "j", canonical(item)


def declared_tag(fields: Fields, rule: object) -> str:
    """Give the tag that most ids of a sample have: what references are cast to."""
    ids = read_ids(fields, rule)
    tags = [text.split(":", 1)[0] for text in ids.tagged.drop_null().to_pylist()]
    return max(sorted(set(tags)), key=tags.count) if tags else "s"
