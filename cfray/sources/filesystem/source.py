"""A tree of documents: every file is a record, or a reject that says why not.

The files are listed once and the list is frozen, so a file that changes later is reported and never
mixed.  Texts that need a parser are made in a process beside the worker, which may die.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from importlib.util import find_spec

import pyarrow as pa

from cfray.errors import SourceError
from cfray.records.record import Reject, from_objects, is_variant, variant_texts
from cfray.runtime.plurals import counted
from cfray.sources.base import Context, Description, Shard
from cfray.sources.files.listing import is_settled, mark_of
from cfray.sources.files.locations import printable
from cfray.sources.filesystem import media, notes
from cfray.sources.filesystem.duplicates import find_duplicates
from cfray.sources.filesystem.extractor import Extractor
from cfray.sources.filesystem.manifest import read_manifest, write_shards, write_shards_since
from cfray.sources.filesystem.patterns import Patterns
from cfray.sources.filesystem.pinned import read_contents
from cfray.sources.filesystem.records import make_record
from cfray.sources.filesystem.settings import Settings
from cfray.sources.filesystem.tree import FileTree, enters_target, list_tree

#: What the fields of a record weigh beside its text and its bytes.
_BYTES_PER_RECORD = 256
#: Package of the extractor (the extra ``documents``).
_EXTRACTOR = "kreuzberg"
#: What is said of files that are rejected, or have no text, for their bytes and the job file alone.
_LASTING = ("no text was found in it", "over limits.max_document", "over source.max_raw")


class Filesystem(Settings):
    """The documents of a file tree."""

    def _list(self) -> FileTree:
        return list_tree(self.uri, Patterns.of(self.include), Patterns.of(self.exclude))

    def would_read(self, target: str) -> bool:
        """Tell whether the walk through the tree enters a target."""
        return enters_target(self.uri, Patterns.of(self.include), Patterns.of(self.exclude), target)

    def shards(self, context: Context) -> list[Shard]:
        """List the files, write the list down and cut it by bytes."""
        tree = self._listed()
        return write_shards(tree.root, tree.files, self.shard_bytes, context)

    def shards_of(self, appeared: list[str], planned: int, context: Context) -> list[Shard]:
        """Write down the files that appeared, and cut their list by bytes."""
        tree, names = self._list(), set(appeared)
        files = [entry for entry in tree.files if printable(entry.name) in names]
        self._check_extractor([entry.name for entry in files])
        return write_shards(tree.root, files, self.shard_bytes, context, first=planned)

    def shards_since(self, earlier: list[Shard], context: Context) -> list[Shard]:
        """List the files, and cut the list where it was cut before."""
        if not earlier:
            return self.shards(context)
        tree = self._listed()
        return write_shards_since(tree.root, tree.files, self.shard_bytes, context, earlier)

    def watermark(self, shard: Shard, mark: str, context: Context) -> str | None:
        """Name the extractor; the shard's ``where`` has a digest of names, sizes and times."""
        if not all(is_settled(file.modified) for file in read_manifest(shard, context)):
            return None
        if self.extract == "none" or find_spec(_EXTRACTOR) is None:
            return "no extractor"
        allowed = f"{self.extract_seconds:g} s and {self.extract_memory} bytes a file"
        return f"{_EXTRACTOR} {version(_EXTRACTOR)}, {allowed}"

    def is_lasting(self, item: pa.RecordBatch | Reject) -> bool:
        """Take what follows from a file's bytes for lasting; nothing marks rights, or speed."""
        if isinstance(item, Reject):
            return any(words in item.reason for words in _LASTING)
        if "extraction_problem" not in item.schema.names:
            return True
        column, field = item.column("extraction_problem"), item.schema.field("extraction_problem")
        problems = (variant_texts(column) if is_variant(field) else column).drop_null().to_pylist()
        return all(any(words in text for words in _LASTING) for text in problems)

    def _listed(self) -> FileTree:
        """List the files; refuse a tree without any, and documents that nothing can extract.

        Raises:
            SourceError: says what is wrong.
        """
        tree = self._list()
        if not tree.files:
            left = "; ".join(notes.left_notes(tree.left))
            raise SourceError(
                f"no file at {self.uri}{f': {left}' if left else ''}",
                "correct source.uri, source.include or source.exclude in the job file",
            )
        self._check_extractor([entry.name for entry in tree.files])
        return tree

    def _check_extractor(self, names: list[str]) -> None:
        """Refuse documents for which the extractor is missing."""
        if self.extract == "none" or find_spec(_EXTRACTOR) is not None:
            return
        documents = [name for name in names if media.suffix_of(name) in media.DOCUMENTS]
        if documents:
            raise SourceError(
                f"{counted(len(documents), 'file')} of {self.uri} "
                f"need an extractor that is not installed: {notes.list_some(documents)}",
                "install it on every node (pip install 'cfray[documents]'), or write "
                "source.extract: none to keep such files as they are",
            )

    def read(self, shard: Shard, context: Context) -> Iterator[pa.RecordBatch | Reject]:
        """Read the files of a shard in the order of the list."""
        root, most = str(shard.where["root"]), context.max_record
        records: list[dict[str, object]] = []
        size = 0
        with Extractor(self.extract_seconds, self.extract_memory, most) as extractor:
            for file, content in read_contents(root, read_manifest(shard, context), most):
                made = make_record(file, content, self, extractor, most)
                if made.reject is not None:
                    yield made.reject
                    continue
                assert made.record is not None
                if records and size + made.size > context.batch_bytes:
                    yield from_objects(records)
                    records, size = [], 0
                records.append(made.record)
                size += made.size + _BYTES_PER_RECORD
        if records:
            yield from_objects(records)

    def marks(self, context: Context) -> dict[str, str]:
        """Mark each file by its size and time, and by where a link leads.

        Bytes of a name that are not UTF-8 are written as escapes, for the marks are JSON.
        """
        return {printable(entry.name): printable(mark_of(entry)) for entry in self._list().files}

    def count_in(self, names: list[str], context: Context) -> dict[str, int | None]:
        """Count each file as one record."""
        return dict.fromkeys(names, 1)

    def describe(self, context: Context, shards: list[Shard]) -> Description:
        """Say which files there are, what is not read, and which are copies."""
        tree = self._list()
        files = [file for shard in shards for file in read_manifest(shard, context)]
        duplicates = find_duplicates(tree.root, files)
        return replace(
            super().describe(context, shards),
            consistency="pinned files",
            unread=tuple(notes.unread_notes(tree.left)),
            notes=(
                *notes.content_notes(files, context.max_record),
                *notes.left_notes(tree.left),
                *notes.unused_notes(tree),
                *notes.duplicate_notes(duplicates),
            ),
        )
