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
from cfray.engine import throttle
from cfray.errors import ConfigError
from cfray.formats import csv_types
from cfray.job.mapping import Fields, Path
from cfray.job.spec import AnySource, JobSpec, Target
from cfray.planning.sample import SAMPLE_ROWS, sample
from cfray.planning.shape import leaves
from cfray.records import values, vectors
from cfray.records.record import variant_numbers, variant_texts, variant_types
from cfray.sources.base import Context
from cfray.sources.remote import RemoteSource

_DEPTH = 3  # levels a path may have: an object in an object in a column
_HEAD = 400  # characters kept of each text

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
class Seen:
    """One field and what the sample holds of it.

    Attributes:
        path: of the field.
        type: its Arrow type, or the commonest type of its values where they are variants.
        kind: text, integer, number, bool, instant, uuid, binary; texts, numbers or list for lists;
            else other.
        present: records in which it is neither missing nor null nor an empty text.
        texts: the values' canonical texts, their first ``_HEAD`` characters; none for lists of
            numbers.
        characters: of all texts.
        spaced: texts that hold a space.
        width: numbers in most of its vectors; 0 if it holds none.
        wide: records whose vector has that width and only finite numbers.
        floats: whether the vectors' numbers are floats.
    """

    path: Path
    type: str = ""
    kind: str = "other"
    present: int = 0
    texts: list[str] = field(default_factory=list)
    characters: int = 0
    spaced: int = 0
    width: int = 0
    wide: int = 0
    floats: bool = False

    @property
    def name(self) -> str:
        """Give the last name of the path as words joined by underscores.

        ``publishedAt`` is ``published_at``.
        """
        words = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", self.path[-1]).lower()
        return re.sub(r"[^a-z0-9]+", "_", words).strip("_")

    @property
    def mean(self) -> float:
        """Give the average length of its texts in characters."""
        return self.characters / self.present if self.present else 0.0

    def days(self) -> int:
        """Count the texts that read as instants."""
        read = dates.days(pa.array(self.texts, pa.string()))
        return len(read) - int(read.null_count)


@dataclass(frozen=True)
class Sample:
    """Records of the first, the middle and the last shard.

    Attributes:
        batches: the records, every nested field opened.
        whole: whether these are all records of the source.
        rejects: reason -> rows that could not be read.
        typed: CSV columns whose texts are all JSON lists, and their type; in ``batches`` they are
            lists already.
        store: whether the records are a store's, which have an ``id`` and vectors of their own.
        references: dotted path of a field that refers to records -> the source collection they are
            in, as the store declares it.
    """

    batches: list[Fields]
    whole: bool
    rejects: Counter[str]
    typed: dict[str, str]
    store: bool = False
    references: dict[str, str] = field(default_factory=dict)

    @cached_property
    def rows(self) -> int:
        """Count the records."""
        return sum(fields.rows for fields in self.batches)

    @cached_property
    def fields(self) -> list[Seen]:
        """Give every field, in the source's order."""
        paths = dict.fromkeys(path for fields in self.batches for path in fields.columns)
        return [_seen(path, self.batches) for path in paths]


def take_sample(source: AnySource) -> Sample:
    """Read the records that ``plan`` would sample.

    Raises:
        ConfigError: no record can be read.
        SourceError: the source cannot be read.
    """
    job = JobSpec(name="inspect", source=source, target=Target(uri="none"))
    with source.session() as session, tempfile.TemporaryDirectory(prefix="cfray-plan-") as desk:
        context = Context(
            session=session,
            scratch=desk,
            max_record=job.limits.max_document,
            throttle=throttle.local_budget(source),
        )
        shards = sorted(source.shards(context), key=lambda shard: shard.id)
        described = source.describe(context, shards)
        batches, rejects = sample(
            job, shards, context
        )  # the same records as the plan's, by the same code
    reasons = Counter(reject.reason for reject in rejects)
    rows = sum(batch.num_rows for batch in batches)
    if not rows:
        raise ConfigError(
            f"none of {len(rejects):,} sampled records can be read: {reasons.most_common(1)[0][0]}",
            "correct the source, or its options",
        )
    typed = _json_lists(batches, source.types) if source.kind == "csv" else {}
    batches = [_with_types(batch, typed) for batch in batches]
    paths = {
        path[:_DEPTH]
        for batch in batches
        for item, column in zip(batch.schema, batch.columns, strict=True)
        for path in _leaves(item, column)
    }
    whole = len(shards) == 1 and rows + len(rejects) < SAMPLE_ROWS
    read = [Fields(batch, paths) for batch in batches if batch.num_rows]
    return Sample(
        read, whole, reasons, typed, isinstance(source, RemoteSource), described.references
    )


def _leaves(item: pa.Field, column: pa.Array) -> list[Path]:
    """List the paths of a column that nothing lies below."""
    found = set(leaves((item.name,), item, column))  # the fields the plan will know
    inner = {path[:depth] for path in found for depth in range(1, len(path))}
    return sorted(found - inner)


def _seen(path: Path, batches: list[Fields]) -> Seen:
    seen = Seen(path)
    types: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    widths: Counter[int] = Counter()
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
        width = vectors.width_of(variant_numbers(column) if variant else column)
        if width:
            widths[width] += len(column)
    if types:
        seen.type, seen.kind = types.most_common(1)[0][0], kinds.most_common(1)[0][0]
    seen.width = widths.most_common(1)[0][0] if widths else 0
    for column, variant in columns:
        _count(seen, column, variant=variant)
    return seen


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


def _count(seen: Seen, column: pa.Array, *, variant: bool) -> None:
    if seen.width:
        found = vectors.read_vectors(variant_numbers(column) if variant else column, seen.width)
        seen.wide += len(column) - int(found.missing.sum()) - len(found.faults)
        seen.floats = seen.floats or _float_vectors(column, seen.type, variant=variant)
    if seen.kind in ("numbers", "texts", "list", "other"):
        seen.present += sum(_types(column, variant=variant).values())
        return
    if variant:
        texts = variant_texts(column).filter(
            pc.fill_null(pc.not_equal(variant_types(column), "null"), fill_value=False)
        )
        texts = pc.utf8_trim(texts, '"') if seen.kind in ("uuid", "instant") else texts
    else:
        texts = values.metadata_texts(column.drop_null())
        texts = pc.utf8_trim(texts, '"') if seen.kind == "uuid" else texts
    texts = texts.filter(pc.not_equal(texts, ""))
    seen.present += len(texts)
    seen.characters += pc.sum(pc.utf8_length(texts)).as_py() or 0
    seen.spaced += pc.sum(pc.match_substring(texts, " ")).as_py() or 0
    seen.texts += pc.utf8_slice_codeunits(texts, 0, _HEAD).to_pylist()


def _float_vectors(column: pa.Array, name: str, *, variant: bool) -> bool:
    if variant:
        return name != "list<int64>"
    inner = getattr(column.type, "value_type", None)
    return inner is None or bool(
        pa.types.is_floating(inner)
    )  # a JSON text is taken for a list of floats


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


def _json_lists(batches: list[pa.RecordBatch], declared: dict[str, str]) -> dict[str, str]:
    """Find the columns of texts that are JSON lists of texts or of integers.

    Or else of numbers of any width.
    """
    found: dict[str, str] = {}
    for name in batches[0].schema.names:
        texts = pa.concat_arrays([batch.column(name) for batch in batches])
        if (
            name in declared
            or not pa.types.is_string(texts.type)
            or not pc.any(pc.match_substring_regex(texts, r"^\s*\[")).as_py()
        ):
            continue
        for wanted in ("list<string>", "list<int64>"):
            read, wrong = csv_types.convert(texts, csv_types.type_named(wanted))
            if not wrong and (
                wanted == "list<string>"
                or len(pc.unique(pc.list_value_length(read.drop_null()))) > 1
            ):
                found[name] = wanted
                break
    return found


def _with_types(batch: pa.RecordBatch, types: dict[str, str]) -> pa.RecordBatch:
    for name, wanted in types.items():
        read, _ = csv_types.convert(batch.column(name), csv_types.type_named(wanted))
        batch = batch.set_column(batch.schema.get_field_index(name), name, read)
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
    for wanted in ("int64", "double", "bool", "date32", "timestamp[us]", "timestamp[us, UTC]"):
        try:
            read, wrong = csv_types.convert(column, csv_types.type_named(wanted))
        except pa.ArrowInvalid:
            continue
        if not wrong and not read.null_count:
            written = pc.utf8_trim(values.metadata_texts(read), '"')
            return wanted, bool(written.equals(column))
    return None
