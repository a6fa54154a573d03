"""Turn a batch of Records into Frames; a record that does not fit becomes a Fault with its reason.

Conversion has no effect, no clock and no network, so Ray may repeat it at any time.  It works on
whole Arrow columns.  A batch with faults is converted a second time without the faulty records, so
that the code of the columns need not know what a fault is.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cfray.conversion import identity
from cfray.conversion.cases import shape_numbers
from cfray.conversion.columns import Columns
from cfray.conversion.custom_metadata import metadata
from cfray.conversion.fields import Fields
from cfray.conversion.frames_kept import kept_column, kept_columns
from cfray.conversion.metadata_keys import entered_paths, metadata_key
from cfray.conversion.primary_vector import PrimaryVectors, read_primary
from cfray.conversion.relationships import relationships
from cfray.frames.schema import ORIGIN, frame_schema, record_uuids, uuid_namespace
from cfray.job.mapping import FRAME_KINDS, Key, Path, SourceShape, vector_field
from cfray.job.spec import JobSpec
from cfray.records.types import vector_type
from cfray.records.vector_forms import VectorForm
from cfray.records.vectors import Vectors

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
        frames: rows in the schema of ``Conversion.schema``; after ``Steps`` in that of the copy,
            the chunks of a document behind it.
        rows: for each document among the frames, the row of its record in the batch.
        faults: of the records that became no frame, by row.
        counts: figures for the report (``title_fallbacks``, ``missing_vectors``,
            ``unreadable_dates`` and more).
        missing: for each document, whether its record has no vector.
        tagged_ids: for each document, the id that its uuid is computed from (``tag:text``).
        origins: how each document's vector was made, where the records say so; None where they
            are the source's.
    """

    frames: pa.RecordBatch
    rows: npt.NDArray[np.int64]
    faults: list[Fault]
    counts: Counter[str]
    missing: npt.NDArray[np.bool_]
    tagged_ids: pa.StringArray
    origins: pa.StringArray | None = None


@dataclass(frozen=True, slots=True)
class _Read:
    """What is read of a batch before frames are made of it.

    Attributes:
        columns: makes the columns of the frames.
        ids: of the records.
        primary: the primary vectors.
        texts: the documents; None where the source has no text.
        collection: the source collection.
    """

    columns: Columns
    ids: identity.Ids
    primary: PrimaryVectors
    texts: pa.StringArray | None
    collection: str


@dataclass(frozen=True)
class Conversion:
    """The conversion of one source's records; what it needs to know is worked out once a task."""

    job: JobSpec
    shape: SourceShape
    #: Paths of the rules of other cases, whose fields are opened here, too.
    other_paths: frozenset[Path] = frozenset()
    #: Fields that tell which case a record is of: custom_metadata keeps them, so that an export
    #: can tell it, too.
    asked_paths: frozenset[Path] = frozenset()

    @cached_property
    def paths(self) -> set[Path]:
        """List every source path that a rule names."""
        further = set(self.shape.vectors.values())
        return self.job.mapping.paths | further | {self.shape.vector} | self.other_paths

    @cached_property
    def of_shapes(self) -> list[Conversion]:
        """Give the conversion of each shape (``Mapping.shapes``), which opens the same fields."""
        paths = frozenset(self.paths)
        asked = frozenset(case.when.path for case in self.job.mapping.cases)
        jobs = (
            self.job.model_copy(update={"mapping": mapping}) for mapping in self.job.mapping.shapes
        )
        return [Conversion(job, self.shape, paths, asked) for job in jobs]

    @cached_property
    def entered(self) -> frozenset[Path]:
        """List the paths of the fields that rules lead into."""
        return entered_paths(self.paths)

    @cached_property
    def schema(self) -> pa.Schema:
        """Give the schema of the frames.

        Their vectors are as wide as the source's, or 1 wide where a model will make all of them.
        """
        further = [self._further_vector_field(name) for name in self.shape.vectors]
        return frame_schema(self.shape.read_dimension, further)

    def _further_vector_field(self, name: str) -> pa.Field:
        """Give the column of a further vector, in the width and number type of the source's."""
        key = metadata_key(self.shape.vectors[name], self.entered)
        type_name = self.shape.vector_types.get(name) or self.shape.types[key]
        return pa.field(f"x_vector_{name}", vector_type(type_name))

    def read_uuids(self, batch: pa.RecordBatch, collection: str) -> pa.StringArray:
        """Give the uuids of the records that have an id, whether they fit or not."""
        fields = Fields(batch, self.paths, blank_is_null=self.shape.blank_is_null)
        ids = identity.read_ids(fields, self.job.mapping.id)
        uuids = record_uuids(uuid_namespace(self.job.name, collection), ids.tagged.drop_null())
        if not self.job.mapping.keep_uuid:
            return uuids
        return identity.kept_uuids(replace(ids, texts=ids.texts.drop_null()), uuids)

    def convert(self, batch: pa.RecordBatch, collection: str) -> Converted:
        """Convert one batch of records of one source collection."""
        fields = Fields(batch, self.paths, blank_is_null=self.shape.blank_is_null)
        if self.job.mapping.cases:
            return self._convert_shapes(batch, fields, collection)
        columns = Columns(fields, self.job, self.shape)
        read = _Read(
            columns,
            identity.read_ids(fields, self.job.mapping.id),
            read_primary(fields, self.job, self.shape),
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
                converted.origins,
            )
        counts: Counter[str] = Counter()
        frames = self._make_frames(read, counts)
        rows = np.arange(batch.num_rows)
        origins = kept_column(fields, ORIGIN) if self.shape.kind in FRAME_KINDS else None
        missing = read.primary.vectors.missing
        return Converted(frames, rows, [], counts, missing, read.ids.tagged, origins)

    def _convert_shapes(self, batch: pa.RecordBatch, fields: Fields, collection: str) -> Converted:
        """Convert the records of each shape by its rules, and put them into their order again."""
        numbers = shape_numbers(fields, self.job.mapping.cases)
        distinct = np.unique(numbers).tolist() or [len(self.job.mapping.cases)]
        if len(distinct) == 1:
            conversion: Conversion = self.of_shapes[distinct[0]]
            return conversion.convert(batch, collection)
        parts = []
        for number in distinct:
            rows = np.flatnonzero(numbers == number)
            converted = self.of_shapes[number].convert(batch.take(pa.array(rows)), collection)
            parts.append(_at_rows(converted, rows))
        return _in_order(parts)

    def _find_faults(self, read: _Read) -> dict[int, str]:
        """Say why records do not fit: row -> the first reason that is found."""
        faults = read.primary.vectors.faults | read.ids.faults
        if self.job.embedding.missing_vector == "quarantine":
            faults = self._without_vector(read) | faults
        return self._too_long(read.texts) | faults

    def _without_vector(self, read: _Read) -> dict[int, str]:
        """Refuse the records for which it is decided that they will have no vector.

        A model makes a vector of a text, a map of a vector of the source.
        """
        policy, vectors = self.job.embedding.policy, read.primary.vectors
        if policy == "keep":
            return _missing_vectors(vectors)
        is_missing = _blank(read)
        if policy == "remap":
            is_missing &= vectors.missing
        rows = np.flatnonzero(is_missing)
        return dict.fromkeys(
            rows.tolist(),
            "no vector could be made: there is no text, and embedding.missing_vector is quarantine",
        )

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

    def _form(self, name: str) -> VectorForm:
        """Give the form in which a further vector is written."""
        rule = self.job.mapping.vectors.get(name)
        return "auto" if rule is None else vector_field(rule).form

    def _make_frames(self, read: _Read, counts: Counter[str]) -> pa.RecordBatch:
        """Make frames of records that all fit, and count what the report tells of them."""
        columns, mapping, rows = read.columns, self.job.mapping, read.columns.fields.rows
        space = uuid_namespace(self.job.name, read.collection)
        arrays = {name: columns.text(getattr(mapping, name)) for name in _TEXT_COLUMNS}
        if mapping.source_file is None and columns.fields.file is not None:
            arrays["source_file"] = pa.repeat(pa.scalar(columns.fields.file), rows)
        columns.mark_text_shown(mapping.text_content, default=_DEFAULT_TEXT)
        arrays["text_content"] = read.texts
        arrays["title"] = columns.title(mapping.title, read.texts, read.ids.texts, counts)
        arrays["vector"] = columns.vector(read.primary, counts)
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
            arrays[field.name] = columns.further_vector(path, field.type, self._form(name))
        # the texts of a composite id tell which of its parts are null
        columns.mark_first_shown(read.ids.usable, notes_absent=not isinstance(mapping.id, Key))
        columns.mark_ambiguous()
        columns.mark_copies()
        columns.mark_unshown(sorted(self.asked_paths), np.ones(columns.fields.rows, np.bool_))
        # behind all columns, for it holds what no column took
        arrays["custom_metadata"] = metadata(columns, read.ids.texts)
        uuids = record_uuids(space, read.ids.tagged)
        arrays["uuid"] = identity.kept_uuids(read.ids, uuids) if mapping.keep_uuid else uuids
        arrays["relationships"] = relationships(
            columns.fields, self.job, self.shape, read.collection, arrays["collection_id"]
        )
        constants = {
            "collection_id_type": "uuid",
            "source_type": self.shape.kind,
            "source_url": self.shape.url,
            "record_type": "document",
        }
        arrays |= {name: pa.repeat(pa.scalar(text), rows) for name, text in constants.items()}
        if self.shape.kind in FRAME_KINDS:
            arrays |= kept_columns(columns.fields, self.schema)
        filled = [
            pa.nulls(rows, field.type) if arrays.get(field.name) is None else arrays[field.name]
            for field in self.schema
        ]
        return pa.RecordBatch.from_arrays(filled, schema=self.schema)


def _at_rows(converted: Converted, rows: npt.NDArray[np.intp]) -> Converted:
    """Give what came of some rows of a batch the numbers that the rows have there."""
    faults = [replace(fault, row=int(rows[fault.row])) for fault in converted.faults]
    return replace(converted, rows=rows[converted.rows], faults=faults)


def _in_order(parts: list[Converted]) -> Converted:
    """Join what came of the rows of one batch, in the order of the rows."""
    rows = np.concatenate([part.rows for part in parts])
    order = np.argsort(rows)
    taken = pa.array(order)
    frames = pa.concat_batches([part.frames for part in parts]).take(taken)
    faults = sorted((fault for part in parts for fault in part.faults), key=lambda fault: fault.row)
    return Converted(
        frames,
        rows[order],
        faults,
        sum((part.counts for part in parts), Counter()),
        np.concatenate([part.missing for part in parts])[order],
        pa.concat_arrays([part.tagged_ids for part in parts]).take(taken),
    )


def _blank(read: _Read) -> npt.NDArray[np.bool_]:
    """Tell which records have no text but white space."""
    if read.texts is None:
        return np.ones(read.columns.fields.rows, np.bool_)
    is_blank = pc.equal(pc.utf8_trim_whitespace(read.texts), "")
    blank: npt.NDArray[np.bool_] = pc.fill_null(is_blank, True).to_numpy(zero_copy_only=False)
    return blank.copy()


def _missing_vectors(read: Vectors) -> dict[int, str]:
    """Refuse the records without a vector (``embedding.missing_vector: quarantine``)."""
    reasons = dict.fromkeys(np.flatnonzero(read.missing).tolist(), "no vector")
    if read.empty is not None:
        reasons |= dict.fromkeys(np.flatnonzero(read.empty).tolist(), "the vector is empty")
    return {
        row: f"{reason}, and embedding.missing_vector is quarantine"
        for row, reason in reasons.items()
    }
