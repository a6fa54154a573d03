"""What all file exports share: find the files, cut each into parts, pack parts into shards.

A *part* is a slice of one file that can be read without the rest of the file: a run of row
groups, a range of bytes between two line breaks, a whole file.  A shard is one or more
parts, so that a thousand tiny files make a few shards.  A format says in ``split_file``
which parts a file has and in ``read_part`` how a part is read; everything else is here.
Which files are read is ``selection.py``'s matter, what their folders say ``partitions.py``'s.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import pyarrow as pa
from pydantic import Field, field_validator

from cfray.errors import SourceError
from cfray.formats.csv_types import parse_type
from cfray.records.record import Reject, with_file
from cfray.runtime.models import Location
from cfray.runtime.plurals import counted
from cfray.sources.base import Context, Description, Json, Shard, Source
from cfray.sources.files import kinds, notes, partitions
from cfray.sources.files.copies import find_copies
from cfray.sources.files.listing import PinnedFile, check_kind, is_settled, mark_of
from cfray.sources.files.locations import path_below
from cfray.sources.files.schemas import SchemaUnion
from cfray.sources.files.selection import Selection, pin_codecs, select_files
from cfray.sources.files.walk import enters_target

#: How many times the shards that the bytes need a division may have that was made step by step (a
#: choice): each sync adds a small one, and each costs a task.
MOST_SHARDS_KEPT = 50


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

    later_fields: ClassVar[frozenset[str]] = frozenset({"partitioning", "types"})

    #: Suffixes of the files that are read in a folder.  A file that the job file names, or that a
    #: glob matches, is read whatever its suffix.
    suffixes: ClassVar[tuple[str, ...]] = ()
    #: Whether a file may be compressed as a whole.
    is_compressible: ClassVar[bool] = True

    #: A file, a folder (read recursively) or a glob; relative to the job file.
    uri: Location
    #: What folders called ``key=value`` become.  ``auto``: each key is a field of the records below
    #: it.  ``hive``: so, and a file that lies in no such folders, or in folders of other keys, is
    #: refused.  ``none``: no field.  ``plan`` names the keys.
    partitioning: Literal["auto", "hive", "none"] = "auto"
    #: Declared types of the keys of folders, for example ``{year: int64}``; all others are text.
    types: dict[str, str] = Field(default_factory=dict)

    @field_validator("types")
    @classmethod
    def _are_types(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value.values():
            parse_type(name)
        return value

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

    def check_types(self, files: list[PinnedFile], context: Context) -> None:
        """Refuse declared types of what is no key of a folder.

        Called on the driver, once while a run is planned.

        Raises:
            SourceError: names the key, and the keys of the folders.
        """
        keys = partitions.list_keys(files)
        if unknown := sorted(set(self.types) - set(keys)):
            listed = f"are called {', '.join(keys)}" if keys else "are none"
            raise SourceError(
                f"source.types names {', '.join(unknown)}, but the keys of the folders {listed}",
                "correct source.types; the type of a field in the files is the files' matter",
            )

    def find_files(self) -> list[PinnedFile]:
        """List the files that this source reads, sorted by name, as they are pinned.

        Raises:
            SourceError: there is none; says which files there are instead.
        """
        return self._pin(self._select())

    def _select(self) -> Selection:
        """Choose the files that are read; name the keys of the folders that they lie in."""
        selection = select_files(self.uri, self.kind, self.suffixes)
        if not selection.files:
            raise notes.no_file(selection, self.uri, self.suffixes)
        return selection

    def _pin(self, selection: Selection) -> list[PinnedFile]:
        files = partitions.pin_partitions(selection, self.partitioning)
        if self.is_compressible:
            return pin_codecs(files)
        return [replace(file, codec=None) for file in files]

    def would_read(self, target: str) -> bool:
        """Tell whether the walk through the folder, or the glob, enters a target."""
        place = path_below(target, self.uri)
        return place is not None and enters_target(*place)

    def shards(self, context: Context) -> list[Shard]:
        """Cut every file into parts and pack small parts together."""
        files = self.find_files()
        return self._cut(files, files, context)

    def shards_of(self, appeared: list[str], planned: int, context: Context) -> list[Shard]:
        """Cut the files that appeared; they must agree with those that are there."""
        files = self.find_files()
        names = set(appeared)
        return self._cut(files, [file for file in files if file.name in names], context)

    def shards_since(self, earlier: list[Shard], context: Context) -> list[Shard]:
        """Cut the files that appeared or changed, and those that share a shard with such a file.

        ``earlier`` holds every part of each file that it names, for it is a whole division.
        """
        files = self.find_files()
        kept = whole_shards(earlier, files)
        if len(kept) > MOST_SHARDS_KEPT * (
            1 + sum(file.size for file in files) // self.shard_bytes
        ):
            return self.shards(context)
        covered = {file.name for shard in kept for file, _ in parts_of(shard)}
        return kept + self._cut(
            files, [file for file in files if file.name not in covered], context
        )

    def watermark(self, shard: Shard, mark: str, context: Context) -> str | None:
        """Say that the shard's ``where`` is one: it has the size and the time of each file."""
        is_pinned = all(is_settled(file.modified) for file, _ in parts_of(shard))
        return "as pinned" if is_pinned else None

    def _cut(
        self, files: list[PinnedFile], chosen: list[PinnedFile], context: Context
    ) -> list[Shard]:
        """Check all files together, and cut the chosen ones of them."""
        self.check_files(files, context)
        self.check_types(files, context)
        partitions.check_values(self.types, files)
        parts = [part for file in chosen for part in self.split_file(file, context)]
        return pack_parts(parts, self.shard_bytes)

    def read(self, shard: Shard, context: Context) -> Iterator[pa.RecordBatch | Reject]:
        """Read the shard's parts one after the other; add what the names of their folders say."""
        variants = self.kind in kinds.VARIANT_KINDS
        for file, where in parts_of(shard):
            items = self.read_part(file, where, context)
            if file.partition is None:
                # planned by an earlier version, whose records had neither
                yield from items
                continue
            for item in items:
                if isinstance(item, Reject):
                    yield item
                    continue
                batch = item
                if file.partition:
                    batch = partitions.add_partition(
                        item, file.partition, self.types, variants=variants
                    )
                yield with_file(batch, file.name)

    def marks(self, context: Context) -> dict[str, str]:
        """Mark each file that is read by its size and time, and by where a link leads."""
        return {file.name: mark_of(file) for file in self._select().files}

    def count_in(self, names: list[str], context: Context) -> dict[str, int | None]:
        """Add up the records that the format counts for the parts of each file."""
        files = {file.name: file for file in self.find_files()}
        return {name: self._count(files[name], context) for name in names if name in files}

    def _count(self, file: PinnedFile, context: Context) -> int | None:
        try:
            counts = [part.rows for part in self.split_file(file, context)]
        except SourceError:
            return None  # a file that cannot be cut cannot be counted; it has appeared all the same
        return None if None in counts else sum(count or 0 for count in counts)

    def describe(self, context: Context, shards: list[Shard]) -> Description:
        """Say what the files are, which fields they have together, and what is not read."""
        selection = self._select()
        if not shards:
            names = notes.list_names(file.name for file in selection.files)
            verb = "holds" if len(selection.files) == 1 else "hold"
            raise SourceError(
                f"no record at {self.uri}: {names} {verb} none",
                "export the files again, or correct source.uri in the job file",
            )
        pins = {file.name: file for shard in shards for file, _ in parts_of(shard)}
        empty = [file for file in selection.files if file.name not in pins]
        pins |= {file.name: file for file in self._pin(replace(selection, files=empty))}
        files = [pins[name] for name in sorted(pins)]
        schemas = self._schemas(files, context)
        union = SchemaUnion()
        for file, schema in schemas:
            union.add(file.name, partitions.extend_schema(schema, file, self.types))
        return replace(
            super().describe(context, shards),
            schema=union.schema() if schemas else None,
            consistency="pinned files",
            copies=find_copies(files, are_texts=self.kind in kinds.TEXT_KINDS),
            notes=(
                *notes.selection_notes(selection, self.kind, self.suffixes),
                *notes.partition_notes(selection, files, schemas, self.partitioning),
                *notes.empty_notes(empty),
                *notes.missing_notes(files),
                *union.conflicts(),
                *self._notes(files, shards),
            ),
        )

    def _schemas(
        self, files: list[PinnedFile], context: Context
    ) -> list[tuple[PinnedFile, pa.Schema]]:
        """Give each file with the schema of its records; none where the format has no schema."""
        schemas: list[tuple[PinnedFile, pa.Schema]] = []
        for file in files:
            schema = self.record_schema(file, context)
            if schema is None:
                return []
            schemas.append((file, schema))
        return schemas

    def _notes(self, files: list[PinnedFile], shards: list[Shard]) -> Iterator[str]:
        """Say what else the operator should know of these files."""
        unsplit = sum(not shard.splittable for shard in shards)
        if unsplit:
            yield (
                f"{unsplit:,} of {counted(len(shards), 'shard')}: the format does not let us split "
                "the file, so one worker streams it"
            )


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


def whole_shards(earlier: list[Shard], files: list[PinnedFile]) -> list[Shard]:
    """Choose the shards whose files can stay as they were cut.

    A file that changed is cut anew, and so is each file of which a part lies in a shard with a part
    of such a file.
    """
    # as JSON: a plan that was saved and read names the keys of the folders in another order
    pins = {file.name: file.to_json() for file in files}
    shards_with: dict[str, list[int]] = defaultdict(list)
    names = [[file.name for file, _ in parts_of(shard)] for shard in earlier]
    pending = []
    for number, shard in enumerate(earlier):
        for file, _ in parts_of(shard):
            shards_with[file.name].append(number)
            if file.to_json() != pins.get(file.name):
                pending.append(file.name)
    broken: set[int] = set()
    while pending:
        for number in shards_with.pop(pending.pop(), ()):
            broken.add(number)
            pending += names[number]
    return [shard for number, shard in enumerate(earlier) if number not in broken]


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
