"""Files of pymilvus's bulk writer: Parquet, ``{"rows": [...]}`` and JSON Lines, one record a row.

They hold no schema.  Parquet shows widths of numbers, JSON shows nothing: a vector of bytes
looks like an array, and JSON text like any other text.  So ``source.fields`` names such fields, in
Milvus's words; if it names no vector, the only field of float lists is the vector.  Nor do
the files name their collection: it is that of ``source.collections``, else the folder's name.

Source: pymilvus 3.0.2, ``bulk_writer/buffer.py``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, ClassVar, Literal, cast

import pyarrow as pa
from pydantic import Field as Option

from cfray.errors import SourceError
from cfray.formats import jsonarray, jsonl, lines
from cfray.formats.columns import split_by_bytes
from cfray.records.record import Reject
from cfray.runtime import filesystems
from cfray.sources.base import Collection, Context, Description, Json, Shard
from cfray.sources.files import rowgroups
from cfray.sources.files.base import FilePart, FileSource, parts_of
from cfray.sources.files.listing import PinnedFile, open_file
from cfray.sources.milvus.field_words import FIELD_WORDS
from cfray.sources.milvus.rows import build_records, count_floats, vector_dimension
from cfray.sources.milvus.schema import Field, is_main_vector

#: The start of a file of rows, before the array.
_HEAD = re.compile(rb'\s*\{\s*"rows"\s*:\s*(?=\[)')
#: Bytes in which the brackets around a file's rows are looked for.
_HEAD_BYTES = 4096


class BulkFiles(FileSource):
    """The files of one collection: a file, a folder or a glob."""

    suffixes: ClassVar[tuple[str, ...]] = (*rowgroups.SUFFIXES, ".json", ".jsonl")

    kind: Literal["milvus"] = "milvus"
    collection: str = ""
    primary: str = "id"
    #: Field -> type in Milvus's words, checked.
    fields: dict[str, str] = Option(default_factory=dict)

    @property
    def name(self) -> str:
        """Give the collection's name."""
        system, path = filesystems.open_filesystem(self.uri)
        is_file = system.get_file_info(path).is_file
        folder = os.path.dirname(path) if is_file else path
        return self.collection or os.path.basename(folder.rstrip("/"))

    def split_file(self, file: PinnedFile, context: Context) -> list[FilePart]:
        """Cut Parquet at row groups and JSON Lines at line breaks.

        Each part also says what the fields are, by the file's first record.
        """
        suffix = os.path.splitext(file.name)[1]
        if suffix == ".json":
            parts = [FilePart(file, "0", {}, file.size, splittable=False)]
        elif suffix == ".jsonl":
            with open_file(file) as stream:
                ranges = lines.split_at_newlines(stream, 0, file.size, self.shard_bytes)
            parts = [
                FilePart(file, f"{start:015d}", {"from": start, "to": end}, end - start)
                for start, end in ranges
            ]
        else:
            parts = rowgroups.split_file(file, self.shard_bytes)
        first_record = self._read_first_record(file, parts, context)
        kinds: dict[str, Json] = {}
        if first_record is not None:
            for field in self._type_fields(file, first_record):
                kinds[field.name] = [field.kind, field.element, field.dimension]
        return [replace(part, where={**part.where, "kinds": kinds}) for part in parts]

    def _read_first_record(
        self, file: PinnedFile, parts: list[FilePart], context: Context
    ) -> pa.RecordBatch | None:
        for part in parts:
            for item in self._read_raw(file, part.where, replace(context, batch_bytes=1)):
                if not isinstance(item, Reject):
                    return item
        return None

    def shards(self, context: Context) -> list[Shard]:
        """Cut the files, and put the collection's name before the id of each shard."""
        return [
            replace(shard, id=f"{self.name}#{shard.id}", collection=self.name)
            for shard in super().shards(context)
        ]

    def describe(self, context: Context, shards: list[Shard]) -> Description:
        """Say what the files hold."""
        base = super().describe(context, shards)
        fields: dict[str, Field] = {}
        for shard in shards:
            for _, where in parts_of(shard):
                fields |= _typed_fields(where)
        vector_fields = [field for field in fields.values() if field.is_vector]
        widths = {
            "" if is_main_vector(field, vector_fields) else field.name: field.dimension
            for field in vector_fields
            if field.is_numbers
        }
        collection = Collection(
            self.name,
            base.rows,
            widths.pop("", None),
            None,
            {name: (width, None) for name, width in widths.items()},
            {"primary_field": self.primary},
        )
        note = (
            "the files of a bulk writer declare no types: "
            "a field that source.fields does not name is read as it looks"
        )
        return replace(base, schema=None, collections=(collection,), notes=(*base.notes, note))

    def _read_raw(
        self, file: PinnedFile, where: dict[str, Json], context: Context
    ) -> Iterator[pa.RecordBatch | Reject]:
        """Read a part with its columns as they are in the file."""
        suffix = os.path.splitext(file.name)[1]
        if suffix not in (".json", ".jsonl"):
            yield from rowgroups.read_part(file, where, context.batch_bytes)
            return
        limit = lines.record_limit(context.max_record)
        with open_file(file) as stream:
            if suffix == ".json":
                start, end = _find_rows(stream, file)
                stream.seek(start)
                blocks = lines.read_blocks(stream, end - start)
                runs = lines.gather_records(blocks, jsonarray.ElementEnds(), limit)
                yield from jsonarray.decode(runs, file.name, context.batch_bytes)
            else:
                start, end = int(str(where["from"])), int(str(where["to"]))
                stream.seek(start)
                blocks = lines.read_blocks(stream, end - start)
                runs = lines.gather_records(blocks, lines.line_ends, limit, start)
                yield from jsonl.decode(runs, file.name, context.batch_bytes)

    def _type_fields(self, file: PinnedFile, first_record: pa.RecordBatch) -> list[Field]:
        """Say which fields are vectors and JSON, by the job file and a first record.

        Raises:
            SourceError: there is no primary field, or a field of bytes that the job file does not
                name.
        """
        file_schema = first_record.schema
        if self.primary not in file_schema.names:
            raise SourceError(
                f"{file.uri} has no field {self.primary}",
                "name the primary field with source.primary",
            )
        types = {name: FIELD_WORDS[word] for name, word in self.fields.items()}
        unnamed = [name for name in file_schema.names if name not in {self.primary, *types}]
        byte_fields = [
            name for name in unnamed if file_schema.field(name).type == pa.list_(pa.uint8())
        ]
        if byte_fields:
            raise SourceError(
                f"{file.uri} has fields of bytes that may be vectors of several types: "
                f"{', '.join(byte_fields)}",
                f"name them, e.g. source.fields: {{{byte_fields[0]}: BINARY_VECTOR}} "
                "(or FLOAT16_VECTOR, BFLOAT16_VECTOR)",
            )
        if not any(Field(name, kind).is_vector for name, (kind, _) in types.items()):
            float_fields = [
                name
                for name in unnamed
                if count_floats(file_schema.field(name), first_record[name])
            ]
            if len(float_fields) == 1:
                types[float_fields[0]] = ("FloatVector", "")
        return [
            Field(name, kind, element, vector_dimension(kind, first_record, name))
            for name, (kind, element) in types.items()
            if name in file_schema.names
        ]

    def read_part(
        self, file: PinnedFile, where: dict[str, Json], context: Context
    ) -> Iterator[pa.RecordBatch | Reject]:
        """Give the records of a part."""
        fields = _typed_fields(where)
        for batch in self._read_raw(file, where, context):
            if isinstance(batch, Reject):
                yield batch
                continue
            for records in build_records(batch, self.primary, fields, file.name):
                if isinstance(records, Reject):
                    yield records
                else:
                    yield from split_by_bytes(records, context.batch_bytes)


def _typed_fields(where: dict[str, Json]) -> dict[str, Field]:
    """Give the fields of a part whose type the plan found, by name."""
    kinds = cast("dict[str, Any]", where["kinds"])
    return {
        name: Field(name, str(kind), str(element), int(dimension))
        for name, (kind, element, dimension) in kinds.items()
    }


def _find_rows(stream: pa.NativeFile, file: PinnedFile) -> tuple[int, int]:
    """Find where the array of rows starts and ends inside the object that the file is.

    Raises:
        SourceError: the file is no such object.
    """
    head = _HEAD.match(stream.read(_HEAD_BYTES))
    tail_start = max(0, file.size - _HEAD_BYTES)
    stream.seek(tail_start)
    tail = stream.read(_HEAD_BYTES).rstrip()
    if head is None or not tail.endswith(b"}"):
        raise SourceError(
            f'{file.uri} is not {{"rows": [...]}}',
            "correct source.uri; a file cut short must be written again",
        )
    return head.end(), tail_start + len(tail) - 1
