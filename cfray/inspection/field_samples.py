"""What a sample holds of each field: its type, its texts, its vectors.

Guesses are made of these figures.  Decides nothing: it counts.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc

from cfray.conversion import dates
from cfray.conversion.fields import Fields
from cfray.inspection import text_looks
from cfray.inspection.plain_names import plain_name
from cfray.inspection.vector_probe import Probe, probe_vectors
from cfray.job.mapping import Path
from cfray.records import values
from cfray.records.record import variant_texts, variant_types

#: Characters of each text that the sample keeps.
_TEXT_HEAD = 400

#: Type name of a variant -> kind of field.
_VARIANT_KINDS = {
    "string": "text",
    "int64": "integer",
    "uint64": "integer",
    "integer": "integer",
    "double": "number",
    "bool": "bool",
    "uuid": "uuid",
    "objectId": "text",
    "date": "instant",
    "binary": "binary",
    "float": "number",
    "int8": "integer",
    "int16": "integer",
    "int32": "integer",
    "list<string>": "texts",
    "list<double>": "numbers",
    "list<int64>": "numbers",
    "list": "list",
}


@dataclass
class FieldSample:
    """One field and what the sample holds of it.

    Attributes:
        path: of the field.
        type: its Arrow type, or the commonest type of its values where they are variants.
        kind: text, integer, decimal, number, bool, instant, uuid, binary; texts, numbers or list
            for lists; else other.
        present: records in which it is neither missing nor null nor an empty text.
        texts: the values' canonical texts, their first ``_TEXT_HEAD`` characters; none for lists
            of numbers.
        characters: in all texts.
        probe: what reading its values as vectors gives.
        has_floats: whether the vectors' numbers are floats.
    """

    path: Path
    type: str = ""
    kind: str = "other"
    present: int = 0
    texts: list[str] = field(default_factory=list)
    characters: int = 0
    probe: Probe = field(default_factory=Probe)
    has_floats: bool = False

    @cached_property
    def name(self) -> str:
        """Give the last name of the path as ``plain_name`` writes it."""
        return plain_name(self.path[-1])

    @property
    def mean_length(self) -> float:
        """Give the average length of its texts in characters."""
        return self.characters / self.present if self.present else 0.0

    @property
    def dimension(self) -> int:
        """Count the numbers in most of its vectors; 0 if it holds none."""
        return self.probe.dimension

    @property
    def vectors(self) -> int:
        """Count the records whose vector has that dimension and only finite numbers."""
        return self.probe.vectors

    @cached_property
    def prose(self) -> int:
        """Count the texts that read as prose."""
        return sum(map(text_looks.is_prose, self.texts))

    @cached_property
    def data(self) -> int:
        """Count the texts that are JSON, base64, numbers and the like."""
        return sum(map(text_looks.is_data, self.texts))

    @cached_property
    def dates(self) -> int:
        """Count the texts that read as instants."""
        days = dates.days(pa.array(self.texts, pa.string()))
        return len(days) - int(days.null_count)


def sample_field(path: Path, batches: list[Fields]) -> FieldSample:
    """Count what batches hold of one field."""
    columns = [
        (fields.columns[path], path in fields.variants)
        for fields in batches
        if path in fields.columns
    ]
    types: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    for column, variant in columns:
        names = _types(column, variant=variant)
        types.update(names)
        for name, count in names.items():
            kinds[_VARIANT_KINDS.get(name, "other") if variant else kind_of(column.type)] += count
    sample = FieldSample(path)
    if types:
        sample.type = types.most_common(1)[0][0]
        sample.kind = kinds.most_common(1)[0][0]
    for column, variant in columns:
        _count(sample, column, variant=variant)
    sample.probe = probe_vectors([column for column, _ in columns], sample.kind)
    sample.has_floats = any(
        _holds_floats(column, sample.type, variant=variant) for column, variant in columns
    )
    return sample


def _types(column: pa.Array, *, variant: bool) -> Counter[str]:
    """Count the types of the values that are present."""
    if variant:
        return Counter(
            name for name in variant_types(column).to_pylist() if name not in (None, "null")
        )
    present = len(column) - column.null_count
    return Counter({str(column.type): present} if present else {})


def _count(sample: FieldSample, column: pa.Array, *, variant: bool) -> None:
    """Count the values of one batch's column."""
    if sample.kind in ("numbers", "texts", "list", "other"):
        sample.present += sum(_types(column, variant=variant).values())
        return
    if variant:
        is_present = pc.fill_null(pc.not_equal(variant_types(column), "null"), fill_value=False)
        texts = variant_texts(column).filter(is_present)
    else:
        texts = values.metadata_texts(column.filter(column.is_valid()))
    if sample.kind in ("uuid", "instant"):
        texts = pc.utf8_trim(texts, '"')
    texts = texts.filter(pc.not_equal(texts, ""))
    sample.present += len(texts)
    sample.characters += pc.sum(pc.utf8_length(texts)).as_py() or 0
    sample.texts += pc.utf8_slice_codeunits(texts, 0, _TEXT_HEAD).to_pylist()


def _holds_floats(column: pa.Array, type_name: str, *, variant: bool) -> bool:
    """Tell whether lists hold floats; whatever is no list of integers counts as floats."""
    if variant:
        return type_name != "list<int64>"
    item_type = getattr(column.type, "value_type", None)
    return item_type is None or not pa.types.is_integer(item_type)


def kind_of(kind: pa.DataType) -> str:
    """Name the kind of an Arrow type."""
    if isinstance(kind, pa.DictionaryType):
        return kind_of(kind.value_type)
    if isinstance(kind, pa.UuidType):
        return "uuid"
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return {"text": "texts", "integer": "numbers", "number": "numbers"}.get(
            kind_of(kind.value_type), "list"
        )
    tests = {
        "text": (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view),
        "integer": (pa.types.is_integer,),
        "decimal": (pa.types.is_decimal,),
        "number": (pa.types.is_floating,),
        "bool": (pa.types.is_boolean,),
        "instant": (pa.types.is_date, pa.types.is_timestamp),
        "binary": (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary),
    }
    return next(
        (name for name, checks in tests.items() if any(check(kind) for check in checks)), "other"
    )
