"""Rows that did not fit, as the quarantine holds them.

Each row has two copies of its content: a text for people, and an exact copy for replay, which is an
Arrow IPC stream of the row as base64.  A text would not do for replay, for it loses the types.
A quarantine file is JSON Lines; its keys are a contract with the files on disk.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
import xxhash

from cfray.conversion.convert import Fault
from cfray.frames.schema import ORIGINAL_ID
from cfray.job.mapping import Mapping
from cfray.records import values
from cfray.records.record import Reject, is_variant, parsed, variant_texts, variant_types

#: Stage of the records that repeat an identity; and of a record that its text or model refused.
COMMIT_STAGE, EMBED_STAGE = "commit", "embed"
#: What ``cfray quarantine list`` shows of a row.
_READABLE = ("stage", "reason", "position", "id", "content")
_KEYS = (*_READABLE, "record", "collection", "form")

#: What the copy for replay is: the record as the source gave it, or a frame of the target.
Form = Literal["record", "frame"]


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """A quarantined row, as its file holds it.

    Attributes:
        stage: the stage that found the fault.
        reason: why the row does not fit.
        position: where the row stands in its source.
        id: its original id, where it has one.
        content: the row for people; bytes that are no text as base64.
        record: the row for replay; empty where the bytes never became a record.
        collection: the source collection.
        form: of ``record``: a frame left the target, and its replay needs no mapping.
    """

    stage: str
    reason: str
    position: str
    id: str | None
    content: Any
    record: str = ""
    collection: str = ""
    form: Form = "record"

    def readable(self) -> dict[str, Any]:
        """Give what people read of the row."""
        return {name: getattr(self, name) for name in _READABLE}

    @property
    def digest(self) -> int:
        """Hash what the source gave and why it does not fit, not where it stood (64 bits)."""
        body = [self.stage, self.reason, self.id, self.content, self.collection]
        return xxhash.xxh3_64_intdigest(json.dumps(body, sort_keys=True).encode())

    def to_line(self) -> bytes:
        """Write the row as a line of JSON."""
        body = {name: getattr(self, name) for name in _KEYS}
        return json.dumps(body, ensure_ascii=False).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> RejectedRow:
        """Read a line of a quarantine file.

        Raises:
            ValueError, TypeError, LookupError: the line is damaged.
        """
        body = json.loads(line)
        # lines of earlier versions do not say it
        body.setdefault("form", "frame" if body["stage"] == COMMIT_STAGE else "record")
        return cls(**{name: body[name] for name in _KEYS})


def row_to_text(row: pa.RecordBatch) -> str:
    """Write a batch of one row for replay."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, row.schema) as writer:
        writer.write_batch(row)
    return base64.b64encode(sink.getvalue()).decode()


def row_from_text(text: str) -> pa.RecordBatch:
    """Read a row that ``row_to_text`` wrote.

    Raises:
        ValueError, OSError: the text is damaged.
    """
    (row,) = pa.ipc.open_stream(base64.b64decode(text))
    return row


def reject_bytes(reject: Reject, collection: str) -> RejectedRow:
    """Set aside bytes that never became a record."""
    try:
        content: object = reject.content.decode()
    except UnicodeDecodeError:
        content = {"base64": base64.b64encode(reject.content).decode()}
    return RejectedRow("read", reject.reason, reject.position, None, content, collection=collection)


def reject_record(
    batch: pa.RecordBatch, fault: Fault, position: str, collection: str, mapping: Mapping
) -> RejectedRow:
    """Set aside the record of a batch that a fault names."""
    row = batch.slice(fault.row, 1)
    content: dict[str, object] = {}
    for field, column in zip(row.schema, row.columns, strict=True):
        if is_variant(field):
            text, kind = variant_texts(column)[0].as_py(), variant_types(column)[0].as_py()
            if text is not None:
                content[field.name] = text if kind == "string" else json.loads(text)
        else:
            text = values.json_texts(column)[0].as_py()
            content[field.name] = None if text is None else json.loads(text)
    original_id = content.get(mapping.id) if isinstance(mapping.id, str) else None
    return RejectedRow(
        fault.stage,
        fault.reason,
        position,
        None if original_id is None else str(original_id),
        content,
        row_to_text(row),
        collection,
    )


def reject_frame(
    frames: pa.RecordBatch, fault: Fault, position: str, collection: str
) -> RejectedRow:
    """Set aside the frame that a fault names: it leaves the target, its replay needs no mapping."""
    frame = frames.slice(fault.row, 1)
    content = {
        name: parsed(text)
        for name, column in zip(frame.schema.names, frame.columns, strict=True)
        if (text := values.json_texts(column)[0].as_py()) is not None
    }
    entries = frame.column("custom_metadata")[0].as_py() or []
    original_ids = [entry["value"] for entry in entries if entry["key"] == ORIGINAL_ID]
    return RejectedRow(
        fault.stage,
        fault.reason,
        position,
        original_ids[0] if original_ids else None,
        content,
        row_to_text(frame),
        collection,
        form="frame",
    )
