"""Put items into batches of records, and refuse those that cannot become one.

The columns are ``id``, ``vectors`` where the job file declares some, then the attributes under
their own names.  The key attributes stay beside the id, under their names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import orjson
import pyarrow as pa

from cfray.formats.columns import interleave, split_by_bytes
from cfray.formats.points import unreserved_name
from cfray.records.record import MISSING, Reject, variant_array, variant_field
from cfray.sources.base import Context
from cfray.sources.dynamodb.settings import VectorAttribute
from cfray.sources.dynamodb.types import (
    UnreadableItem,
    WireItem,
    id_text,
    read_id,
    read_value,
)
from cfray.sources.dynamodb.vectors import Numbers, VectorReader

#: What stands before an attribute that is named like a column of the record.
_PREFIX = "item"
#: Columns of the record, whose names an attribute does not get.
_RESERVED = ("id", "vectors")
#: Bytes that an item has at most, by the service's quotas ("Item size": 400 KB), as JSON: every
#: byte may be written as an escape of six.
_LARGEST_ITEM = 6 * 400 * 1024


@dataclass(slots=True)
class _Rows:
    """Items of one batch, column by column."""

    numbers: list[int] = field(default_factory=list)
    ids: list[object] = field(default_factory=list)
    attributes: list[dict[str, object]] = field(default_factory=list)
    vectors: dict[str, list[Numbers | None]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RecordBuilder:
    """Builds the records of one source collection.

    Attributes:
        key: names of the key attributes: the partition key, then the sort key.
        vectors: the declared vectors, by attribute.
        collection: the source collection, for positions.
        context: of the run.
    """

    key: tuple[str, ...]
    vectors: Mapping[str, VectorAttribute]
    collection: str
    context: Context

    def build(
        self, items: Sequence[WireItem], positions: Sequence[str] | None = None
    ) -> Iterator[pa.RecordBatch | Reject]:
        """Build the records of a few items, in their order.

        Args:
            items: as they travel.
            positions: where each of them is, for a reject; default: the table and the id.
        """
        readers = [VectorReader(name, declared) for name, declared in self.vectors.items()]
        rows = _Rows(vectors={reader.name: [] for reader in readers})
        rejects: list[tuple[int, Reject]] = []
        for number, item in enumerate(items):
            try:
                self._check_size(item)
                record_id = read_id(item, self.key)
                vectors = [reader.read(item) for reader in readers]
                attributes = {
                    name: read_value(value)
                    for name, value in item.items()
                    if name not in self.vectors
                }
            except UnreadableItem as error:
                position = positions[number] if positions else self._position(item)
                rejects.append((number, Reject(str(error), position, orjson.dumps(item))))
                continue
            rows.numbers.append(number)
            rows.ids.append(record_id)
            rows.attributes.append(attributes)
            for reader, vector in zip(readers, vectors, strict=True):
                rows.vectors[reader.name].append(vector)
        for part in interleave(rows.numbers, self._to_batch(rows, readers), iter(rejects)):
            if isinstance(part, Reject):
                yield part
            else:
                yield from split_by_bytes(part, self.context.batch_bytes)

    def _check_size(self, item: WireItem) -> None:
        limit = self.context.max_record
        if limit < _LARGEST_ITEM and len(orjson.dumps(item)) > limit:
            raise UnreadableItem(f"the item is larger than limits.max_document ({limit:,} bytes)")

    def _position(self, item: WireItem) -> str:
        try:
            return f"{self.collection}:{id_text(read_id(item, self.key))[:80]}"
        except UnreadableItem:
            return self.collection

    def _to_batch(self, rows: _Rows, readers: Sequence[VectorReader]) -> pa.RecordBatch:
        fields = [variant_field("id")]
        columns: list[pa.Array] = [variant_array(rows.ids)]
        if readers:
            children = [pa.field(reader.name, reader.column_type) for reader in readers]
            arrays = [reader.build_column(rows.vectors[reader.name]) for reader in readers]
            fields.append(pa.field("vectors", pa.struct(children)))
            columns.append(pa.StructArray.from_arrays(arrays, fields=children))
        is_id = self.key == ("id",)
        # sorted: the attributes stand in the same order however the table cuts its pages
        for name in sorted({name for attributes in rows.attributes for name in attributes}):
            if name == "id" and is_id:
                continue
            fields.append(variant_field(unreserved_name(name, _RESERVED, _PREFIX)))
            columns.append(
                variant_array(attributes.get(name, MISSING) for attributes in rows.attributes)
            )
        return pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields))
