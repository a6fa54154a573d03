"""Frames as ``cfray export --as frames`` wrote them: rows of a dataset, on their way into another.

The manifest of the export says which files there are, their format, columns and hashes; a file that
is not what was written is refused.  The records are the frames themselves, with the columns of the
dataset that they came from.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any, ClassVar, Literal

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import xxhash
import yaml
from pyarrow import ipc

from cfray.errors import SourceError
from cfray.records.reading import build, parse, read_texts
from cfray.records.record import Reject
from cfray.records.type_names import read_type
from cfray.runtime.filesystems import Folder, open_filesystem
from cfray.runtime.models import Location
from cfray.runtime.plurals import counted
from cfray.sources.base import Context, Description, Shard, Source
from cfray.sources.files.lance import Lance
from cfray.sources.files.listing import read_file

#: Name of the manifest in the folder of an export.
MANIFEST = "cfray-export.json"
#: Rows of a batch that is made of texts.
_BATCH_ROWS = 1024
#: Bytes of a file that are hashed at a time.
_BLOCK_BYTES = 8 * 1024 * 1024
#: Columns without which a row is no frame.
_NEEDED = frozenset({"uuid", "title", "custom_metadata", "collection", "collection_id"})
_EXPORT_AGAIN = "export the dataset again: cfray export TARGET --as frames --to URI"
_FRONT = b"---\n"
#: Field of a document's front matter that says that it has no text, which an empty text is not.
NO_TEXT = "cfray.no_text"


@dataclass(frozen=True, slots=True)
class ExportedFrames:
    """What the manifest of an export says.

    Attributes:
        format: of the files.
        schema: of the frames.
        types: of the keys of ``custom_metadata``.
        rows: of all files.
        source: address of the dataset that was exported.
        files: path below the folder -> (size, XXH3-128 as hex, rows), sorted by path.
    """

    format: str
    schema: pa.Schema
    types: dict[str, str]
    rows: int
    source: str
    files: dict[str, tuple[int, str, int]]

    @classmethod
    def read(cls, folder: str) -> ExportedFrames:
        """Read the manifest of an export.

        Raises:
            SourceError: there is none, or it is of an export that no dataset can be made of.
            SourceUnavailable: the storage did not answer.
        """
        if not Folder(folder).holds(MANIFEST):
            raise SourceError(
                f"there is no {MANIFEST} in {folder}: it is no export of cfray's, or not a whole "
                "one",
                "correct source.uri in the job file, or run cfray export again until it is done",
            )
        try:
            body = json.loads(read_file(f"{folder}/{MANIFEST}"))
            settings = body["settings"]
            fields = [pa.field(item["name"], read_type(item["type"])) for item in body["fields"]]
            files = {
                str(item["file"]["path"]): (
                    int(item["file"]["size"]),
                    str(item["file"]["digest"]),
                    int(item["rows"]),
                )
                for item in body["files"]
            }
            frames = cls(
                format=str(settings["format"]),
                schema=pa.schema(fields),
                types={str(key): str(kind) for key, kind in body["types"].items()},
                rows=int(body["rows"]),
                source=str(body["source"]),
                files=dict(sorted(files.items())),
            )
        except (ValueError, TypeError, LookupError) as error:
            raise SourceError(
                f"{folder}/{MANIFEST} is no manifest of an export: {error}", _EXPORT_AGAIN
            ) from error
        if outside := [name for name in files if not _is_below(name)]:
            raise SourceError(
                f"{folder}/{MANIFEST} names a file outside of the folder: {outside[0]}",
                _EXPORT_AGAIN,
            )
        if settings["form"] != "frames" or settings["vectors"] != "list":
            raise SourceError(
                f"{folder} holds {settings['form']} with vectors as {settings['vectors']}; a "
                "dataset is made of frames with their vectors as lists",
                f"{_EXPORT_AGAIN}; records are read by kind: {settings['format']}",
            )
        if missing := sorted(_NEEDED - set(frames.schema.names)):
            raise SourceError(
                f"{folder} holds frames without {', '.join(missing)}",
                f"{_EXPORT_AGAIN}, without --columns",
            )
        return frames


class Frames(Source):
    """The folder of an export of frames."""

    kind: Literal["frames"] = "frames"
    #: The folder that ``cfray export`` wrote.
    uri: Location

    #: Files of documents that a shard reads.
    documents_per_shard: ClassVar[int] = 2_000

    @cached_property
    def _lance(self) -> Lance:
        return Lance(uri=self.uri, shard_bytes=self.shard_bytes)

    def shards(self, context: Context) -> list[Shard]:
        """Make a shard of each file; of Markdown, of some thousand files."""
        frames = ExportedFrames.read(self.uri)
        if not frames.rows:
            raise SourceError(f"the export at {self.uri} holds no row", _EXPORT_AGAIN)
        if frames.format == "lance":
            shards = self._lance.shards(context)
            if sum(shard.rows or 0 for shard in shards) != frames.rows:
                raise SourceError(
                    f"the dataset at {self.uri} was changed since it was exported", _EXPORT_AGAIN
                )
            return shards
        step = self.documents_per_shard if frames.format == "markdown" else 1
        names = [name for name, (_, _, rows) in frames.files.items() if rows]
        groups = [names[start : start + step] for start in range(0, len(names), step)]
        return [
            Shard(
                id=group[0],
                where={"files": list(group)},
                rows=sum(frames.files[name][2] for name in group),
                size=sum(frames.files[name][0] for name in group),
            )
            for group in groups
        ]

    def read(self, shard: Shard, context: Context) -> Iterator[pa.RecordBatch | Reject]:
        """Read the shard's files, each first for its hash."""
        frames = ExportedFrames.read(self.uri)
        if frames.format == "lance":
            for path in self._lance.data_files(shard):
                self._check_fragment_file(path, frames)
            for item in self._lance.read(shard, context):
                yield item if isinstance(item, Reject) else _in_order(item, frames.schema)
            return
        names = shard.where["files"]
        assert isinstance(names, list)
        documents: list[dict[str, Any]] = []
        for name in map(str, names):
            data = self._read_whole(name, frames)
            if frames.format == "markdown":
                documents.append(_document(data))
                if len(documents) >= _BATCH_ROWS:
                    yield _of_objects(documents, frames.schema)
                    documents = []
                continue
            for batch in _batches(data, frames):
                yield from _pieces(_in_order(batch, frames.schema), context.batch_bytes)
        if documents:
            yield _of_objects(documents, frames.schema)

    def _read_whole(self, name: str, frames: ExportedFrames) -> bytes:
        """Read a file of an export, whose parts are of some hundred megabytes at most.

        Raises:
            SourceError: it is not what was exported.
        """
        size, digest, _ = frames.files[name]
        data = read_file(f"{self.uri}/{name}")
        if len(data) != size or xxhash.xxh3_128_hexdigest(data) != digest:
            raise self._changed(name)
        return data

    def _check_fragment_file(self, path: str, frames: ExportedFrames) -> None:
        """Read a file of a fragment, and those of its blobs, for their hashes.

        Raises:
            SourceError: one is not what was exported.
        """
        blobs = f"{path.removesuffix('.lance')}/"
        system, root = open_filesystem(self.uri)
        for name in {path, *(name for name in frames.files if name.startswith(blobs))}:
            if name not in frames.files:
                raise self._changed(name)
            digest = xxhash.xxh3_128()
            with system.open_input_stream(f"{root}/{name}") as stream:
                while block := stream.read(_BLOCK_BYTES):
                    digest.update(block)
            if digest.hexdigest() != frames.files[name][1]:
                raise self._changed(name)

    def _changed(self, name: str) -> SourceError:
        return SourceError(
            f"{self.uri}/{name} is not what was exported: its hash is not the manifest's",
            _EXPORT_AGAIN,
        )

    def marks(self, context: Context) -> dict[str, str]:
        """Mark each file by its hash, as the manifest has it."""
        frames = ExportedFrames.read(self.uri)
        return {
            name: f"{size:,} bytes, XXH3-128 {digest}"
            for name, (size, digest, _) in frames.files.items()
        }

    def describe(self, context: Context, shards: list[Shard]) -> Description:
        """Say what the export holds."""
        frames = ExportedFrames.read(self.uri)
        return replace(
            super().describe(context, shards),
            schema=frames.schema,
            rows=frames.rows,
            exact=True,
            consistency="pinned files",
            frame_types=frames.types,
            notes=(f"{counted(frames.rows, 'frame')} of {frames.source}, exported before",),
        )


def _is_below(name: str) -> bool:
    """Tell whether a path leads to a place below the folder that it starts in."""
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts


def _in_order(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Give a batch the columns of the export, in their order."""
    return batch.select(schema.names).cast(schema)


def _pieces(batch: pa.RecordBatch, size: int) -> Iterator[pa.RecordBatch]:
    rows = max(1, batch.num_rows * size // max(1, batch.nbytes))
    for start in range(0, batch.num_rows, rows):
        yield batch.slice(start, rows)


def _batches(data: bytes, frames: ExportedFrames) -> Iterator[pa.RecordBatch]:
    """Read the rows of a file."""
    source = pa.BufferReader(data)
    if frames.format == "parquet":
        yield from pq.ParquetFile(source, page_checksum_verification=True).iter_batches()
    elif frames.format == "arrow":
        reader = ipc.open_file(source)
        yield from (reader.get_batch(number) for number in range(reader.num_record_batches))
    elif frames.format == "csv":
        yield from _of_cells(source, frames.schema)
    else:
        lines = iter(source.read().split(b"\n"))
        objects: list[dict[str, Any]] = []
        for line in lines:
            text = line.removesuffix(b",") if frames.format == "json" else line
            if text in (b"", b"[", b"]", b"[]"):
                continue
            objects.append(parse(text.decode()))
            if len(objects) >= _BATCH_ROWS:
                yield _of_objects(objects, frames.schema)
                objects = []
        if objects:
            yield _of_objects(objects, frames.schema)


def _of_objects(objects: list[dict[str, Any]], schema: pa.Schema) -> pa.RecordBatch:
    """Make a batch of parsed JSON; a key that is missing is null."""
    arrays = [build([item.get(field.name) for item in objects], field.type) for field in schema]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _of_cells(source: pa.BufferReader, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Make batches of the cells of a CSV file: nothing is null, and ``""`` an empty text."""
    table = pacsv.read_csv(
        source,
        # a row is never longer than the file
        read_options=pacsv.ReadOptions(block_size=max(1, source.size())),
        parse_options=pacsv.ParseOptions(newlines_in_values=True),
        convert_options=pacsv.ConvertOptions(
            column_types={field.name: pa.string() for field in schema},
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            null_values=[""],
        ),
    )
    for batch in table.to_batches(_BATCH_ROWS):
        arrays = [_of_texts(batch.column(field.name), field.type) for field in schema]
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def _of_texts(cells: pa.StringArray, kind: pa.DataType) -> pa.Array:
    if pa.types.is_large_binary(kind):
        blobs = [None if text is None else base64.b64decode(text) for text in cells.to_pylist()]
        return pa.array(blobs, kind)
    return read_texts(cells, kind)


def _document(data: bytes) -> dict[str, Any]:
    """Read a document: its fields as YAML, and its text behind them."""
    front, _, text = data.removeprefix(_FRONT).partition(b"\n" + _FRONT)
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    fields: dict[str, Any] = yaml.load(front, Loader=loader)  # noqa: S506  # a safe loader
    has_text = not fields.pop(NO_TEXT, False)
    return {**fields, "text_content": text.decode() if has_text else None}
