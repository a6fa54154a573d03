"""Make records of a page of documents: one batch, and a Reject for each document that has a fault.

The record's ``id`` is the document's ``_id``; every other field is a variant column under
its own name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from cfray.formats.columns import interleave, split_by_bytes
from cfray.formats.points import unreserved_name
from cfray.records.record import Reject, variant_field
from cfray.sources.base import Context
from cfray.sources.mongodb import ids, values
from cfray.sources.mongodb.columns import Field, build_column
from cfray.sources.mongodb.elements import MIN_KEY, DamagedBsonError, Element
from cfray.sources.mongodb.layouts import Span, Step, add_document

#: Bytes of a document that is too large which its Reject keeps.
_HEAD = 64 * 1024
_IDENTITY = b"_id"
#: Name of the id's column, and what stands before a field that has this name.
_ID, _DOCUMENT = "id", "document"
#: Stands in for the id of a document that is refused.
_NO_IDENTITY = Element(_IDENTITY, MIN_KEY, 0, 0)


@dataclass(frozen=True, slots=True)
class Page:
    """Documents as they came.

    Attributes:
        data: holds them.
        spans: where each begins and ends.
        position: says where the document of a number is, for a Reject.
    """

    data: bytes
    spans: Sequence[Span]
    position: Callable[[int], str]


def to_records(page: Page, context: Context) -> Iterator[pa.RecordBatch | Reject]:
    """Yield the page's documents in their order, in batches within ``context.batch_bytes``."""
    reader = _PageReader(page, context.max_record)
    batch = reader.build_batch()
    if reader.faults:
        good_rows = [row for row in range(len(page.spans)) if row not in reader.faults]
        batch = batch.take(pa.array(good_rows, pa.int64()))
        rejects = ((row, reader.reject(row)) for row in sorted(reader.faults))
        for item in interleave(good_rows, batch, rejects):
            if isinstance(item, Reject):
                yield item
            else:
                yield from split_by_bytes(item, context.batch_bytes)
        return
    yield from split_by_bytes(batch, context.batch_bytes)


class _PageReader:
    """Gathers the fields of a page's documents.

    Attributes:
        faults: row -> why the document cannot become a record.
    """

    def __init__(self, page: Page, max_record: int) -> None:
        self._page = page
        self.faults: dict[int, str] = {}
        self._fields: dict[bytes, Field] = {}
        self._identities = [_NO_IDENTITY] * len(page.spans)
        root = Step()
        for row, (start, end) in enumerate(page.spans):
            if end - start > max_record:
                size = f"{end - start} bytes, more than limits.max_document allows"
                self.faults[row] = f"the document has {size}"
                continue
            try:
                add_document(root, row, page.data, start, end)
            except DamagedBsonError as error:
                self.faults[row] = f"its BSON cannot be read: {error}"
        for step in root.all_steps():
            if step.documents:
                self._gather(step)

    def _gather(self, step: Step) -> None:
        """Take the values of documents that have the same fields in the same order."""
        names = [name for name, _ in step.fields]
        reason = _fault_of(names)
        if reason:
            self.faults |= {row: reason for row, _ in step.documents}
            return
        rows = [row for row, _ in step.documents]
        columns = zip(*(spans for _, spans in step.documents), strict=True)
        for (name, kind), spans in zip(step.fields, columns, strict=True):
            if name == _IDENTITY:
                for row, (start, end) in zip(rows, spans, strict=True):
                    self._identities[row] = Element(name, kind, start, end)
                continue
            field = self._fields.get(name)
            if field is None:
                field = self._fields[name] = Field()
            field.rows += rows
            field.kinds += [kind] * len(rows)
            field.spans += spans

    def build_batch(self) -> pa.RecordBatch:
        """Make a batch with a row for each document; rows with a fault hold anything."""
        data, count = self._page.data, len(self._page.spans)
        fields, arrays = [variant_field(_ID)], [self._ids()]
        columns = {}
        for raw_name, field in self._fields.items():
            try:
                name = unreserved_name(values.decode_text(raw_name), (_ID,), _DOCUMENT)
            except DamagedBsonError as error:
                for row in field.rows:
                    self.faults.setdefault(row, f"the name of a field cannot be read: {error}")
                continue
            columns[name] = build_column(data, field, count, self.faults)
        for name in sorted(columns):
            fields.append(variant_field(name))
            arrays.append(columns[name])
        return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))

    def _ids(self) -> pa.StructArray:
        try:
            return ids.build_ids(self._page.data, self._identities)
        except DamagedBsonError:
            for row, identity in enumerate(self._identities):
                try:
                    ids.build_ids(self._page.data, [identity])
                except DamagedBsonError as error:
                    self._identities[row] = _NO_IDENTITY
                    self.faults.setdefault(row, f"its _id cannot be read: {error}")
            return ids.build_ids(self._page.data, self._identities)

    def reject(self, row: int) -> Reject:
        """Set a document with a fault aside."""
        start, end = self._page.spans[row]
        content = self._page.data[start : min(end, start + _HEAD)]
        return Reject(self.faults[row], self._page.position(row), bytes(content))


def _fault_of(names: list[bytes]) -> str:
    """Say why a document with these names cannot become a record; empty where it can."""
    if len(set(names)) < len(names):
        name = next(name for index, name in enumerate(names) if name in names[:index])
        return f"it holds two fields of the name {name.decode(errors='replace')}"
    return "" if _IDENTITY in names else "it has no _id"
