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
from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import Any, ClassVar, Literal, cast

import pyarrow as pa
from pydantic import Field as Option

from cfray.errors import SourceError
from cfray.formats import json_structure, jsonarray, jsonl, lines
from cfray.formats.columns import split_by_bytes
from cfray.records.record import Reject
from cfray.runtime import filesystems
from cfray.runtime.models import MIB
from cfray.sources import base
from cfray.sources.base import Context, Description, Json, Shard
from cfray.sources.files import rowgroups
from cfray.sources.files.base import FilePart, FileSource, parts_of
from cfray.sources.files.listing import PinnedFile, open_file
from cfray.sources.milvus.field_samples import (
    Samples,
    has_list_of_floats,
    merge_kinds,
    sample_fields,
    vector_dimension,
)
from cfray.sources.milvus.field_words import FIELD_WORDS
from cfray.sources.milvus.rows import build_records
from cfray.sources.milvus.schema import Field, is_main_vector

#: The start of a file of rows, before the array.
_HEAD = re.compile(rb'\s*\{\s*"rows"\s*:\s*(?=\[)')
#: Bytes in which the brackets around a file's rows are looked for.
_HEAD_BYTES = 4096
#: Bytes of text or Arrow data of a batch that is read to see what the fields are.
_SAMPLE_BYTES = MIB


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

        Each part also says what the fields are, by the first values in the file.
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
        kinds: dict[str, Json] = {
            field.name: [field.kind, field.element, field.dimension]
            for field in self._type_fields(file, parts, context)
        }
        return [replace(part, where={**part.where, "kinds": kinds}) for part in parts]

    def shards(self, context: Context) -> list[Shard]:
        """Cut the files, and put the collection's name before the id of each shard.

        All files have the same fields: a file in which a vector is null everywhere shows no width.
        """
        shards = super().shards(context)
        merged = merge_kinds(
            cast("dict[str, list[Json]]", where["kinds"])
            for shard in shards
            for _, where in parts_of(shard)
        )
        return [
            replace(
                shard,
                id=f"{self.name}#{shard.id}",
                collection=self.name,
                where={**shard.where, "parts": _with_kinds(shard, merged)},
            )
            for shard in shards
        ]

    def shards_since(self, earlier: list[Shard], context: Context) -> list[Shard]:
        """Cut all files: what a field is, is said in each shard, and depends on all of them."""
        return self.shards(context)

    def describe(self, context: Context, shards: list[Shard]) -> Description:
        """Say what the files hold."""
        described = super().describe(context, shards)
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
        collection = base.Collection(
            self.name,
            described.rows,
            widths.pop("", None),
            None,
            {name: (width, None) for name, width in widths.items()},
            {"primary_field": self.primary},
        )
        note = (
            "the files of a bulk writer declare no types: "
            "a field that source.fields does not name is read as it looks"
        )
        notes = [note]
        if unknown := [name for name in self.fields if name not in fields]:
            notes.append(f"source.fields names {', '.join(unknown)}, which no file holds")
        return replace(
            described, schema=None, collections=(collection,), notes=(*described.notes, *notes)
        )

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
                runs = lines.gather_records(blocks, json_structure.ElementEnds(), limit)
                elements = jsonarray.Elements(file.name, context.batch_bytes)
                yield from jsonarray.decode(runs, elements)
            else:
                start, end = int(str(where["from"])), int(str(where["to"]))
                stream.seek(start)
                blocks = lines.read_blocks(stream, end - start)
                runs = lines.gather_records(blocks, lines.line_ends, limit, start)
                yield from jsonl.decode(runs, file.name, context.batch_bytes)

    def _type_fields(
        self, file: PinnedFile, parts: list[FilePart], context: Context
    ) -> list[Field]:
        """Say which fields are vectors and JSON, by the job file and each field's first value.

        Raises:
            SourceError: there is no primary field, or the job file does not name a field of bytes,
                or one of several fields of floats, any of which may be the vector.
        """
        types = {name: FIELD_WORDS[word] for name, word in self.fields.items()}
        named_vectors = [name for name, (kind, _) in types.items() if Field(name, kind).is_vector]

        has_schema = os.path.splitext(file.name)[1] not in (".json", ".jsonl")

        def is_enough(names: Collection[str], samples: Samples) -> bool:
            needed = [name for name in named_vectors if name in names or not has_schema]
            if named_vectors:
                return set(needed) <= samples.keys()
            return bool(self._float_fields(samples))

        sampling = replace(context, batch_bytes=_SAMPLE_BYTES)
        samples = sample_fields(
            (item for part in parts for item in self._read_raw(file, part.where, sampling)),
            is_enough,
        )
        if not samples:
            return []
        self._check_fields(file, samples)
        if not named_vectors:
            types |= dict.fromkeys(self._float_fields(samples), ("FloatVector", ""))
        return [
            Field(name, kind, element, vector_dimension(kind, samples, name))
            for name, (kind, element) in types.items()
            if name in samples
        ]

    def _float_fields(self, samples: Samples) -> list[str]:
        """List the fields that the job file does not name and that may be the vector."""
        unnamed = [name for name in samples if name not in {self.primary, *self.fields}]
        for numbers in (pa.float32(), pa.float64()):
            list_fields = [name for name in unnamed if has_list_of_floats(samples, name, numbers)]
            if list_fields:
                return list_fields
        return []

    def _check_fields(self, file: PinnedFile, samples: Samples) -> None:
        if self.primary not in samples:
            raise SourceError(
                f"{file.uri} has no field {self.primary}",
                "name the primary field with source.primary",
            )
        byte_fields = [
            name
            for name, sample in samples.items()
            if name not in {self.primary, *self.fields}
            and sample.schema.field(name).type == pa.list_(pa.uint8())
        ]
        if byte_fields:
            raise SourceError(
                f"{file.uri} has fields of bytes that may be vectors of several types: "
                f"{', '.join(byte_fields)}",
                f"name them, e.g. source.fields: {{{byte_fields[0]}: BINARY_VECTOR}} "
                "(or FLOAT16_VECTOR, BFLOAT16_VECTOR)",
            )
        is_vector_named = any(
            Field(name, FIELD_WORDS[word][0]).is_vector for name, word in self.fields.items()
        )
        float_fields = self._float_fields(samples)
        if len(float_fields) > 1 and not is_vector_named:
            raise SourceError(
                f"{file.uri} has several fields of floats, and any of them may be a vector: "
                f"{', '.join(float_fields)}",
                f"name the vectors, e.g. source.fields: {{{float_fields[0]}: FLOAT_VECTOR}}; "
                "the others are then read as lists",
            )

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


def _with_kinds(shard: Shard, kinds: dict[str, list[Json]]) -> list[Json]:
    """Give the parts of a shard with these fields."""
    parts = cast("list[dict[str, Any]]", shard.where["parts"])
    return [{**part, "where": {**part["where"], "kinds": dict(kinds)}} for part in parts]


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
