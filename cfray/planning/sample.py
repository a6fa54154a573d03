"""Read a sample of a source: some records of some shards, and of each source collection.

``plan`` and ``inspect`` look at the same sample, so a guess that holds for the draft of a job file
holds for its plan.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import pyarrow as pa

from cfray.errors import ConfigError, SourceError
from cfray.job.spec import JobSpec
from cfray.records.record import Reject
from cfray.runtime.models import MIB
from cfray.sources.base import Context, Description, Shard

#: Records of a shard that the sample holds at most.
SAMPLE_ROWS = 1_000
#: Source collections of which the sample holds records.
_SAMPLE_COLLECTIONS = 100
#: Shards that are read beside these where all of them are small.
_FURTHER_SHARDS = 50
#: Bytes of a batch that is read for the sample: smaller than a run's, for most of it is cut off.
_BATCH_BYTES = MIB


@dataclass(frozen=True, slots=True)
class Sample:
    """Some records of a source.

    Attributes:
        batches: the records.
        collections: for each batch, the source collection that it is of.
        rejects: the rows that became no record.
        is_complete: whether these are all rows of the source.
    """

    batches: list[pa.RecordBatch]
    collections: list[str]
    rejects: list[Reject]
    is_complete: bool = False

    @property
    def rows(self) -> int:
        """Count the rows, rejected ones among them."""
        records = sum(int(batch.num_rows) for batch in self.batches)
        return len(self.rejects) + records


def read_sample(job: JobSpec, shards: list[Shard], context: Context) -> Sample:
    """Read some records of the first, the middle and the last shard, and of each collection.

    Of a source of many small shards, records of more shards are read.

    Raises:
        SourceError: the source holds no record, or cannot be read.
    """
    context = replace(context, batch_bytes=_BATCH_BYTES)
    numbers = _sampled_shards(shards)
    parts = {number: _read_shard(job, shards[number], context) for number in numbers}
    for number in _further_shards(shards, parts):
        parts[number] = _read_shard(job, shards[number], context)
    samples = [parts[number] for number in sorted(parts)]
    batches = [batch for sample in samples for batch in sample.batches]
    rejects = [reject for sample in samples for reject in sample.rejects]
    if not rejects and not any(batch.num_rows for batch in batches):
        raise SourceError(
            f"the source holds no record: nothing to read at {job.source.address}",
            "correct source in the job file, or export the data again",
        )
    collections = [collection for sample in samples for collection in sample.collections]
    is_complete = len(parts) == len(shards) and all(sample.is_complete for sample in samples)
    return Sample(batches, collections, rejects, is_complete)


def _read_shard(job: JobSpec, shard: Shard, context: Context) -> Sample:
    """Read the first records of a shard."""
    batches: list[pa.RecordBatch] = []
    rejects: list[Reject] = []
    rows, is_complete = 0, True
    for item in job.source.read(shard, context):
        if isinstance(item, Reject):
            rejects.append(item)
            rows += 1
        else:
            batches.append(item.slice(0, SAMPLE_ROWS - rows))
            rows += batches[-1].num_rows
        if rows >= SAMPLE_ROWS:
            is_complete = False
            break
    return Sample(batches, [shard.collection] * len(batches), rejects, is_complete)


def _further_shards(shards: list[Shard], parts: dict[int, Sample]) -> list[int]:
    """Choose more shards where those that were read are small, to come to a shard's sample."""
    rows = sum(sample.rows for sample in parts.values())
    others = [number for number in range(len(shards)) if number not in parts]
    if rows >= SAMPLE_ROWS or not others:
        return []
    missing = -(-(SAMPLE_ROWS - rows) * len(parts) // max(1, rows))
    count = min(missing, _FURTHER_SHARDS, len(others))
    return [others[len(others) * position // count] for position in range(count)]


def check_sample(description: Description, sample: Sample) -> None:
    """Refuse a source of which no sampled row is a record, where no schema names its fields.

    The job file then names the wrong kind of source, or the wrong files; a plan could only say
    that the mapping's fields are missing.

    Raises:
        ConfigError: names the first row that cannot be read, and why.
    """
    if description.schema is not None or any(batch.num_rows for batch in sample.batches):
        return
    first = sample.rejects[0]
    raise ConfigError(
        f"none of the {len(sample.rejects):,} sampled rows can be read; the first is "
        f"{first.position}: {first.reason}",
        "correct source.kind or source.uri in the job file, or the files; nothing was created",
    )


def _sampled_shards(shards: list[Shard]) -> list[int]:
    """Choose the shards that are looked at, by number: some of all, and one a collection."""
    if not shards:
        return []
    first_shards: dict[str, int] = {}
    for number, shard in enumerate(shards):
        first_shards.setdefault(shard.collection, number)
    return sorted(
        {
            0,
            len(shards) // 2,
            len(shards) - 1,
            *list(first_shards.values())[:_SAMPLE_COLLECTIONS],
        }
    )
