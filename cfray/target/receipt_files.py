"""How a receipt is written as JSON, and how the JSON of every format is read.

Format 2 says its format and its kind.  Format 1 said neither: one set of fields served
all kinds, and ``resolved`` had another shape for each.  ``_upgrade`` alone knows that.
What this version of cfray does not know is refused by name, never guessed.
"""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from functools import cache
from typing import Any, get_args

from pydantic import TypeAdapter

from cfray.errors import LedgerMismatch
from cfray.target.ledger import EntryKind, kind_of_format_1
from cfray.target.receipts import AnyReceipt, CompactionReceipt, Receipt

#: The format of receipts that this version writes; format 1 is upgraded to it.
FORMAT = 2

_CLASSES: dict[str, type[AnyReceipt]] = {
    receipt_class.kind: receipt_class for receipt_class in get_args(AnyReceipt)
}
#: Kind -> the field that holds now what ``resolved`` held in format 1.
_RESOLVED_FIELDS: dict[str, str] = {
    EntryKind.HEADERS: "stated",
    EntryKind.DUPLICATES: "removed",
    EntryKind.REPLAY: "lines",
    EntryKind.EMBED: "vector_sums",
}


def write_receipt(receipt: Receipt) -> bytes:
    """Write a receipt as JSON."""
    body = {"v": FORMAT, "kind": receipt.kind, **asdict(receipt)}
    return json.dumps(body, separators=(",", ":")).encode()


def read_receipt(data: bytes) -> AnyReceipt:
    """Read a receipt of any format.

    Raises:
        LedgerMismatch: a newer cfray wrote it.
        ValueError, TypeError, LookupError: it is damaged, or another program wrote it.
    """
    body = json.loads(data)
    if "v" not in body:
        body = _upgrade(body)
    written_format, kind = int(body.pop("v")), body.pop("kind")
    if written_format != FORMAT or kind not in _CLASSES:
        raise LedgerMismatch(
            f"this cfray does not know receipts of the kind {kind!r} in format {written_format}, "
            f"such as {body['name']}.{body['nonce']}",
            "use the version of cfray that wrote the target, or a newer one",
        )
    return _adapter(kind).validate_python(body)


@cache
def _adapter(kind: str) -> TypeAdapter[AnyReceipt]:
    return TypeAdapter(_CLASSES[kind])


def _upgrade(body: dict[str, Any]) -> dict[str, Any]:
    """Give a receipt of format 1 in format 2.

    Raises:
        LedgerMismatch: no version of cfray that wrote format 1 made such a name.
        ValueError: the receipt holds what its kind does not have.
    """
    name, remaining = body["name"], {"resolved": {}, **body}
    resolved, shard = remaining.pop("resolved"), remaining.pop("shard")
    is_compaction = name.startswith(f"{CompactionReceipt.kind}-")
    kind = CompactionReceipt.kind if is_compaction else kind_of_format_1(name)
    if kind == EntryKind.SHARD:
        remaining["shard"] = shard  # of other kinds it is the name once more
    if kind == EntryKind.DUPLICATES:
        # the chunks that left stand in ``removed``, too
        counts = dict(remaining["counts"])
        counts.pop("derived_frames", None)
        remaining["counts"] = counts
        resolved = {entry: _left_rows(rows) for entry, rows in resolved.items()}
    if kind == EntryKind.SOURCE_COUNT:
        remaining |= resolved
    elif kind in _RESOLVED_FIELDS:
        remaining[_RESOLVED_FIELDS[kind]] = resolved
    elif resolved:
        raise ValueError(f"a receipt of the kind {kind} resolves nothing")
    keys = {field.name for field in fields(_CLASSES[kind])}
    if any(value for key, value in remaining.items() if key not in keys):
        raise ValueError(f"the receipt {name} has fields that its kind {kind} does not have")
    of_kind = {key: value for key, value in remaining.items() if key in keys}
    return {"v": FORMAT, "kind": kind, **of_kind}


def _left_rows(body: dict[str, Any]) -> dict[str, Any]:
    chunks = body.get("chunks", 0)
    return {"records": body["rows"] - chunks, "chunks": chunks, "sums": body["sums"]}
