"""A sample of a source, field by field: what ``inspect`` bases its guesses on.

Looks at the same records as ``plan`` does and at the same columns as the
mapping will, nested fields opened, so that a guess which holds here is one that
runs.  Decides nothing: it counts.
"""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc

from cfray.conversion import dates
from cfray.conversion.fields import Fields
from cfray.engine import throttle
from cfray.errors import ConfigError
from cfray.formats import csv_types
from cfray.job.mapping import Path
from cfray.job.spec import AnySource, JobSpec, Target
from cfray.planning.field_paths import nested_paths
from cfray.planning.sample import SAMPLE_ROWS, read_sample
from cfray.records import values, vectors
from cfray.records.record import variant_numbers, variant_texts, variant_types
from cfray.sources.base import Context
from cfray.sources.files.csv import Csv
from cfray.sources.remote import RemoteSource

#: Levels that a path may have: an object in an object in a column.
_MAX_DEPTH = 3
#: Characters of each text that the sample keeps.
_TEXT_HEAD = 400

_VARIANT_KINDS = {
    "string": "text",
    "int64": "integer",
    "uint64": "integer",
    "integer": "integer",
    "double": "number",
    "bool": "bool",
}
_VARIANT_KINDS |= {
    "uuid": "uuid",
    "date": "instant",
    "binary": "binary",
    "float": "number",
} | dict.fromkeys(("int8", "int16", "int32"), "integer")
_VARIANT_KINDS |= {
    "list<string>": "texts",
    "list<double>": "numbers",
    "list<int64>": "numbers",
    "list": "list",
}


@dataclass(slots=True)
class FieldSample:
    """One field and what the sample holds of it.

    Attributes:
        path: of the field.
        type: its Arrow type, or the commonest type of its values where they are variants.
        kind: text, integer, number, bool, instant, uuid, binary; texts, numbers or list for lists;
            else other.
        present: records in which it is neither missing nor null nor an empty text.
        texts: the values' canonical texts, their first ``_TEXT_HEAD`` characters; none for lists
            of numbers.
        characters: in all texts.
        spaced_texts: texts that hold a space.
        dimension: numbers in most of its vectors; 0 if it holds none.
        vectors: records whose vector has that dimension and only finite numbers.
        has_floats: whether the vectors' numbers are floats.
    """

    path: Path
    type: str = ""
    kind: str = "other"
    present: int = 0
    texts: list[str] = field(default_factory=list)
    characters: int = 0
    spaced_texts: int = 0
    dimension: int = 0
    vectors: int = 0
    has_floats: bool = False

    @property
    def name(self) -> str:
        """Give the last name of the path as words joined by underscores.

        ``publishedAt`` is ``published_at``.
        """
        words = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", self.path[-1]).lower()
        return re.sub(r"[^a-z0-9]+", "_", words).strip("_")

    @property
    def mean_length(self) -> float:
        """Give the average length of its texts in characters."""
        return self.characters / self.present if self.present else 0.0

    def count_dates(self) -> int:
        """Count the texts that read as instants."""
        days = dates.days(pa.array(self.texts, pa.string()))
        return len(days) - int(days.null_count)


@dataclass(frozen=True)
class Sample:
    """Records of the first, the middle and the last shard.

    Attributes:
        batches: the records, every nested field opened.
        is_complete: whether these are all records of the source.
        rejects: reason -> rows that could not be read.
        list_types: CSV columns whose texts are all JSON lists, and their type; in ``batches`` they
            are lists already.
        is_store: whether the records are a store's, which names their id and vectors itself.
        references: dotted path of a field that refers to records -> the source collection they are
            in, as the store declares it.
    """

    batches: list[Fields]
    is_complete: bool
    rejects: Counter[str]
    list_types: dict[str, str]
    is_store: bool = False
    references: dict[str, str] = field(default_factory=dict)

    @cached_property
    def rows(self) -> int:
        """Count the records."""
        return sum(fields.rows for fields in self.batches)

    @cached_property
    def fields(self) -> list[FieldSample]:
        """Give every field, in the source's order."""
        paths = dict.fromkeys(path for fields in self.batches for path in fields.columns)
        return [_sample_field(path, self.batches) for path in paths]


def take_sample(source: AnySource) -> Sample:
    """Read the records that ``plan`` would sample.

    Raises:
        ConfigError: no record can be read.
        SourceError: the source cannot be read.
    """
    job = JobSpec(name="inspect", source=source, target=Target(uri="none"))
    with source.session() as session, tempfile.TemporaryDirectory(prefix="cfray-plan-") as scratch:
        context = Context(
            session=session,
            scratch=scratch,
            max_record=job.limits.max_document,
            throttle=throttle.local_budget(source),
        )
        shards = sorted(source.shards(context), key=lambda shard: shard.id)
        description = source.describe(context, shards)
        # the same records as the plan's, by the same code
        batches, rejects = read_sample(job, shards, context)
    reasons = Counter(reject.reason for reject in rejects)
    rows = sum(batch.num_rows for batch in batches)
    if not rows:
        raise ConfigError(
            f"none of {len(rejects):,} sampled records can be read: {reasons.most_common(1)[0][0]}",
            "correct the source, or its options",
        )
    list_types = _list_types(batches, source.types) if isinstance(source, Csv) else {}
    batches = [_with_types(batch, list_types) for batch in batches]
    paths = {
        path[:_MAX_DEPTH]
        for batch in batches
        for item, column in zip(batch.schema, batch.columns, strict=True)
        for path in _leaves(item, column)
    }
    return Sample(
        batches=[Fields(batch, paths) for batch in batches if batch.num_rows],
        is_complete=len(shards) == 1 and rows + len(rejects) < SAMPLE_ROWS,
        rejects=reasons,
        list_types=list_types,
        is_store=isinstance(source, RemoteSource),
        references=description.references,
    )


def _leaves(item: pa.Field, column: pa.Array) -> list[Path]:
    """List the paths of a column that have no field below them."""
    paths = set(nested_paths((item.name,), item, column))  # the fields that the plan will know
    parents = {path[:depth] for path in paths for depth in range(1, len(path))}
    return sorted(paths - parents)


def _sample_field(path: Path, batches: list[Fields]) -> FieldSample:
    field_sample = FieldSample(path)
    types: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    dimensions: Counter[int] = Counter()
    columns = [
        (fields.columns[path], path in fields.variants)
        for fields in batches
        if path in fields.columns
    ]
    for column, variant in columns:
        names = _types(column, variant=variant)
        types.update(names)
        for name, count in names.items():
            kinds[_VARIANT_KINDS.get(name, "other") if variant else _kind(column.type)] += count
        dimension = vectors.width_of(variant_numbers(column) if variant else column)
        if dimension:
            dimensions[dimension] += len(column)
    if types:
        field_sample.type = types.most_common(1)[0][0]
        field_sample.kind = kinds.most_common(1)[0][0]
    if dimensions:
        field_sample.dimension = dimensions.most_common(1)[0][0]
    for column, variant in columns:
        _count(field_sample, column, variant=variant)
    return field_sample


def _types(column: pa.Array, *, variant: bool) -> Counter[str]:
    """Count the types of the values that are present."""
    if variant:
        return Counter(
            name for name in variant_types(column).to_pylist() if name not in (None, "null")
        )
    return Counter(
        {str(column.type): len(column) - column.null_count}
        if len(column) > column.null_count
        else {}
    )


def _count(field_sample: FieldSample, column: pa.Array, *, variant: bool) -> None:
    """Count the values of one batch's column."""
    if field_sample.dimension:
        numbers = variant_numbers(column) if variant else column
        read = vectors.read_vectors(numbers, field_sample.dimension)
        field_sample.vectors += len(column) - int(read.missing.sum()) - len(read.faults)
        if _holds_floats(column, field_sample.type, variant=variant):
            field_sample.has_floats = True
    if field_sample.kind in ("numbers", "texts", "list", "other"):
        field_sample.present += sum(_types(column, variant=variant).values())
        return
    if variant:
        is_present = pc.fill_null(pc.not_equal(variant_types(column), "null"), fill_value=False)
        texts = variant_texts(column).filter(is_present)
        texts = pc.utf8_trim(texts, '"') if field_sample.kind in ("uuid", "instant") else texts
    else:
        texts = values.metadata_texts(column.drop_null())
        texts = pc.utf8_trim(texts, '"') if field_sample.kind == "uuid" else texts
    texts = texts.filter(pc.not_equal(texts, ""))
    field_sample.present += len(texts)
    field_sample.characters += pc.sum(pc.utf8_length(texts)).as_py() or 0
    field_sample.spaced_texts += pc.sum(pc.match_substring(texts, " ")).as_py() or 0
    field_sample.texts += pc.utf8_slice_codeunits(texts, 0, _TEXT_HEAD).to_pylist()


def _holds_floats(column: pa.Array, type_name: str, *, variant: bool) -> bool:
    """Tell whether vectors hold floats; a JSON text counts as a list of floats."""
    if variant:
        return type_name != "list<int64>"
    item_type = getattr(column.type, "value_type", None)
    return item_type is None or bool(pa.types.is_floating(item_type))


def _kind(kind: pa.DataType) -> str:
    """Name the kind of an Arrow type."""
    if isinstance(kind, pa.DictionaryType):
        return _kind(kind.value_type)
    if isinstance(kind, pa.UuidType):
        return "uuid"
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return {"text": "texts", "integer": "numbers", "number": "numbers"}.get(
            _kind(kind.value_type), "list"
        )
    tests = {
        "text": (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view),
        "integer": (pa.types.is_integer,),
        "number": (pa.types.is_floating, pa.types.is_decimal),
        "bool": (pa.types.is_boolean,),
        "instant": (pa.types.is_date, pa.types.is_timestamp),
        "binary": (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary),
    }
    return next(
        (name for name, checks in tests.items() if any(check(kind) for check in checks)), "other"
    )


def _list_types(batches: list[pa.RecordBatch], declared: dict[str, str]) -> dict[str, str]:
    """Find the columns whose texts are all JSON lists of texts, or of integers.

    Integer lists of one length are no lists here: they may be vectors.

    Returns:
        name of the column -> type of its lists.
    """
    types: dict[str, str] = {}
    for name in batches[0].schema.names:
        texts = pa.concat_arrays([batch.column(name) for batch in batches])
        if (
            name in declared
            or not pa.types.is_string(texts.type)
            or not pc.any(pc.match_substring_regex(texts, r"^\s*\[")).as_py()
        ):
            continue
        for type_name in ("list<string>", "list<int64>"):
            lists, misfits = csv_types.convert_texts(texts, csv_types.parse_type(type_name))
            lengths = pc.unique(pc.list_value_length(lists.drop_null()))
            if not misfits and (type_name == "list<string>" or len(lengths) > 1):
                types[name] = type_name
                break
    return types


def _with_types(batch: pa.RecordBatch, types: dict[str, str]) -> pa.RecordBatch:
    for name, type_name in types.items():
        lists, _ = csv_types.convert_texts(batch.column(name), csv_types.parse_type(type_name))
        batch = batch.set_column(batch.schema.get_field_index(name), name, lists)
    return batch


def fitting_type(texts: list[str]) -> tuple[str, bool] | None:
    """Find the type that all texts of a CSV column fit.

    Returns:
        the type's name, and whether its values written as text are the very same texts; None where
        only text fits.
    """
    column = pa.array(texts, pa.string())
    if not texts:
        return None
    for type_name in ("int64", "double", "bool", "date32", "timestamp[us]", "timestamp[us, UTC]"):
        try:
            converted, misfits = csv_types.convert_texts(column, csv_types.parse_type(type_name))
        except pa.ArrowInvalid:
            continue
        if not misfits and not converted.null_count:
            texts_again = pc.utf8_trim(values.metadata_texts(converted), '"')
            return type_name, bool(texts_again.equals(column))
    return None
