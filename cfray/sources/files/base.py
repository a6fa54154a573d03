"""What all file exports share: find the files, cut each into parts, pack parts into shards.

A *part* is a slice of one file that can be read without the rest of the file: a run of row
groups, a range of bytes between two line breaks, a whole file.  A shard is one or more
parts, so that a thousand tiny files make a few shards.  A format says in ``split_file``
which parts a file has and in ``read_part`` how a part is read; everything else is here.
How files are listed and pinned is ``listing.py``'s matter.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import pyarrow as pa
import pyarrow.fs as pafs

from cfray.errors import SourceError
from cfray.records.record import Reject
from cfray.runtime import filesystems
from cfray.runtime.models import Location
from cfray.sources.base import Context, Description, Json, Shard, Source
from cfray.sources.files import kinds
from cfray.sources.files.listing import PinnedFile, check_kind, list_files

#: Names of files that a note lists at most.
_LISTED_NAMES = 10


@dataclass(frozen=True, slots=True)
class FilePart:
    """A slice of one file.

    Attributes:
        file: the pinned file.
        label: sorts the parts of a file; zero-padded digits.
        where: what the format needs to find the slice (parsed JSON).
        size: bytes of the slice at the source.
        rows: records in it, where the format says so.
        splittable: false where the format allowed no smaller slice.
    """

    file: PinnedFile
    label: str
    where: dict[str, Json]
    size: int
    rows: int | None = None
    splittable: bool = True


class FileSource(Source):
    """A file, a folder or a glob on any pyarrow filesystem.

    A subclass gives ``suffixes``, ``split_file`` and ``read_part``; ``record_schema`` where the
    format has a schema, and ``check_files`` where files must agree.
    """

    #: Suffixes of the files that are read in a folder.  A file that the job file names, or that a
    #: glob matches, is read whatever its suffix.
    suffixes: ClassVar[tuple[str, ...]] = ()

    #: A file, a folder (read recursively) or a glob; relative to the job file.
    uri: Location

    @abstractmethod
    def split_file(self, file: PinnedFile, context: Context) -> list[FilePart]:
        """Cut one file into parts of about ``shard_bytes``, in the file's order.

        Called on the driver, once a file while a run is planned.  Must be pure.
        """

    @abstractmethod
    def read_part(
        self, file: PinnedFile, where: dict[str, Json], context: Context
    ) -> Iterator[pa.RecordBatch | Reject]:
        """Read one part as a stream; ``read`` of the source says what a stream must keep.

        Called on a worker, and again after any failure.  ``where`` is the part's.
        """

    def record_schema(self, file: PinnedFile, context: Context) -> pa.Schema | None:
        """Give the records' Arrow schema, from a file's head; None where the format has none."""
        return None

    def check_files(self, files: list[PinnedFile], context: Context) -> None:
        """Refuse files that this kind of source cannot read together.

        Called on the driver, once while a run is planned, before the files are cut.

        Raises:
            SourceError: names the file, and the kind that reads it.
        """
        for file in files:
            if self.kind in kinds.SUFFIXES and kinds.suffix_of(file.name) not in self.suffixes:
                check_kind(file, self.kind)

    def find_files(self) -> list[PinnedFile]:
        """List the files that this source reads, sorted by name.

        Raises:
            SourceError: there is none; says which files there are instead.
        """
        files = list_files(self.uri)
        if _is_folder(self.uri):
            matching = [file for file in files if kinds.suffix_of(file.name) in self.suffixes]
        else:
            matching = files
        if not matching:
            raise self._no_file(files)
        return matching

    def _no_file(self, files: list[PinnedFile]) -> SourceError:
        suffixes = " or ".join(self.suffixes)
        if _is_folder(self.uri) and kinds.is_lance_dataset(self.uri):
            return SourceError(
                f"no {suffixes} file at {self.uri}: it is a Lance dataset, which kind: lance reads",
                "write source.kind: lance in the job file, or correct source.uri",
            )
        if not files:
            return SourceError(
                f"no {suffixes} file at {self.uri}: there is no file at all",
                "correct source.uri in the job file",
            )
        present, right_kind = kinds.describe_names(file.name for file in files)
        change = (
            f"write source.kind: {right_kind} in the job file"
            if right_kind
            else ("give source.uri as a glob if these files are to be read")
        )
        return SourceError(
            f"no {suffixes} file at {self.uri}; there are: {present}",
            f"{change}, or correct source.uri",
        )

    def shards(self, context: Context) -> list[Shard]:
        """Cut every file into parts and pack small parts together."""
        files = self.find_files()
        self.check_files(files, context)
        parts = [part for file in files for part in self.split_file(file, context)]
        return pack_parts(parts, self.shard_bytes)

    def read(self, shard: Shard, context: Context) -> Iterator[pa.RecordBatch | Reject]:
        """Read the shard's parts one after the other."""
        for file, where in parts_of(shard):
            yield from self.read_part(file, where, context)

    def describe(self, context: Context, shards: list[Shard]) -> Description:
        """Say what the files are, and which files of the folder are not read."""
        files = self.find_files()
        return replace(
            super().describe(context, shards),
            schema=self.record_schema(files[0], context),
            consistency="pinned files",
            notes=tuple(self._notes(files, shards)),
        )

    def _notes(self, files: list[PinnedFile], shards: list[Shard]) -> Iterator[str]:
        all_names = {file.name for file in list_files(self.uri)}
        skipped_names = sorted(all_names - {file.name for file in files})
        if skipped_names:
            more = " …" if len(skipped_names) > _LISTED_NAMES else ""
            yield (
                f"not read, other kind of file: {', '.join(skipped_names[:_LISTED_NAMES])}{more}"
            )
        unsplit = sum(not shard.splittable for shard in shards)
        if unsplit:
            yield (
                f"{unsplit} of {len(shards)} shards hold a file that its format does not let us "
                "split; each is streamed by one worker"
            )


def _is_folder(uri: str) -> bool:
    system, path = filesystems.open_filesystem(uri)
    return bool(system.get_file_info(path).type == pafs.FileType.Directory)


def pack_parts(parts: list[FilePart], shard_bytes: int) -> list[Shard]:
    """Pack parts, in order, into shards of at most ``shard_bytes``.

    A larger part is a shard by itself.  The keys that are written here are the plan's, which
    ``parts_of`` reads.
    """
    groups: list[list[FilePart]] = []
    group_bytes = 0
    for part in parts:
        if not groups or group_bytes + part.size > shard_bytes:
            groups.append([])
            group_bytes = 0
        groups[-1].append(part)
        group_bytes += part.size
    return [_shard_of(group) for group in groups]


def _shard_of(parts: list[FilePart]) -> Shard:
    counts = [part.rows for part in parts]
    rows = None if None in counts else sum(count or 0 for count in counts)
    where: list[Json] = [{"file": part.file.to_json(), "where": part.where} for part in parts]
    first = parts[0]
    return Shard(
        id=f"{first.file.name}#{first.label}",
        where={"parts": where},
        rows=rows,
        size=sum(part.size for part in parts),
        splittable=all(part.splittable for part in parts),
    )


def parts_of(shard: Shard) -> Iterator[tuple[PinnedFile, dict[str, Json]]]:
    """Give the parts that ``pack_parts`` put into a shard, in their order.

    Yields:
        The pinned file, and the ``where`` of the part.
    """
    parts = shard.where["parts"]
    assert isinstance(parts, list)
    for part in parts:
        assert isinstance(part, dict)
        pin, where = part["file"], part["where"]
        assert isinstance(pin, dict)
        assert isinstance(where, dict)
        yield PinnedFile.from_json(pin), where
