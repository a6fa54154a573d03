"""The order of steps from records to the frames that the copy writes: convert, cut chunks.

The copy, a replay, the plan's forecast and the tests share this order.  No step makes a vector:
the frames have the source's vectors, or zeros one wide where a model will make all of them after
the copy (``cfray.embedding``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cfray.conversion import chunk_frames
from cfray.conversion.convert import Conversion, Converted
from cfray.conversion.cut_chunks import ChunkCutter
from cfray.frames.schema import ORIGIN
from cfray.job.mapping import SourceShape
from cfray.job.spec import JobSpec

#: Value of the column of origins for a vector of the source.
KEPT = "kept"


def copied_schema(job: JobSpec, shape: SourceShape) -> pa.Schema:
    """Give the schema of the frames that the copy writes.

    It lacks what the embedding brings: the width of new vectors, and ``embedding.columns``.
    """
    schema = Conversion(job, shape).schema.append(pa.field(ORIGIN, pa.string()))
    return schema.append(chunk_frames.FIELD) if job.embedding.chunk else schema


@dataclass(frozen=True)
class Steps:
    """The steps for the records of one source; they travel to workers.

    Attributes:
        job: the job file.
        shape: of the source.
        tokenizer: SHA-256 of the tokenizer that cuts chunks; empty where none is needed.
    """

    job: JobSpec
    shape: SourceShape
    tokenizer: str = ""

    @cached_property
    def conversion(self) -> Conversion:
        """Give the first step."""
        return Conversion(self.job, self.shape)

    @cached_property
    def cutter(self) -> ChunkCutter | None:
        """Give what cuts chunks; None where the job asks for none."""
        return ChunkCutter.of(self.job.embedding, self.tokenizer)

    @cached_property
    def schema(self) -> pa.Schema:
        """Give the schema of the frames."""
        return copied_schema(self.job, self.shape)

    def __call__(self, batch: pa.RecordBatch, collection: str) -> Converted:
        """Convert one batch of records of one source collection, and cut its chunks.

        Raises:
            ConfigError: the tokenizer is missing here, or is not the plan's.
        """
        converted = self.conversion.convert(batch, collection)
        return self.cut(converted, collection)

    def cut(self, converted: Converted, collection: str) -> Converted:
        """Add what ``Conversion`` does not know: the vectors' origins, and the chunks."""
        frames = self._with_origins(converted)
        if self.cutter is None:
            return replace(converted, frames=frames)
        chunks = self.cutter.cut(frames.column("text_content"))
        converted.counts["derived_frames"] += len(chunks.owner)
        ids = chunk_frames.Ids(converted.tagged_ids, self.job, collection)
        return replace(converted, frames=chunk_frames.with_chunks(frames, chunks, ids))

    def _with_origins(self, converted: Converted) -> pa.RecordBatch:
        frames = converted.frames
        origins = converted.origins
        if origins is None:
            origins = self._origins(converted.missing)
        columns = [*frames.columns, origins]
        if self.cutter is not None:
            columns.append(pa.nulls(frames.num_rows, pa.string()))
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)

    def _origins(self, missing: npt.NDArray[np.bool_]) -> pa.StringArray:
        if self.job.embedding.policy == "regenerate":
            return pa.nulls(len(missing), pa.string())
        if not missing.any():
            return pa.repeat(pa.scalar(KEPT), len(missing))
        return pc.if_else(pa.array(missing), None, KEPT)
