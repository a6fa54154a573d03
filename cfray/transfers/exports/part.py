"""A part of an export: the rows of some fragments, read, restored and written by one worker."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cfray.conversion.chunk_frames import FIELD as CHUNK_OF
from cfray.conversion.shown_values import ABSENT, MetadataRows
from cfray.copying.write import staged_files
from cfray.engine import failpoint
from cfray.frames.schema import ORIGINAL_ID
from cfray.runtime.filesystems import Folder, storage_options
from cfray.runtime.storage_errors import classify_write_error
from cfray.target.commit import with_field
from cfray.target.documents import dumps
from cfray.transfers.exports import markdown
from cfray.transfers.exports.files import OutputFile
from cfray.transfers.exports.layouts.base import Lost
from cfray.transfers.exports.manifest import ExportedFile, PartReceipt
from cfray.transfers.exports.rows import RowMaker
from cfray.transfers.exports.settings import SUFFIXES, ExportSettings
from cfray.transfers.exports.writers import Writer, open_writer
from cfray.transfers.files import HashedFile

#: Rows of a batch, and of one where documents have raw data of any size.
_BATCH_ROWS, _RAW_BATCH_ROWS = 4096, 32
#: Bytes of Arrow data after which a part goes on in another file.
_FILE_BYTES = 256 * 1024 * 1024
#: Files of collections that a part has open at a time.
_OPEN_FILES = 64
#: Headers and chunks are made of documents, and are made anew with another dataset.  Every other
#: row is exported, whatever another program called it.
_DOCUMENTS = "(record_type IS NULL OR record_type NOT IN ('collection_header', 'dataset_header'))"


@dataclass(frozen=True, slots=True)
class Part:
    """Some fragments of a dataset.

    Attributes:
        number: of the part.
        fragments: their ids.
    """

    number: int
    fragments: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class FragmentReader:
    """Reads rows of a version of a dataset.

    Attributes:
        uri: of the dataset.
        version: of it.
        settings: of the export.
    """

    uri: str
    version: int
    settings: ExportSettings

    def open(self) -> lance.LanceDataset:
        """Open the version."""
        options = storage_options(self.uri)
        return lance.dataset(self.uri, version=self.version, storage_options=options)

    def condition(self, dataset: lance.LanceDataset) -> str:
        """Give the SQL condition of the rows that are exported."""
        conditions = [_DOCUMENTS]
        if CHUNK_OF.name in dataset.schema.names:
            conditions.append(f"{CHUNK_OF.name} IS NULL")
        if self.settings.where:
            conditions.append(f"({self.settings.where})")
        return " AND ".join(conditions)

    def count(self, condition: str = "") -> int:
        """Count the rows that are exported; with a condition, those of them that fit it."""
        dataset = self.open()
        chosen = self.condition(dataset)
        return int(dataset.count_rows(f"{chosen} AND ({condition})" if condition else chosen))

    def batches(self, part: Part, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Read the rows of a part, with the bytes of ``raw_data``."""
        dataset = self.open()
        fragments = [dataset.get_fragment(number) for number in part.fragments]
        has_raw = columns is None and any(
            fragment.count_rows("raw_data_type IS NOT NULL") for fragment in fragments
        )
        scanner = dataset.scanner(
            columns=columns,
            filter=self.condition(dataset),
            fragments=fragments,
            batch_size=_RAW_BATCH_ROWS if has_raw else _BATCH_ROWS,
            blob_handling="all_binary",
            scan_in_order=True,
        )
        for batch in scanner.to_batches():
            if batch.num_rows:
                yield batch


@dataclass(frozen=True, slots=True)
class PartExport:
    """Writes the rows of a part.

    Attributes:
        reader: of the dataset.
        maker: of the rows.
        is_fixed: whether every row has every field.
        text_field: the field that is a document's text, in Markdown.
        destination: folder of the export.
        receipts: folder of the receipts.
    """

    reader: FragmentReader
    maker: RowMaker
    is_fixed: bool
    text_field: str | None
    destination: str
    receipts: str

    def __call__(self, part: Part) -> PartReceipt:
        """Write the rows of a part, and its receipt.  Body of a task.

        Raises:
            TargetError: a file cannot be written.
        """
        settings = self.reader.settings
        if settings.format == "lance":
            receipt = self._write_fragments(part)
        elif settings.format == "markdown":
            receipt = self._write_documents(part)
        else:
            receipt = self._write_files(part)
        failpoint.reach("exported")
        Folder(self.receipts).publish(f"{part.number}.json", dumps(asdict(receipt)))
        return receipt

    def _write_files(self, part: Part) -> PartReceipt:
        files, lost = _Files(self, part.number), Lost()
        try:
            for frames in self.reader.batches(part):
                for collection, rows in self._by_collection(frames, lost):
                    files.write(collection, rows)
            files.finish()
        except BaseException:
            files.discard()
            raise
        return PartReceipt(
            part.number,
            sum(item.rows for item in files.done),
            files.done,
            lost={name: sorted(reasons) for name, reasons in sorted(lost.items())},
        )

    def _by_collection(
        self, frames: pa.RecordBatch, lost: Lost
    ) -> Iterator[tuple[str, pa.RecordBatch]]:
        if not self.reader.settings.has_folders:
            yield "", self.maker.rows(frames, lost)
            return
        names = pc.fill_null(frames.column("collection"), "").dictionary_encode()
        codes = names.indices.to_numpy()
        for code, name in enumerate(names.dictionary.to_pylist()):
            # of frames: pyarrow 26.0.1 takes no rows of columns of some of the source's types
            of_collection = frames.take(pa.array(np.flatnonzero(codes == code)))
            yield name, self.maker.rows(of_collection, lost)

    def _write_documents(self, part: Part) -> PartReceipt:
        done: list[ExportedFile] = []
        for frames in self.reader.batches(part):
            rows = self.maker.rows(frames)
            texts = frames.column("text_content")
            metadata = MetadataRows.of(frames.column("custom_metadata"))
            ids = metadata.texts.get(ORIGINAL_ID)
            odd = self._odd_ids(metadata)
            uuids = frames.column("uuid").to_pylist()
            names = uuids if ids is None else ids.to_pylist()
            collections = pc.fill_null(frames.column("collection"), "").to_pylist()
            for row, document in enumerate(markdown.documents(rows, texts, self.text_field)):
                name = names[row] or uuids[row]
                name = markdown.file_name(name, uuids[row], is_unique=row not in odd)
                if self.reader.settings.form == "frames":
                    name = f"{uuids[row]}.md"
                folder = markdown.folder_name(collections[row])
                file = OutputFile(self.destination, f"{folder}/{name}")
                try:
                    file.write(document)
                    written = file.finish()
                except BaseException:
                    file.discard()
                    raise
                done.append(ExportedFile(written, 1, collections[row]))
        return PartReceipt(part.number, len(done), done)

    def _odd_ids(self, metadata: MetadataRows) -> set[int]:
        """List the rows whose ids have another type than most: ``1`` is not ``"1"``."""
        restoration = self.maker.restoration
        keys = () if restoration is None else restoration.id_keys
        kinds = [metadata.types.get(key, {}) for key in keys]
        return {row for types in kinds for row, kind in types.items() if kind not in ABSENT}

    def _write_fragments(self, part: Part) -> PartReceipt:
        """Write the rows as fragments of a Lance dataset, which the driver commits."""
        batches = (self.maker.rows(frames) for frames in self.reader.batches(part))
        first = next(batches, None)
        if first is None:
            return PartReceipt(part.number, 0, [])
        schema = lance_schema(first.schema)

        def all_batches() -> Iterator[pa.RecordBatch]:
            yield first.cast(schema)
            for batch in batches:
                yield batch.cast(schema)

        try:
            fragments = lance.fragment.write_fragments(
                pa.RecordBatchReader.from_batches(schema, all_batches()),
                self.destination,
                schema=schema,
                mode="append",
                storage_options=storage_options(self.destination),
            )
        except OSError as error:
            raise classify_write_error(error, f"could not write {self.destination}") from error
        metadata: list[dict[str, Any]] = [fragment.to_json() for fragment in fragments]
        files = [
            ExportedFile(HashedFile(file.path, file.size, file.digest), fragment.physical_rows)
            for fragment, written in zip(fragments, metadata, strict=True)
            for file in staged_files(self.destination, [written])
        ]
        rows = sum(fragment.physical_rows for fragment in fragments)
        return PartReceipt(part.number, rows, files, metadata)


def lance_schema(schema: pa.Schema) -> pa.Schema:
    """Mark the column of blobs, which Lance keeps apart from the others."""
    if "raw_data" not in schema.names or not pa.types.is_large_binary(
        schema.field("raw_data").type
    ):
        return schema
    mark = {b"lance-encoding:blob": b"true"}
    return with_field(schema, schema.field("raw_data").with_metadata(mark))


class _Files:
    """The files of a part: of each collection one that is open, until it is large."""

    def __init__(self, export: PartExport, number: int) -> None:
        self._export, self._number = export, number
        self._open: dict[str, Writer] = {}
        self._count = 0
        self.done: list[ExportedFile] = []

    def write(self, collection: str, rows: pa.RecordBatch) -> None:
        writer = self._open.pop(collection, None)
        if writer is None:
            if len(self._open) >= _OPEN_FILES:
                self._finish(next(iter(self._open)))
            writer = self._begin(collection)
        self._open[collection] = writer  # behind those that were written to before
        writer.write(rows)
        if writer.size >= _FILE_BYTES:
            self._finish(collection)

    def finish(self) -> None:
        for collection in list(self._open):
            self._finish(collection)

    def discard(self) -> None:
        for writer in self._open.values():
            writer.file.discard()

    def _begin(self, collection: str) -> Writer:
        settings = self._export.reader.settings
        # no two attempts have files of one name
        name = f"part-{self._number:05}-{self._count}-{uuid.uuid4().hex[:8]}"
        layout = self._export.maker.layout
        name_folder = markdown.folder_name if layout is None else layout.folder
        folder = f"{name_folder(collection)}/" if settings.has_folders else ""
        self._count += 1
        path = f"{folder}{name}{SUFFIXES[settings.format]}"
        file = OutputFile(self._export.destination, path)
        return open_writer(file, settings, is_fixed=self._export.is_fixed)

    def _finish(self, collection: str) -> None:
        writer = self._open[collection]
        file: HashedFile = writer.finish()
        del self._open[collection]
        self.done.append(ExportedFile(file, writer.rows, collection))
