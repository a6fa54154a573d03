"""Turn a batch of Records into Frames; a record that does not fit becomes a Fault with its reason.

Pure: no effect, no clock, no network, so Ray may repeat it at any time.  Works
on whole Arrow columns; a batch with faults is converted a second time without
them, so that the columns below need not know what a fault is.
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
from cfray.frames.schema import RELATIONSHIP, frame_schema, lists_of, namespace, record_uuids
from cfray.job.mapping import Fields, Path, SourceShape, dotted, primary_vector, rule_paths
from cfray.job.spec import JobSpec
from cfray.records import vectors
from cfray.records.record import variant_numbers, variant_types
from cfray.records.types import SPARSE

Rows = npt.NDArray[np.int64]

#: Columns a text rule fills as it stands.
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


@dataclass(frozen=True, slots=True)
class Fault:
    """A record that stays out of the target.

    Its row in the batch, the stage that found out, and why.
    """

    row: int
    stage: str
    reason: str


@dataclass(frozen=True, slots=True)
class Converted:
    """What became of one batch.

    Attributes:
        frames: rows in the target's schema.
        rows: for each frame, the row of the batch it came from.
        faults: the rows that became no frame.
        counts: what the report tells (``title_fallbacks``, ``missing_vectors``,
            ``unreadable_dates`` ...).
        missing: for each frame, whether its source has no vector.
        tagged: for each frame, its id as the identity writes it (``tag:text``).
    """

    frames: pa.RecordBatch
    rows: Rows
    faults: list[Fault]
    counts: Counter[str]
    missing: npt.NDArray[np.bool_]
    tagged: pa.StringArray


@dataclass(frozen=True)
class Conversion:
    """Everything convert needs to know, worked out once a task."""

    job: JobSpec
    layout: SourceShape

    @cached_property
    def reach(self) -> set[Path]:
        """Give every source path a rule names."""
        own = {path for _, path in self.job.mapping.rules()}
        return (
            own
            | set(self.layout.vectors.values())
            | {primary_vector(self.job.mapping, self.layout)}
        )

    @cached_property
    def schema(self) -> pa.Schema:
        """Give the schema of what comes out.

        The target's, but for what ``embed`` adds, and vectors as wide as the source's.
        """
        return frame_schema(
            self.layout.read_dimension, [x_field(name, self.layout) for name in self.layout.vectors]
        )

    @property
    def keeps(self) -> bool:
        """Tell whether the source's vectors go to the target as they are."""
        return self.job.embedding.policy == "keep"

    def convert(self, batch: pa.RecordBatch, source_collection: str) -> Converted:
        """Convert one batch of records of one source collection."""
        fields = Fields(batch, self.reach, blank_is_null=self.layout.kind == "csv")
        ids = identity.read_ids(fields, self.job.mapping.id)
        faults = {row: Fault(row, "convert", reason) for row, reason in ids.faults.items()}
        found = self._vectors(fields)
        faults |= {
            row: Fault(row, "convert", reason)
            for row, reason in found.faults.items()
            if row not in faults
        }
        if self.keeps and self.job.embedding.missing_vector == "quarantine":
            faults |= {
                int(row): Fault(
                    int(row), "convert", "no vector, and embedding.missing_vector is quarantine"
                )
                for row in np.flatnonzero(found.missing)
                if int(row) not in faults
            }
        faults |= {row: fault for row, fault in self._too_long(fields).items() if row not in faults}
        if faults:
            good = np.ones(batch.num_rows, np.bool_)
            good[list(faults)] = False
            clean = self.convert(batch.filter(pa.array(good)), source_collection)
            found_faults = [faults[row] for row in sorted(faults)]
            return Converted(
                clean.frames,
                np.flatnonzero(good),
                found_faults,
                clean.counts,
                clean.missing,
                clean.tagged,
            )
        counts: Counter[str] = Counter()
        table = self._frames(fields, ids, found, source_collection, counts)
        return Converted(table, np.arange(batch.num_rows), [], counts, found.missing, ids.tagged)

    def _vectors(self, fields: Fields) -> vectors.Vectors:
        if self.job.embedding.policy == "regenerate":  # whatever the source has is replaced
            empty = np.zeros((fields.rows, self.layout.read_dimension), np.float32)
            return vectors.Vectors(empty, np.ones(fields.rows, np.bool_), {})
        rule = self.job.mapping.vector
        path = primary_vector(self.job.mapping, self.layout)
        column = fields.columns.get(path)
        if (
            rule is None
            and column is not None
            and pa.types.is_string(column.type)
            and self.layout.read_dimension == (self.job.embedding.dimension or 1)
        ):
            # a text that happens to be called vector: nobody mapped it, and the sample held no
            # numbers
            column = None
        if column is None:
            empty = np.zeros((fields.rows, self.layout.read_dimension), np.float32)
            return vectors.Vectors(empty, np.ones(fields.rows, np.bool_), {})
        if path not in fields.variants:
            return vectors.read_vectors(column, self.layout.read_dimension)
        found = vectors.read_vectors(variant_numbers(column), self.layout.read_dimension)
        kinds = variant_types(column).to_pylist()
        others = [
            row
            for row in np.flatnonzero(found.missing).tolist()
            if kinds[row] not in (None, "null")
        ]
        found.faults.update(
            {row: f"vector is not a list of numbers (it is a {kinds[row]})" for row in others}
        )
        return found

    def _too_long(self, fields: Fields) -> dict[int, Fault]:
        """Find documents over ``limits.max_document`` bytes of UTF-8."""
        limit = self.job.limits.max_document
        texts = Columns(fields, self.job, self.layout).text(
            self.job.mapping.text_content, default=("text",)
        )
        if texts is None:
            return {}
        sizes = pc.fill_null(pc.binary_length(texts), 0).to_numpy()
        reason = "document of {} bytes is over limits.max_document ({})"
        return {
            int(row): Fault(int(row), "convert", reason.format(sizes[row], limit))
            for row in np.flatnonzero(sizes > limit)
        }

    def _frames(
        self,
        fields: Fields,
        ids: identity.Ids,
        found: vectors.Vectors,
        source_collection: str,
        counts: Counter[str],
    ) -> pa.RecordBatch:
        mapping, rows = self.job.mapping, fields.rows
        columns = Columns(fields, self.job, self.layout)
        space = namespace(self.job.name, source_collection)
        computed = record_uuids(space, ids.tagged)
        made: dict[str, pa.Array] = {
            name: columns.text(getattr(mapping, name)) for name in _TEXT_COLUMNS
        }
        made["uuid"] = identity.kept_uuids(ids, computed) if mapping.keep_uuid else computed
        made["text_content"] = columns.text(mapping.text_content, default=("text",))
        made["title"] = columns.title(mapping.title, made["text_content"], ids.texts, counts)
        made["vector"] = columns.vector(found, counts)
        made["collection"], made["collection_id"] = columns.collection(space, source_collection)
        made["collection_id_type"] = pa.repeat(pa.scalar("uuid"), rows)
        made["version"] = columns.fitting("version", made["version"], _VERSION)
        made["position"] = columns.position(mapping.position)
        made["tags"], made["contributors"] = (
            columns.strings(mapping.tags),
            columns.strings(mapping.contributors),
        )
        for name in ("created_at", "updated_at"):
            made[name] = columns.day(getattr(mapping, name), counts)
        made["source_type"] = pa.repeat(pa.scalar(self.layout.kind), rows)
        made["source_url"] = pa.repeat(pa.scalar(self.layout.url), rows)
        made["relationships"] = self._relationships(
            fields, made["collection_id"], source_collection
        )
        made["record_type"] = pa.repeat(pa.scalar("document"), rows)
        made["raw_data"] = columns.raw(mapping.raw_data)
        for name, path in self.layout.vectors.items():
            made[f"x_vector_{name}"] = columns.further_vector(
                path, self.schema.field(f"x_vector_{name}").type
            )
        columns.take(rule_paths(mapping.id))
        made["custom_metadata"] = metadata(columns, ids.texts)
        arrays = [
            pa.nulls(rows, field.type) if made.get(field.name) is None else made[field.name]
            for field in self.schema
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)

    def _relationships(
        self, fields: Fields, collection_ids: pa.StringArray, source_collection: str
    ) -> pa.ListArray:
        """Rewrite references to uuids; membership in the collection comes last."""
        parts: list[tuple[Rows, pa.Array]] = []
        for rule in self.job.mapping.relationships:
            rows, tagged = identity.read_references(fields, rule.to, self.layout.id_tag)
            space = namespace(
                self.job.name, source_collection if rule.collection is None else rule.collection
            )
            distinct = tagged.dictionary_encode()  # many records refer to the same one
            uuid = record_uuids(space, distinct.dictionary).take(distinct.indices)
            if self.job.mapping.keep_uuid:
                own = pc.replace_substring_regex(tagged, r"^[a-z]:", "")
                uuid = identity.kept_uuids(identity.Ids(tagged, own, {}), uuid)
            parts.append((rows, relations(rule.type, uuid)))
        if self.job.mapping.member_of:
            parts.append((np.arange(fields.rows), relations("member_of", collection_ids)))
        return lists_of(parts, fields.rows, RELATIONSHIP)


def relations(kind: str, ids: pa.StringArray) -> pa.StructArray:
    """Make relationship structs of one type that point to uuids."""
    empty = pa.nulls(len(ids), pa.string())
    children = [pa.repeat(pa.scalar(kind), len(ids)), ids, *[empty] * (RELATIONSHIP.num_fields - 2)]
    return pa.StructArray.from_arrays(children, fields=list(RELATIONSHIP))


def x_field(name: str, layout: SourceShape) -> pa.Field:
    """Give the column of a further vector in its own width, as the source's type name says it."""
    return pa.field(f"x_vector_{name}", further_type(layout.types[dotted(layout.vectors[name])]))


def further_type(name: str) -> pa.DataType:
    """Read a type name of the form ``fixed_size_list<item.

    Halffloat>[384]``, a sparse vector's or a multi-vector's; lists of any width stay lists.
    """
    if name == str(SPARSE):
        return SPARSE
    if name.startswith("list<") and "fixed_size_list" in name:
        return pa.list_(further_type(name[name.index("fixed_size_list") : -1]))
    widths = {
        "halffloat": pa.float16(),
        "float": pa.float32(),
        "double": pa.float64(),
        "int8": pa.int8(),
        "uint8": pa.uint8(),
    }
    item = next(
        (kind for word, kind in widths.items() if f": {word}" in name or f"<{word}" in name),
        pa.float64(),
    )
    if name.startswith("fixed_size_list"):
        return pa.list_(item, int(name[name.rindex("[") + 1 : -1]))
    return pa.list_(item)
