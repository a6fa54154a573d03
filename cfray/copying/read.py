"""Read one shard as a stream of record batches, each with the ordinal of its first record.

Counts what the source handed out, and measures how long that took: the worker's account
of a shard begins with this count.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from cfray.records.record import Reject
from cfray.sources.base import Context, Shard, Source


@dataclass(slots=True)
class Reading:
    """A shard that is being read.

    Attributes:
        source: of the shard.
        shard: to read.
        context: what the source is handed.
        count: records so far, rejects included.
        seconds: time spent in the source.
        is_lasting: whether another read would give the same, as long as nobody writes.
    """

    source: Source
    shard: Shard
    context: Context
    count: int = 0
    seconds: float = 0.0
    is_lasting: bool = True

    def __iter__(self) -> Iterator[tuple[int, pa.RecordBatch | Reject]]:
        """Yield the ordinal of the first record, and the batch or reject."""
        stream = self.source.read(self.shard, self.context)
        while True:
            begin = time.perf_counter()
            item = next(stream, None)
            self.seconds += time.perf_counter() - begin
            if item is None:
                return
            self.is_lasting = self.is_lasting and self.source.is_lasting(item)
            first_ordinal = self.count
            self.count += 1 if isinstance(item, Reject) else item.num_rows
            yield first_ordinal, item
