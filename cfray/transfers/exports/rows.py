"""The rows that an export writes, made of the frames of a batch."""

from __future__ import annotations

import base64
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cfray.conversion.chunk_frames import FIELD as CHUNK_OF
from cfray.conversion.restore import Restoration
from cfray.frames.schema import ORIGIN
from cfray.records.record import VARIANT, is_variant, variant_numbers, variant_types
from cfray.transfers.exports.fields import Column
from cfray.transfers.exports.layouts.base import Batch, Layout, Lost
from cfray.transfers.exports.settings import ExportSettings
from cfray.transfers.exports.texts import vector_json

#: Type of a vector that is written as base64 of little-endian float32 numbers.
_FLOAT32_LE = np.dtype("<f4")


@dataclass(frozen=True, slots=True)
class RowMaker:
    """Makes the rows of an export.

    Attributes:
        settings: of the export.
        restoration: gives the records back; None where rows are frames as they are.
        columns: that the rows have, in a format with columns; None in others.
        vectors: names of the fields that hold vectors.
        layout: of a vector database; None in other formats.
    """

    settings: ExportSettings
    restoration: Restoration | None
    columns: tuple[Column, ...] | None
    vectors: frozenset[str]
    layout: Layout | None = None

    def rows(self, frames: pa.RecordBatch, lost: Lost | None = None) -> pa.RecordBatch:
        """Make a row of each frame.

        Args:
            frames: of the dataset.
            lost: is told what a layout does not say.
        """
        if self.layout is not None and self.restoration is not None:
            records = self.restoration.records(_without_vectors(frames))
            if chosen := self.settings.columns:
                kept = {self.layout.facts.id_field, *chosen}
                records = records.select([name for name in records.schema.names if name in kept])
            lost = {} if lost is None else lost
            return self.layout.rows(Batch(frames, records, self.layout.facts, lost))
        if self.restoration is None:
            rows = plain_frames(frames)
        else:
            rows = self.restoration.records(frames)
            if self.columns is not None:
                rows = self._typed(rows)
        return self._with_vectors(self._chosen(rows))

    def _typed(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        assert self.columns is not None
        names = rows.schema.names
        if self.settings.format == "csv":  # whose cells are texts, whatever their types
            missing = pa.nulls(rows.num_rows, pa.string())
            return pa.RecordBatch.from_arrays(
                [
                    rows.column(column.name) if column.name in names else missing
                    for column in self.columns
                ],
                schema=pa.schema(
                    [
                        rows.schema.field(column.name)
                        if column.name in names
                        else pa.field(column.name, pa.string())
                        for column in self.columns
                    ]
                ),
            )
        arrays = [
            column.of(
                rows.column(column.name) if column.name in names else None,
                rows.schema.field(column.name) if column.name in names else None,
                rows.num_rows,
            )
            for column in self.columns
        ]
        fields = [pa.field(column.name, column.type) for column in self.columns]
        return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))

    def _with_vectors(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """Write the vectors in the form that is asked for."""
        form = self.settings.vectors
        if form == "list":
            return rows
        fields: list[pa.Field] = []
        arrays: list[pa.Array] = []
        for field, array in zip(rows.schema, rows.columns, strict=True):
            if field.name not in self.vectors:
                fields.append(field)
                arrays.append(array)
            elif is_variant(field) and form != "none":
                fields.append(field)
                arrays.append(_variants_as(array, form))
            elif pa.types.is_string(array.type) and form != "none":
                fields.append(field)  # JSON, among which are lists of numbers
                arrays.append(array)
            elif form == "text":
                fields.append(pa.field(field.name, pa.string()))
                arrays.append(vector_json(array))
            elif form == "base64":
                fields.append(pa.field(field.name, pa.string()))
                arrays.append(_base64(array))
            elif form == "columns":
                for name, numbers in _numbered(field.name, self._of_one_width(field.name, array)):
                    fields.append(pa.field(name, numbers.type))
                    arrays.append(numbers)
        return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))

    def _chosen(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """Leave out the fields that nobody asked for."""
        chosen = self.settings.columns
        if not chosen:
            return rows
        return rows.select([name for name in rows.schema.names if name in chosen])

    def _of_one_width(self, name: str, vectors: pa.Array) -> pa.Array:
        """Give the vectors of a column in the type of that column, which says their width."""
        kinds = [column.type for column in self.columns or () if column.name == name]
        return vectors.cast(kinds[0]) if kinds and kinds[0] != vectors.type else vectors


def _without_vectors(frames: pa.RecordBatch) -> pa.RecordBatch:
    """Take the vectors out of frames, so that their records have none."""
    columns = [
        pa.nulls(frames.num_rows, item.type)
        if item.name == "vector" or (item.name.startswith("x_vector_") and item.name != ORIGIN)
        else column
        for item, column in zip(frames.schema, frames.columns, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, schema=frames.schema)


def plain_frames(frames: pa.RecordBatch) -> pa.RecordBatch:
    """Give frames without what only Lance knows of their columns, and without that of chunks."""
    schema = pa.schema(plain_fields(frames.schema))
    return frames.select(schema.names).cast(schema)


def plain_fields(schema: pa.Schema) -> list[pa.Field]:
    """Give the columns of frames as they are exported: with the bytes of blobs."""
    return [
        pa.field(field.name, pa.large_binary() if field.name == "raw_data" else field.type)
        for field in schema
        if field.name != CHUNK_OF.name
    ]


def _base64(vectors: pa.Array) -> pa.StringArray:
    texts = [
        None
        if vector is None
        else base64.b64encode(np.asarray(vector, _FLOAT32_LE).tobytes()).decode()
        for vector in vectors.to_pylist()
    ]
    return pa.array(texts, pa.string())


def _variants_as(column: pa.StructArray, form: str) -> pa.StructArray:
    """Write the lists of numbers among some values in the form that is asked for."""
    numbers = variant_numbers(column)
    if form not in ("text", "base64"):
        return column
    texts = (
        vector_json(numbers.cast(pa.list_(pa.float32()))) if form == "text" else _base64(numbers)
    )
    kinds = pc.if_else(numbers.is_valid(), "string", variant_types(column))
    children = [kinds, pc.coalesce(texts, column.flatten()[1]), pa.nulls(len(column), numbers.type)]
    return pa.StructArray.from_arrays(children, fields=list(VARIANT), mask=column.is_null())


def _numbered(name: str, vectors: pa.Array) -> list[tuple[str, pa.Array]]:
    """Give a column for each number of vectors of one width."""
    if not pa.types.is_fixed_size_list(vectors.type):
        return [(name, vectors)]  # their widths differ
    width = vectors.type.list_size
    numbers = vectors.values.slice(vectors.offset * width, len(vectors) * width)
    is_null = np.repeat(vectors.is_null().to_numpy(zero_copy_only=False), width)
    values = numbers.to_numpy(zero_copy_only=False).reshape(-1, width)
    masks = is_null.reshape(-1, width)
    return [
        (f"{name}_{at}", pa.array(values[:, at], numbers.type, mask=masks[:, at]))
        for at in range(width)
    ]
