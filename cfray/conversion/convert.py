"""Turn a batch of Records into Frames; a record that does not fit becomes a Fault with its reason.

Conversion has no effect, no clock and no network, so Ray may repeat it at any time.  It works on
whole Arrow columns.  A batch with faults is converted a second time without the faulty records, so
that the code of the columns need not know what a fault is.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cfray.conversion import identity
from cfray.conversion.columns import Columns
from cfray.conversion.custom_metadata import metadata
from cfray.conversion.fields import Fields
from cfray.conversion.relationships import relationships
from cfray.frames.schema import frame_schema, record_uuids, uuid_namespace
from cfray.job.mapping import Path, SourceShape, dotted, primary_vector, rule_paths
from cfray.job.spec import JobSpec
from cfray.records import vectors
from cfray.records.record import variant_numbers, variant_types
from cfray.records.types import vector_type

#: Columns that a text rule fills with the field's text, unchanged.
_TEXT_COLUMNS = (
    "version",
    "context",
    "uri",
    "local_path",
    "cid",
    "author",
    "status",
    "source_file",
    "raw_data_type",
)
_VERSION = r"^\d+\.\d+\.\d+$"
#: The field that ``text_content`` is taken from where the mapping has no rule for it.
_DEFAULT_TEXT = ("text",)


@dataclass(frozen=True, slots=True)
class Fault:
    """A record that does not become a frame.

    Attributes:
        row: of the record in its batch.
        stage: that found the fault.
        reason: why the record does not fit.
    """

    row: int
    stage: str
    reason: str


@dataclass(frozen=True, slots=True)
class Converted:
    """The frames and the faults of one batch of records.

    Attributes:
        frames: rows in the schema of ``Conversion.schema``; after ``Embed``, the target's.
        rows: for each frame, the row of its record in the batch.
        faults: of the records that became no frame, by row.
        counts: figures for the report (``title_fallbacks``, ``missing_vectors``,
            ``unreadable_dates`` and more).
        missing: for each frame, whether its record has no vector.
        tagged_ids: for each frame, the id that its uuid is computed from (``tag:text``).
    """

    frames: pa.RecordBatch
    rows: npt.NDArray[np.int64]
    faults: list[Fault]
    counts: Counter[str]
    missing: npt.NDArray[np.bool_]
    tagged_ids: pa.StringArray


@dataclass(frozen=True, slots=True)
class _Read:
    """What is read of a batch before frames are made of it.

    Attributes:
        columns: makes the columns of the frames.
        ids: of the records.
        vectors: the primary vectors.
        texts: the documents; None where the source has no text.
        collection: the source collection.
    """

    columns: Columns
    ids: identity.Ids
    vectors: vectors.Vectors
    texts: pa.StringArray | None
    collection: str


@dataclass(frozen=True)
class Conversion:
    """The conversion of one source's records; what it needs to know is worked out once a task."""

    job: JobSpec
    shape: SourceShape

    @cached_property
    def paths(self) -> set[Path]:
        """List every source path that a rule names."""
        primary = primary_vector(self.job.mapping, self.shape)
        mapped = {path for _, path in self.job.mapping.rules()}
        return mapped | set(self.shape.vectors.values()) | {primary}

    @cached_property
    def schema(self) -> pa.Schema:
        """Give the schema of the frames.

        It is the target's, without the columns that ``Embed`` adds, and with vectors as wide as
        the source's.
        """
        further = [further_vector_field(name, self.shape) for name in self.shape.vectors]
        return frame_schema(self.shape.read_dimension, further)

    def convert(self, batch: pa.RecordBatch, collection: str) -> Converted:
        """Convert one batch of records of one source collection."""
        fields = Fields(batch, self.paths, blank_is_null=self.shape.blank_is_null)
        columns = Columns(fields, self.job, self.shape)
        read = _Read(
            columns,
            identity.read_ids(fields, self.job.mapping.id),
            self._read_vectors(fields),
            columns.read_text(self.job.mapping.text_content, default=_DEFAULT_TEXT),
            collection,
        )
        faults = self._find_faults(read)
        if faults:
            fits = np.ones(batch.num_rows, np.bool_)
            fits[list(faults)] = False
            converted = self.convert(batch.filter(pa.array(fits)), collection)
            return Converted(
                converted.frames,
                np.flatnonzero(fits),
                [Fault(row, "convert", faults[row]) for row in sorted(faults)],
                converted.counts,
                converted.missing,
                converted.tagged_ids,
            )
        counts: Counter[str] = Counter()
        frames = self._make_frames(read, counts)
        rows = np.arange(batch.num_rows)
        return Converted(frames, rows, [], counts, read.vectors.missing, read.ids.tagged)

    def _find_faults(self, read: _Read) -> dict[int, str]:
        """Say why records do not fit: row -> the first reason that is found."""
        faults = read.vectors.faults | read.ids.faults
        embedding = self.job.embedding
        if embedding.policy == "keep" and embedding.missing_vector == "quarantine":
            reason = "no vector, and embedding.missing_vector is quarantine"
            missing = np.flatnonzero(read.vectors.missing).tolist()
            faults = dict.fromkeys(missing, reason) | faults
        return self._too_long(read.texts) | faults

    def _too_long(self, texts: pa.StringArray | None) -> dict[int, str]:
        """Find the documents over ``limits.max_document`` bytes of UTF-8."""
        if texts is None:
            return {}
        limit = self.job.limits.max_document
        sizes = pc.fill_null(pc.binary_length(texts), 0).to_numpy()
        return {
            row: f"document of {sizes[row]} bytes is over limits.max_document ({limit})"
            for row in np.flatnonzero(sizes > limit).tolist()
        }

    def _read_vectors(self, fields: Fields) -> vectors.Vectors:
        """Read the primary vectors of a batch, in the width that the source has."""
        width = self.shape.read_dimension
        path = primary_vector(self.job.mapping, self.shape)
        column = fields.columns.get(path)
        if column is None or self._ignores_vectors(column):
            empty = np.zeros((fields.rows, width), np.float32)
            return vectors.Vectors(empty, np.ones(fields.rows, np.bool_), {})
        if path not in fields.variants:
            return vectors.read_vectors(column, width)
        read = vectors.read_vectors(variant_numbers(column), width)
        kinds = variant_types(column).to_pylist()
        for row in np.flatnonzero(read.missing).tolist():
            if kinds[row] not in (None, "null"):
                read.faults[row] = f"vector is not a list of numbers (it is a {kinds[row]})"
        return read

    def _ignores_vectors(self, column: pa.Array) -> bool:
        """Tell whether the column of the primary vector is not read as vectors.

        A model replaces it, or it is a text that happens to be called ``vector``: no rule names it,
        and the sample held no numbers.
        """
        embedding = self.job.embedding
        return embedding.policy == "regenerate" or (
            self.job.mapping.vector is None
            and bool(pa.types.is_string(column.type))
            and self.shape.read_dimension == (embedding.dimension or 1)
        )

    def _make_frames(self, read: _Read, counts: Counter[str]) -> pa.RecordBatch:
        """Make frames of records that all fit, and count what the report tells of them."""
        columns, mapping, rows = read.columns, self.job.mapping, read.columns.fields.rows
        space = uuid_namespace(self.job.name, read.collection)
        arrays = {name: columns.text(getattr(mapping, name)) for name in _TEXT_COLUMNS}
        columns.mark_text_shown(mapping.text_content, default=_DEFAULT_TEXT)
        arrays["text_content"] = read.texts
        arrays["title"] = columns.title(mapping.title, read.texts, read.ids.texts, counts)
        arrays["vector"] = columns.vector(read.vectors, counts)
        arrays["collection"], arrays["collection_id"] = columns.collection(space, read.collection)
        arrays["version"] = columns.fitting("version", arrays["version"], _VERSION)
        arrays["position"] = columns.position(mapping.position)
        arrays["tags"] = columns.strings(mapping.tags)
        arrays["contributors"] = columns.strings(mapping.contributors)
        for name in ("created_at", "updated_at"):
            arrays[name] = columns.day(getattr(mapping, name), counts)
        arrays["raw_data"] = columns.raw(mapping.raw_data)
        for name, path in self.shape.vectors.items():
            field = self.schema.field(f"x_vector_{name}")
            arrays[field.name] = columns.further_vector(path, field.type)
        columns.mark_shown(rule_paths(mapping.id))
        # behind all columns, for it holds what no column took
        arrays["custom_metadata"] = metadata(columns, read.ids.texts)
        uuids = record_uuids(space, read.ids.tagged)
        arrays["uuid"] = identity.kept_uuids(read.ids, uuids) if mapping.keep_uuid else uuids
        arrays["relationships"] = relationships(
            columns.fields, self.job, self.shape.id_tag, read.collection, arrays["collection_id"]
        )
        constants = {
            "collection_id_type": "uuid",
            "source_type": self.shape.kind,
            "source_url": self.shape.url,
            "record_type": "document",
        }
        arrays |= {name: pa.repeat(pa.scalar(text), rows) for name, text in constants.items()}
        filled = [
            pa.nulls(rows, field.type) if arrays.get(field.name) is None else arrays[field.name]
            for field in self.schema
        ]
        return pa.RecordBatch.from_arrays(filled, schema=self.schema)


def further_vector_field(name: str, shape: SourceShape) -> pa.Field:
    """Give the column of a further vector, in the width and number type of the source's."""
    return pa.field(f"x_vector_{name}", vector_type(shape.types[dotted(shape.vectors[name])]))
