"""Files of pymilvus's bulk writer: Parquet, ``{"rows": [...]}`` and JSON Lines, one record a row.

They hold no schema.  Parquet shows widths of numbers, JSON shows nothing: a
vector of bytes looks like an array, and JSON text like any other.  So
``source.fields`` names such fields, in Milvus's words; if it names no vector,
the only field of float lists is the vector.  Files do not name their collection
either: it is the one of ``source.collections``, else the folder's name.

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
from cfray.formats.columns import pieces
from cfray.records.record import Reject
from cfray.runtime import filesystems
from cfray.sources.base import Collection, Context, Description, Json, Metric, Shard
from cfray.sources.files import rowgroups
from cfray.sources.files.base import FileSource, Part, parts_of
from cfray.sources.files.listing import PinnedFile, opened
from cfray.sources.milvus.rows import dimension, float_length, records_of
from cfray.sources.milvus.schema import DENSE, SCALARS, Field

_SCALAR_WORDS = {word.upper(): word for word in SCALARS}
#: A type in Milvus's words -> (kind, kind of an array's elements).
_WORDS = {
    **{word: (kind, "") for word, kind in _SCALAR_WORDS.items()},
    **{f"ARRAY<{word}>": ("Array", kind) for word, kind in _SCALAR_WORDS.items()},
    **{f"{kind.removesuffix('Vector').upper()}_VECTOR": (kind, "") for kind in DENSE},
    "SPARSE_FLOAT_VECTOR": ("SparseFloatVector", ""),
    "JSON": ("JSON", ""),
}
_HEAD = re.compile(rb'\s*\{\s*"rows"\s*:\s*(?=\[)')
_LOOK = 4096  # bytes in which the brackets around a file's rows are looked for


class BulkFiles(FileSource):
    """One collection's files: one, a folder or a glob."""

    suffixes: ClassVar[tuple[str, ...]] = (*rowgroups.SUFFIXES, ".json", ".jsonl")

    kind: Literal["milvus"] = "milvus"
    collection: str = ""
    primary: str = "id"
    #: Field -> type in Milvus's words, checked.
    fields: dict[str, str] = Option(default_factory=dict)

    @property
    def name(self) -> str:
        """Give the collection's name."""
        system, path = filesystems.filesystem(self.uri)
        folder = path if system.get_file_info(path).is_file is False else os.path.dirname(path)
        return self.collection or os.path.basename(folder.rstrip("/"))

    def parts(self, file: PinnedFile, context: Context) -> list[Part]:
        """Cut Parquet at row groups and JSON Lines at line breaks.

        Say what each field is, by the file's first record.
        """
        suffix = os.path.splitext(file.name)[1]
        if suffix == ".json":
            found = [Part(file, "0", {}, file.size, splittable=False)]
        elif suffix == ".jsonl":
            with opened(file) as stream:
                ranges = lines.aligned(stream, 0, file.size, self.shard_bytes)
            found = [
                Part(file, f"{start:015d}", {"from": start, "to": end}, end - start)
                for start, end in ranges
            ]
        else:
            found = rowgroups.parts(file, self.shard_bytes)
        first = next(
            (
                item
                for part in found
                for item in self._raw(file, part.where, replace(context, batch_bytes=1))
                if not isinstance(item, Reject)
            ),
            None,
        )
        kinds: dict[str, Json] = (
            {}
            if first is None
            else {
                one.name: [one.kind, one.element, one.dimension] for one in self._kinds(file, first)
            }
        )
        return [replace(part, where={**part.where, "kinds": kinds}) for part in found]

    def shards(self, context: Context) -> list[Shard]:
        """Cut the files, and put the collection's name before each shard's."""
        return [
            replace(shard, id=f"{self.name}#{shard.id}", collection=self.name)
            for shard in super().shards(context)
        ]

    def describe(self, context: Context, shards: list[Shard]) -> Description:
        """Say what the files hold."""
        base = super().describe(context, shards)
        kinds: dict[str, Any] = {}
        for shard in shards:
            for _, where in parts_of(shard):
                kinds |= cast("dict[str, Any]", where["kinds"])
        vectors: dict[str, tuple[int, Metric | None]] = {
            name: (size, None)
            for name, (kind, _, size) in kinds.items()
            if kind in DENSE and kind != "BinaryVector"
        }
        alone = [
            kind for kind, _, _ in kinds.values() if kind in DENSE or kind == "SparseFloatVector"
        ] == ["FloatVector"]
        width = next(iter(vectors.values()))[0] if alone else None
        told = Collection(
            self.name,
            base.rows,
            width,
            None,
            {} if alone else vectors,
            {"primary_field": self.primary},
        )
        note = "the files of a bulk writer declare no types: what source.fields does not name is read as it looks"
        return replace(base, schema=None, collections=(told,), notes=(*base.notes, note))

    def _raw(
        self, file: PinnedFile, where: dict[str, Json], context: Context
    ) -> Iterator[pa.RecordBatch | Reject]:
        """Read a part with its columns as they are in the file."""
        suffix = os.path.splitext(file.name)[1]
        if suffix not in (".json", ".jsonl"):
            yield from rowgroups.batches(file, where, context.batch_bytes)
            return
        limit = lines.limit_of(context.max_record)
        with opened(file) as stream:
            if suffix == ".json":
                start, end = _rows(stream, file)
                stream.seek(start)
                runs = lines.whole_records(
                    lines.blocks(stream, file.name, end - start), jsonarray.ElementEnds(), limit
                )
                yield from jsonarray.decode(runs, file.name, context.batch_bytes)
            else:
                start, end = int(str(where["from"])), int(str(where["to"]))
                stream.seek(start)
                runs = lines.whole_records(
                    lines.blocks(stream, file.name, end - start), lines.newlines, limit, start
                )
                yield from jsonl.decode(runs, file.name, context.batch_bytes)

    def _kinds(self, file: PinnedFile, first: pa.RecordBatch) -> list[Field]:
        """Say which fields are vectors and JSON, by the options and a first record."""
        if self.primary not in first.schema.names:
            raise SourceError(
                f"{file.uri} has no field {self.primary}",
                "name the primary field with source.primary",
            )
        words = {name: _WORDS[word] for name, word in self.fields.items()}
        lengths = {
            name: float_length(first.schema.field(name), first[name])
            for name in first.schema.names
            if name != self.primary
        }
        bytes_ = [
            name
            for name in lengths
            if name not in words and first.schema.field(name).type == pa.list_(pa.uint8())
        ]
        if bytes_:
            raise SourceError(
                f"{file.uri} has fields of bytes that may be vectors of several types: {', '.join(bytes_)}",
                f"name them, e.g. source.fields: {{{bytes_[0]}: BINARY_VECTOR}} (or FLOAT16_VECTOR, BFLOAT16_VECTOR)",
            )
        if not any(kind in DENSE or kind == "SparseFloatVector" for kind, _ in words.values()):
            floats = [name for name, length in lengths.items() if length and name not in words]
            words |= {name: ("FloatVector", "") for name in floats if len(floats) == 1}
        return [
            Field(name, kind, element, dimension(kind, first, name))
            for name, (kind, element) in words.items()
            if name in first.schema.names
        ]

    def read_part(
        self, file: PinnedFile, where: dict[str, Json], context: Context
    ) -> Iterator[pa.RecordBatch | Reject]:
        """Give the records of a part."""
        kinds = where["kinds"]
        assert isinstance(kinds, dict)
        told = {
            name: Field(name, str(one[0]), str(one[1]), int(str(one[2])))
            for name, one in kinds.items()
            if isinstance(one, list)
        }
        for item in self._raw(file, where, context):
            if isinstance(item, Reject):
                yield item
                continue
            for one in records_of(item, self.primary, told, file.name):
                yield from [one] if isinstance(one, Reject) else pieces(one, context.batch_bytes)


def checked(fields: dict[str, str]) -> dict[str, str]:
    """Refuse words that Milvus does not have.

    Raises:
        ValueError: names one.
    """
    for name, word in fields.items():
        if word not in _WORDS:
            raise ValueError(
                f"fields: {name} is {word!r}, which is none of {', '.join(sorted(_WORDS))}"
            )
    return fields


def _rows(stream: pa.NativeFile, file: PinnedFile) -> tuple[int, int]:
    """Find the array of rows inside the object that the file is."""
    head = _HEAD.match(stream.read(_LOOK))
    stream.seek(max(0, file.size - _LOOK))
    tail = stream.read(_LOOK).rstrip()
    if head is None or not tail.endswith(b"}"):
        raise SourceError(
            f'{file.uri} is not {{"rows": [...]}}',
            "correct source.uri; a file cut short must be written again",
        )
    behind = file.size - min(file.size, _LOOK) + len(tail) - 1
    return head.end(), behind
