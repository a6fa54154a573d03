"""Read the shards of the source again and convert them, as the copy did, without writing a row.

What comes of a shard is a few sums, so a corpus of any size is compared in little memory.
Reading again repeats the copy's own steps: it shows what was lost, doubled or altered on
the way or since, and not whether the mapping says what its author meant.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa

from cfray.conversion.steps import Steps
from cfray.copying.driver import in_order_of_columns
from cfray.copying.read import Reading
from cfray.copying.shard import PlannedShard, ShardCopy
from cfray.copying.write import Tally
from cfray.embedders.spec import Embedding
from cfray.errors import ConfigError, SourceError, SourceUnavailable
from cfray.frames.digests import MODULUS
from cfray.job.mapping import Mapping
from cfray.job.spec import JobSpec
from cfray.report.run import Run
from cfray.runtime import retry
from cfray.sources.base import Context
from cfray.target.books import Content


@dataclass(frozen=True, slots=True)
class SourceReader:
    """Reads shards again; travels to workers.

    Attributes:
        steps: from records to frames, as the copy took them.
        context: what the source is handed.
    """

    steps: Steps
    context: Context

    def copy_of(self, planned: PlannedShard) -> ShardCopy:
        """Give a shard on its way from records to frames."""
        source = self.steps.job.source
        return ShardCopy(Reading(source, planned.shard, self.context), self.steps)

    def frames(self, planned: PlannedShard) -> Iterator[pa.RecordBatch]:
        """Read a shard and convert it."""
        return self.copy_of(planned).frames()


@dataclass(frozen=True, slots=True)
class SourceContent:
    """What a shard of the source gives now.

    Attributes:
        number: of the shard in the plan.
        read: records.
        refused: records that do not fit.
        rejects: sum of the hashes of these, modulo 2**64.
        rows: the frames of the others, as the copy would write them.
        raw_sum: sum of the hashes of their ``raw_data``, modulo 2**64.
        error: why the shard cannot be read any more; empty where it can.
    """

    number: int
    read: int = 0
    refused: int = 0
    rejects: int = 0
    rows: Content = field(default_factory=Content)
    raw_sum: int = 0
    error: str = ""


def steps_of_copy(run: Run) -> Steps:
    """Give the steps by which the shards were copied.

    A later replay may have changed the mapping, a later embed the vectors: the shards were
    converted by the first job that the target accepted.

    Raises:
        ConfigError: nobody knows that job any more.
    """
    plan = run.state.plan()
    assert plan is not None
    first = run.target.ledger().fingerprints[0]
    agreements = {entry["fingerprint"]: entry["agreed"] for entry in run.state.jobs()}
    if first not in agreements and first != run.job.fingerprint:
        raise ConfigError(
            f"{run.state.folder.uri}/job.json does not say by which mapping the shards were copied",
            "restore the folder beside the target from a backup, or use the first job file",
        )
    job = _job_of(run.job, agreements.get(first, run.job.agreed))
    return Steps(job, in_order_of_columns(plan.shape, run.target), plan.tokenizer)


def _job_of(job: JobSpec, agreed: dict[str, object]) -> JobSpec:
    """Give a job the mapping and the embedding of an agreement."""
    update: dict[str, object] = {}
    if agreed["mapping"] != job.agreed["mapping"]:
        update["mapping"] = Mapping.model_validate(agreed["mapping"])
    if agreed["embedding"] != job.agreed["embedding"]:
        embedding = Embedding.model_validate(agreed["embedding"])
        if embedding.model == job.agreed["embedding"].get("model"):
            # an agreement holds paths as they are written
            embedding = embedding.model_copy(update={"model": job.embedding.model})
        update["embedding"] = embedding
    return job.model_copy(update=update) if update else job


def read_shard_again(reader: SourceReader, planned: PlannedShard) -> SourceContent:
    """Sum a shard of the source.  Body of a Ray task.

    Raises:
        SourceUnavailable: the store did not answer, also after its requests were repeated.
    """
    try:
        return retry.run_with_retries(lambda: _read_once(reader, planned))
    except SourceUnavailable:
        raise
    except SourceError as error:  # this shard alone: a file that was written again, or is gone
        return SourceContent(planned.number, error=error.what)


def _read_once(reader: SourceReader, planned: PlannedShard) -> SourceContent:
    shard_copy, tally = reader.copy_of(planned), Tally(has_members=False)
    for frames in shard_copy.frames():
        tally.add(frames)
    refused = shard_copy.rejected
    return SourceContent(
        planned.number,
        shard_copy.reading.count,
        len(refused),
        sum(row.digest for row in refused) % MODULUS,
        Content(tally.frames, tally.sums),
        tally.raw_sum,
    )
