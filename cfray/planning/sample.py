"""Read a sample of a source: some records of some shards, and of each source collection."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa

from cfray.errors import SourceError
from cfray.job.spec import JobSpec
from cfray.records.record import Reject
from cfray.sources.base import Context, Shard

#: Records looked at: at most this many from each of the first, the middle and the last shard, and
#: from each source collection.
SAMPLE_ROWS = 1_000


#: Source collections beyond which no further one is looked at.
_SAMPLE_COLLECTIONS = 100


def sample(
    job: JobSpec, shards: list[Shard], context: Context
) -> tuple[list[pa.RecordBatch], list[Reject]]:
    """Read some records of the first, the middle and the last shard.

    Of each source collection.
    """
    batches: list[pa.RecordBatch] = []
    rejects: list[Reject] = []
    small = replace(context, batch_bytes=1024 * 1024)
    firsts = {shard.collection: number for number, shard in reversed(list(enumerate(shards)))}
    for number in (
        sorted({0, len(shards) // 2, len(shards) - 1, *list(firsts.values())[:_SAMPLE_COLLECTIONS]})
        if shards
        else []
    ):
        seen = 0
        for item in job.source.read(shards[number], small):
            if isinstance(item, Reject):
                rejects.append(item)
                seen += 1
            else:
                batches.append(item.slice(0, SAMPLE_ROWS - seen))
                seen += batches[-1].num_rows
            if seen >= SAMPLE_ROWS:
                break
    if not any(batch.num_rows for batch in batches) and not rejects:
        raise SourceError("the source holds no record", "correct source in the job file")
    return batches, rejects
