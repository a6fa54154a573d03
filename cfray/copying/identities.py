"""Find uuids that several rows of the target have, and references to uuids that no row has.

The driver searches a small target alone.  For a larger one two steps of tasks follow each other:

1.  *Scatter*: a task reads the uuids and references of some fragments and writes them, grouped
    into buckets by a hash of the uuid, to files in the target's ``scratch/``.
2.  *Search*: a task reads one bucket from all these files and searches it (``uuid_search``).

Ray may repeat a task at any time: the files of every attempt have names of their own, and only
files that a result names are read.  A billion rows are 200 buckets; a worker holds one of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import lance
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
from lance import LanceDataset

from cfray.conversion import chunk_frames
from cfray.copying.uuid_search import (
    KEY,
    KEYED_ROW,
    UUID_LENGTH,
    Found,
    KeyedRows,
    Keys,
    bucket_numbers,
    search,
    uuid_keys,
)
from cfray.copying.write import new_nonce
from cfray.engine.cluster import cores
from cfray.engine.tasks import TaskOptions, run_tasks
from cfray.runtime.filesystems import Folder, open_filesystem, storage_options
from cfray.runtime.storage_errors import classify_write_error
from cfray.target.commit import Target
from cfray.target.scans import SCAN_LIMITS
from cfray.target.state import State

#: Parts of files that a task reads at the same time: on an object store each costs a round trip.
_READERS = 16
#: Rows for which another task that runs at once costs more than it saves.
_LEAST_ROWS = 100_000
#: Tasks of a step for each task that runs at once: the last tasks to end keep few cores waiting.
_TASKS_PER_WORKER = 4
#: Beginning of the name of the folder in ``scratch/``; the epoch of the run follows.
FOLDER_PREFIX = "identities-"


@dataclass(frozen=True, slots=True)
class SearchLimits:
    """How much one process holds, and how many work at once.

    Attributes:
        driver_rows: rows up to which the driver searches alone.
        bucket_rows: rows of a bucket.  A search takes 52 bytes a row: 260 MB for 5 million.
        file_items: uuids of a file, or references, or references that are looked up at once.  They
            take up to 110 bytes each: 110 MB for 1 million.
        workers: tasks at once; None: as many as the cluster has cores.
    """

    driver_rows: int = 500_000
    bucket_rows: int = 5_000_000
    file_items: int = 1_000_000
    workers: int | None = None


def search_target(target: Target, limits: SearchLimits, *, references: bool) -> Found:
    """Search every uuid of the target; chunks are left out, for their uuids follow from others.

    Args:
        target: the dataset.
        limits: of each process.
        references: count references that point nowhere, too; membership is no reference.

    Raises:
        TargetError: the scratch folder could not be written or read.
    """
    dataset = target.open()
    rows = dataset.count_rows()
    if rows <= limits.driver_rows:
        keyed_rows = [np.empty(0, KEYED_ROW), *_scan_rows(dataset)]
        return search(np.concatenate(keyed_rows), _scan_references(dataset) if references else ())
    at_once = min(limits.workers or cores(), max(1, rows // _LEAST_ROWS))
    bucket_count = max(-(-rows // limits.bucket_rows), at_once * _TASKS_PER_WORKER)
    options = TaskOptions(max_tasks=limits.workers)
    with _scratch_folder(target) as folder:
        scatter = Scatter(
            target.uri, dataset.version, folder, bucket_count, limits.file_items, references
        )
        fragment_ids = [fragment.fragment_id for fragment in dataset.get_fragments()]
        task_count = min(len(fragment_ids), at_once * _TASKS_PER_WORKER)
        groups = [fragment_ids[number::task_count] for number in range(task_count)]
        scattered = list(run_tasks(scatter, groups, options))
        buckets = [Bucket.of(scattered, number) for number in range(bucket_count)]
        found = list(run_tasks(SearchBucket(folder, limits.file_items), buckets, options))
    return Found(
        row_ids=np.concatenate([part.row_ids for part in found]),
        group_sizes=np.concatenate([part.group_sizes for part in found]),
        dangling=sum(part.dangling for part in found),
    )


@contextmanager
def _scratch_folder(target: Target) -> Iterator[Folder]:
    """Give the run's folder in ``scratch/``; remove it at the end, and what killed runs left."""
    scratch = State(target.uri).scratch
    name = f"{FOLDER_PREFIX}{target.epoch}"
    try:
        yield scratch.child(name)
    finally:
        system, path = open_filesystem(scratch.uri)
        for info in system.get_file_info(pafs.FileSelector(path, allow_not_found=True)):
            prefix, _, epoch = info.base_name.partition("-")
            if f"{prefix}-" == FOLDER_PREFIX and int(epoch) <= target.epoch:
                system.delete_dir(info.path)


# step 1


@dataclass(frozen=True, slots=True)
class BucketFile:
    """A file whose items are grouped by bucket.

    Attributes:
        name: in the run's folder.
        bounds: ``(buckets + 1,)``: bucket b has the items ``bounds[b]`` to ``bounds[b + 1]``.
    """

    name: str
    bounds: npt.NDArray[np.int64]

    def part(self, bucket: int) -> FilePart:
        """Give where a bucket stands in the file."""
        start, end = self.bounds[bucket : bucket + 2].tolist()
        return FilePart(self.name, start, end - start)


@dataclass(frozen=True, slots=True)
class Scattered:
    """The files that one scatter task wrote."""

    rows: list[BucketFile]
    references: list[BucketFile]


@dataclass(frozen=True, slots=True)
class Scatter:
    """Writes the uuids and references of fragments to files, by bucket.  Body of a Ray task.

    Attributes:
        uri: of the target.
        version: of the dataset.
        folder: for the files.
        bucket_count: the same for every task.
        file_items: uuids or references of a file.
        references: whether references are written, too.
    """

    uri: str
    version: int
    folder: Folder
    bucket_count: int
    file_items: int
    references: bool

    def __call__(self, fragment_ids: list[int]) -> Scattered:
        """Write the files of some fragments."""
        dataset = lance.dataset(
            self.uri, version=self.version, storage_options=storage_options(self.uri)
        )
        rows = self._write(_scan_rows(dataset, fragment_ids))
        references: list[BucketFile] = []
        if self.references:
            references = self._write(_scan_references(dataset, fragment_ids))
        return Scattered(rows, references)

    def _write(self, batches: Iterator[npt.NDArray[Any]]) -> list[BucketFile]:
        """Write items to as many files as keep a file within its limit."""
        files: list[BucketFile] = []
        waiting: list[npt.NDArray[Any]] = []
        for batch in batches:
            waiting.append(batch)
            if sum(map(len, waiting)) >= self.file_items:
                files.append(self._write_file(np.concatenate(waiting)))
                waiting = []
        if waiting:
            files.append(self._write_file(np.concatenate(waiting)))
        return files

    def _write_file(self, items: npt.NDArray[Any]) -> BucketFile:
        keys = items["key"] if items.dtype == KEYED_ROW else items
        numbers = bucket_numbers(keys, self.bucket_count)
        bounds = np.zeros(self.bucket_count + 1, np.int64)
        np.cumsum(np.bincount(numbers, minlength=self.bucket_count), out=bounds[1:])
        name = new_nonce()
        self.folder.publish(name, items[np.argsort(numbers, kind="stable")].tobytes())
        return BucketFile(name, bounds)


def _scan_rows(
    dataset: LanceDataset, fragment_ids: Sequence[int] | None = None
) -> Iterator[KeyedRows]:
    """Yield the key and the row id of every row that is no chunk, batch by batch."""
    has_chunks = chunk_frames.FIELD.name in dataset.schema.names
    where = f"{chunk_frames.FIELD.name} IS NULL" if has_chunks else None
    for batch in _scan(dataset, "uuid", fragment_ids, filter=where, with_row_id=True):
        keyed_rows = np.empty(batch.num_rows, KEYED_ROW)
        keyed_rows["key"] = uuid_keys(batch.column("uuid"))
        keyed_rows["row_id"] = batch.column("_rowid").to_numpy()
        yield keyed_rows


def _scan_references(
    dataset: LanceDataset, fragment_ids: Sequence[int] | None = None
) -> Iterator[Keys]:
    """Yield the keys that references point to, batch by batch; membership is left out."""
    for batch in _scan(dataset, "relationships", fragment_ids):
        relationships = batch.column("relationships").flatten()
        is_reference = pc.and_(
            pc.not_equal(relationships.field("type"), "member_of"),
            pc.equal(pc.utf8_length(relationships.field("id")), UUID_LENGTH),
        )
        yield uuid_keys(relationships.filter(is_reference).field("id"))


def _scan(
    dataset: LanceDataset, column: str, fragment_ids: Sequence[int] | None, **options: Any
) -> Iterator[pa.RecordBatch]:
    """Read a column of some fragments, or of all."""
    fragments = None
    if fragment_ids is not None:
        fragments = [dataset.get_fragment(fragment_id) for fragment_id in fragment_ids]
    yield from dataset.scanner(
        columns=[column],
        fragments=fragments,
        **SCAN_LIMITS,
        **options,
    ).to_batches()


# step 2


@dataclass(frozen=True, slots=True)
class FilePart:
    """Items that stand side by side in a file: the first one's number, and how many they are."""

    name: str
    start: int
    count: int


@dataclass(frozen=True, slots=True)
class Bucket:
    """Where the rows and the references of a bucket stand."""

    rows: list[FilePart] = field(default_factory=list)
    references: list[FilePart] = field(default_factory=list)

    @classmethod
    def of(cls, scattered: Sequence[Scattered], number: int) -> Bucket:
        """Gather a bucket from the files of all scatter tasks."""
        rows = [file.part(number) for task in scattered for file in task.rows]
        references = [file.part(number) for task in scattered for file in task.references]
        return cls(rows, references)


@dataclass(frozen=True, slots=True)
class SearchBucket:
    """Searches a bucket.  Body of a Ray task.

    Attributes:
        folder: of the files.
        file_items: references that are read at once.
    """

    folder: Folder
    file_items: int

    def __call__(self, bucket: Bucket) -> Found:
        """Read the rows of a bucket, search them, and look the references up in parts."""
        groups = _groups_of(bucket.references, self.file_items)
        references = (self._read(group, KEY) for group in groups)
        return search(self._read(bucket.rows, KEYED_ROW), references)

    def _read(self, parts: Sequence[FilePart], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """Read parts of files into one array."""
        ends = np.cumsum([part.count for part in parts], dtype=np.int64)
        items = np.empty(ends[-1] if parts else 0, dtype)
        places = np.split(items, ends[:-1])
        system, path = open_filesystem(self.folder.uri)

        def read_part(part: FilePart, place: npt.NDArray[Any]) -> None:
            if part.count:
                with system.open_input_file(f"{path}/{part.name}") as stream:
                    stream.seek(part.start * dtype.itemsize)
                    if stream.readinto(place) != place.nbytes:
                        raise OSError(f"{part.name} is cut off")

        try:
            with ThreadPoolExecutor(_READERS) as readers:
                list(readers.map(read_part, parts, places))
        except OSError as error:
            raise classify_write_error(error, f"could not read {self.folder.uri}") from error
        return items


def _groups_of(parts: Sequence[FilePart], items: int) -> Iterator[list[FilePart]]:
    """Divide parts of files into groups of at most so many items; a larger part is a group."""
    group: list[FilePart] = []
    for part in parts:
        if group and sum(member.count for member in group) + part.count > items:
            yield group
            group = []
        group.append(part)
    if group:
        yield group
