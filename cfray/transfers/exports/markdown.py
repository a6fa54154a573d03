"""Documents as Markdown: a file each, its fields as YAML before its text."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import yaml

from cfray.sources.files.frames import NO_TEXT
from cfray.transfers.exports.texts import json_objects

#: Bytes that a file's name may have on most filesystems, less suffix and temporary ending.
_NAME_BYTES = 200
_HASH_DIGITS = 16


def documents(rows: pa.RecordBatch, texts: pa.StringArray, text_field: str | None) -> list[bytes]:
    """Write each row as a document.

    Args:
        rows: the fields.
        texts: of the documents.
        text_field: the field that is the text itself, which the front matter leaves out.
    """
    names = [name for name in rows.schema.names if name != text_field]
    objects = json_objects(rows.select(names), with_nulls=False)
    return [
        _document(json.loads(fields), text)
        for fields, text in zip(objects.to_pylist(), texts.to_pylist(), strict=True)
    ]


def _document(fields: dict[str, Any], text: str | None) -> bytes:
    if text is None:
        fields = {**fields, NO_TEXT: True}
    front = yaml.dump(fields, Dumper=_Dumper, allow_unicode=True, sort_keys=False, width=10**9)
    return f"---\n{front}---\n{text or ''}".encode()


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    """Writes lists of numbers on one line: a vector of 384 numbers is no page of them."""


def _represent_list(dumper: Any, values: list[Any]) -> Any:
    is_flat = all(isinstance(value, int | float) for value in values)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=is_flat)


_Dumper.add_representer(list, _represent_list)


def file_name(original_id: str, uuid: str, *, is_unique: bool = True) -> str:
    """Name the file of a document after its id; a long id is cut, and its uuid tells it apart.

    Args:
        original_id: of the document.
        uuid: of it.
        is_unique: whether no id of another type may have the same text.
    """
    name = quote(original_id, safe=" ()+,=@[]")
    name = re.sub(r"^\.|\.$", "%2E", name)
    if name and len(name) <= _NAME_BYTES and is_unique:
        return f"{name}.md"
    return f"{_cut(name, uuid)}.md"


def _cut(name: str, whole: str) -> str:
    """Cut a name, and tell it apart by a hash of what it stands for."""
    digest = hashlib.sha256(whole.encode()).hexdigest()[:_HASH_DIGITS]
    return f"{name[: _NAME_BYTES - _HASH_DIGITS]}-{digest}"


def folder_name(collection: str) -> str:
    """Name the folder of a collection; a slash in its name is a folder in a folder."""
    return "/".join(_folder(part) for part in collection.split("/"))


def _folder(part: str) -> str:
    if set(part) <= {"."}:
        return "%2E" * len(part) or "%00"  # no folder has the names that these would be
    name = quote(part, safe=" ()+,=@[]")
    # what a file beside it may be called
    name = re.sub(r"\.(md|json)$", r"%2E\1", name)
    return name if len(name) <= _NAME_BYTES else _cut(name, part)
