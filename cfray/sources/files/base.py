"""What all file exports share: cut each file into parts, pack parts into shards.

Which parts a file has is its format's business; how files are found and pinned
is ``listing.py``'s.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa
import pyarrow.fs as pafs

from cfray.errors import SourceError
from cfray.records.record import Reject
from cfray.runtime import filesystems
from cfray.sources.base import Consistency, Context, Description, Json, Location, Shard, Source
from cfray.sources.files.listing import CODECS, PinnedFile, listed


@dataclass(frozen=True, slots=True)
class Part:
    """A slice of one file.

    Attributes:
        file: the pinned file.
        label: sorts the parts of a file; zero-padded digits.
        where: what the format needs to find the slice.
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

    A subclass gives the suffixes it reads in a folder, ``parts`` of one file and ``read_part``.
    """

    suffixes: ClassVar[tuple[str, ...]] = ()

    #: A file, a folder (read recursively) or a glob; relative to the job file.
    uri: Location

    @abstractmethod
    def parts(self, file: PinnedFile, context: Context) -> list[Part]:
        """Cut one file into parts of about ``shard_bytes``.  Driver."""

    @abstractmethod
    def read_part(
        self, file: PinnedFile, where: dict[str, Json], context: Context
    ) -> Iterator[pa.RecordBatch | Reject]:
        """Read one part, streaming.  Worker."""

    def files(self) -> list[PinnedFile]:
        """List what this source reads, sorted by name.

        Raises:
            SourceError: nothing there.
        """
        found = [file for file in listed(self.uri) if self._reads(file)]
        if not found:
            wanted = " or ".join(self.suffixes)
            raise SourceError(
                f"no {wanted} file at {self.uri}", "correct source.uri in the job file"
            )
        return found

    def _reads(self, file: PinnedFile) -> bool:
        if _is_named_or_glob(self.uri):
            return True
        stem = file.name.lower()
        for suffix in CODECS:
            stem = stem.removesuffix(suffix)
        return stem.endswith(self.suffixes)

    def shards(self, context: Context) -> list[Shard]:
        """Cut every file into parts and pack small parts together."""
        parts = [part for file in self.files() for part in self.parts(file, context)]
        return pack_parts(parts, self.shard_bytes)

    def read(self, shard: Shard, context: Context) -> Iterator[pa.RecordBatch | Reject]:
        """Read the shard's parts one after the other."""
        for file, where in parts_of(shard):
            yield from self.read_part(file, where, context)

    def describe(self, context: Context, shards: list[Shard]) -> Description:
        """Say what the files are, and which files of the folder are not read."""
        base = super().describe(context, shards)
        reads = self.files()
        skipped = sorted({file.name for file in listed(self.uri)} - {file.name for file in reads})
        notes = (
            [
                f"not read, other kind of file: {', '.join(skipped[:10])}{' …' if len(skipped) > 10 else ''}"
            ]
            if skipped
            else []
        )
        whole = sum(not shard.splittable for shard in shards)
        if whole:
            notes.append(
                f"{whole} of {len(shards)} shards hold a file that its format does not let us split; each is streamed by one worker"
            )
        consistency: Consistency = "pinned files"
        return Description(
            self.record_schema(reads[0], context),
            base.rows,
            base.exact,
            base.size,
            consistency,
            tuple(notes),
        )

    def record_schema(self, file: PinnedFile, context: Context) -> pa.Schema | None:
        """Give the records' Arrow schema; None where the format has none."""
        return None


def _is_named_or_glob(uri: str) -> bool:
    system, path = filesystems.filesystem(uri)
    return bool(system.get_file_info(path).type != pafs.FileType.Directory)


def parts_of(shard: Shard) -> Iterator[tuple[PinnedFile, dict[str, Json]]]:
    """Give the parts that ``packed`` put into a shard, in their order."""
    parts = shard.where["parts"]
    assert isinstance(parts, list)
    for part in parts:
        assert isinstance(part, dict)
        pin, where = part["file"], part["where"]
        assert isinstance(pin, dict)
        assert isinstance(where, dict)
        yield PinnedFile.from_json(pin), where


def pack_parts(parts: list[Part], shard_bytes: int) -> list[Shard]:
    """Pack parts, in order, into shards of at most ``shard_bytes``.

    (a larger part is a shard of its own).
    """
    groups: list[list[Part]] = []
    filled = 0
    for part in parts:
        if not groups or filled + part.size > shard_bytes:
            groups.append([])
            filled = 0
        groups[-1].append(part)
        filled += part.size
    return [_shard(group) for group in groups]


def _shard(parts: list[Part]) -> Shard:
    known = [part.rows for part in parts]
    rows = None if any(count is None for count in known) else sum(count or 0 for count in known)
    where: list[Json] = [{"file": part.file.as_json(), "where": part.where} for part in parts]
    first = parts[0]
    return Shard(
        id=f"{first.file.name}#{first.label}",
        where={"parts": where},
        rows=rows,
        size=sum(part.size for part in parts),
        splittable=all(part.splittable for part in parts),
    )
