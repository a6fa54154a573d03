"""A sample of a source: what ``inspect`` bases its guesses on.

Reads the first records of every file, or of a spread of many, and of every source collection: a
guess that a second file would disprove is not made.  Nested fields are opened, so that a guess
names the columns that the mapping will name.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa

from cfray.conversion.fields import Fields
from cfray.conversion.file_columns import file_paths
from cfray.engine import throttle
from cfray.errors import CfrayError, ConfigError, SourceError
from cfray.inspection.field_samples import FieldSample, sample_field
from cfray.inspection.nested import leaf_paths
from cfray.inspection.spread import spread
from cfray.job.spec import Limits
from cfray.planning.copies import copy_warnings
from cfray.planning.sample import SAMPLE_ROWS
from cfray.records.record import Reject
from cfray.runtime.models import MIB
from cfray.sources.base import Context, Description, Shard, Source
from cfray.sources.files import notes
from cfray.sources.files.base import FileSource, pack_parts
from cfray.sources.files.csv import Csv
from cfray.sources.files.listing import PinnedFile
from cfray.sources.files.selection import select_files
from cfray.sources.remote import RemoteSource

#: Files whose heads are read; of more, a spread.
_SAMPLED_FILES = 64
#: Records of all files together, and of each file at least.
_ALL_ROWS, _FILE_ROWS = 3 * SAMPLE_ROWS, 40
#: Bytes of a batch that is read for the sample: most of it is cut off.
_BATCH_BYTES = MIB
#: Parts of a file, or shards of another source, that are looked at: first, middle and last.
_PARTS = 3
#: Source collections of which the sample holds records.
_SAMPLED_COLLECTIONS = 100


@dataclass(frozen=True)
class Sample:
    """Records of a source.

    Attributes:
        source: that they were read from.
        description: what the source says of itself.
        batches: the records as the source gives them.
        collections: source collection of each batch; empty for file kinds.
        rejects: rows that could not be read.
        is_complete: whether these are all records of the source.
        files: how many files the source has; 0 for stores.
        sampled_files: how many of them were looked at.
        passed_over: sentences about what lies at the location and is not read.
    """

    source: Source
    description: Description
    batches: list[pa.RecordBatch]
    collections: list[str]
    rejects: list[Reject]
    is_complete: bool
    files: int = 0
    sampled_files: int = 0
    passed_over: tuple[str, ...] = ()

    @property
    def is_store(self) -> bool:
        """Tell whether the records are a store's, which names their id and vectors itself."""
        return isinstance(self.source, RemoteSource)

    @cached_property
    def records(self) -> list[Fields]:
        """Give the records with every nested field opened; of several files, with their file."""
        paths = {
            path
            for batch in self.batches
            for item, column in zip(batch.schema, batch.columns, strict=True)
            for path in leaf_paths(item, column)
        }
        if self.files > 1:
            paths |= {path for batch in self.batches for path in file_paths(batch)}
        return [Fields(batch, paths) for batch in self.batches if batch.num_rows]

    @cached_property
    def copies(self) -> list[str]:
        """Name the files that hold the same records."""
        return copy_warnings(self.batches, self.description.copies)

    @cached_property
    def rows(self) -> int:
        """Count the records."""
        return sum(batch.num_rows for batch in self.batches)

    @cached_property
    def fields(self) -> list[FieldSample]:
        """Give every field, in the source's order."""
        paths = dict.fromkeys(
            path
            for fields in self.records
            for path in fields.columns
            if path not in fields.file_paths
        )
        return [sample_field(path, self.records) for path in paths]


def take_sample(source: Source) -> Sample:
    """Read the first records of the files or of the source collections.

    Raises:
        ConfigError: no record can be read.
        SourceError: the source cannot be read.
    """
    with source.session() as session, tempfile.TemporaryDirectory(prefix="cfray-plan-") as scratch:
        context = Context(
            session=session.state,
            scratch=scratch,
            max_record=Limits().max_document,
            batch_bytes=_BATCH_BYTES,
            throttle=throttle.local_budget(source),
        )
        sample = (
            _sample_files(source, context)
            if isinstance(source, FileSource)
            else _sample_shards(source, context)
        )
    if not sample.rows:
        raise _nothing_read(sample.rejects)
    return sample


def _nothing_read(rejects: list[Reject]) -> CfrayError:
    if not rejects:
        return SourceError("the source holds no record", "correct source in the job file")
    reason = Counter(reject.reason for reject in rejects).most_common(1)[0][0]
    return ConfigError(
        f"none of {len(rejects):,} sampled records can be read: {reason}",
        "correct the source, or its options",
    )


def _sample_files(source: FileSource, context: Context) -> Sample:
    """Read the head of every file, or of a spread; of three files or fewer the middle and end."""
    selection = select_files(source.uri, source.kind, source.suffixes)
    files = source.find_files()
    source.check_files(files, context)
    sampled = spread(files, _SAMPLED_FILES)
    shards = [shard for file in sampled for shard in _parts_of(source, file, context, len(files))]
    rows = min(SAMPLE_ROWS, max(_FILE_ROWS, _ALL_ROWS // len(shards))) if shards else 0
    batches, rejects, is_read_whole = [], [], len(sampled) == len(files)
    for shard in shards:
        read = _read_head(source, shard, context, rows)
        batches += read.batches
        rejects += read.rejects
        is_read_whole &= read.is_whole
    return Sample(
        source=source,
        description=source.describe(context, shards),
        batches=batches,
        collections=[""] * len(batches),
        rejects=rejects,
        is_complete=is_read_whole,
        files=len(files),
        sampled_files=len(sampled),
        passed_over=tuple(notes.selection_notes(selection, source.kind, source.suffixes)),
    )


def _parts_of(source: FileSource, file: PinnedFile, context: Context, files: int) -> list[Shard]:
    """Give the first part of a file as a shard; where there are few files more of its parts.

    A CSV file is cut at line breaks, although a field may hold one: only the first records of the
    first part are read, and a pass over the whole file is spared.
    """
    is_csv = isinstance(source, Csv)
    cutter = source.model_copy(update={"newlines_in_values": False}) if is_csv else source
    parts = cutter.split_file(file, context)
    chosen = spread(parts, _PARTS if files <= _PARTS and not is_csv else 1)
    return [shard for part in chosen for shard in pack_parts([part], source.shard_bytes)]


def _sample_shards(source: Source, context: Context) -> Sample:
    """Read the head of the first, the middle and the last shard, and of each collection."""
    shards = sorted(source.shards(context), key=lambda shard: shard.id)
    description = source.describe(context, shards)
    first_shards: dict[str, Shard] = {}
    for shard in shards:
        first_shards.setdefault(shard.collection, shard)
    chosen = {shard.id: shard for shard in spread(shards, _PARTS)}
    chosen |= {shard.id: shard for shard in list(first_shards.values())[:_SAMPLED_COLLECTIONS]}
    batches, collections, rejects = [], [], []
    is_complete = len(chosen) == len(shards)
    for shard in sorted(chosen.values(), key=lambda shard: shard.id):
        read = _read_head(source, shard, context, SAMPLE_ROWS)
        batches += read.batches
        collections += [shard.collection] * len(read.batches)
        rejects += read.rejects
        is_complete &= read.is_whole
    return Sample(source, description, batches, collections, rejects, is_complete)


@dataclass(frozen=True, slots=True)
class _Head:
    """The first records of a shard, and whether they are all of it."""

    batches: list[pa.RecordBatch]
    rejects: list[Reject]
    is_whole: bool


def _read_head(source: Source, shard: Shard, context: Context, rows: int) -> _Head:
    batches: list[pa.RecordBatch] = []
    rejects: list[Reject] = []
    count = 0
    for item in source.read(shard, context):
        if count >= rows:
            return _Head(batches, rejects, is_whole=False)
        if isinstance(item, Reject):
            rejects.append(item)
            count += 1
        elif item.num_rows:
            batches.append(item.slice(0, rows - count))
            count += item.num_rows
    return _Head(batches, rejects, is_whole=count <= rows)
