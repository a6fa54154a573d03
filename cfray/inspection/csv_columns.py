"""The types of CSV columns: a CSV file declares none, and cfray infers none without saying so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from cfray.formats import csv_types
from cfray.inspection import fieldnames
from cfray.inspection.field_samples import FieldSample
from cfray.inspection.guess import Guess
from cfray.inspection.samples import Sample
from cfray.records import values

_SCALAR_TYPES = ("int64", "double", "bool", "date32", "timestamp[us]", "timestamp[us, UTC]")


def find_list_types(sample: Sample, declared: Mapping[str, str]) -> dict[str, str]:
    """Find the columns whose texts are all JSON lists of texts, or of integers.

    Integer lists of one length are no lists here: they may be vectors.

    Returns:
        name of the column -> type of its lists.
    """
    types: dict[str, str] = {}
    for name, texts in _text_columns(sample.batches).items():
        if name in declared or not pc.any(pc.match_substring_regex(texts, r"^\s*\[")).as_py():
            continue
        for type_name in ("list<string>", "list<int64>"):
            lists, misfits = csv_types.convert_texts(texts, csv_types.parse_type(type_name))
            lengths = pc.unique(pc.list_value_length(lists.drop_null()))
            if not misfits and (type_name == "list<string>" or len(lengths) > 1):
                types[name] = type_name
                break
    return types


def _text_columns(batches: Sequence[pa.RecordBatch]) -> dict[str, pa.Array]:
    names = dict.fromkeys(name for batch in batches for name in batch.schema.names)
    columns = {
        name: [batch.column(name) for batch in batches if name in batch.schema.names]
        for name in names
    }
    return {
        name: pa.concat_arrays(arrays)
        for name, arrays in columns.items()
        if all(pa.types.is_string(array.type) for array in arrays)
    }


def with_types(batch: pa.RecordBatch, types: Mapping[str, str]) -> pa.RecordBatch:
    """Turn text columns into declared types; a text that does not fit becomes null."""
    for name, type_name in types.items():
        index = batch.schema.get_field_index(name)
        if index < 0 or not pa.types.is_string(batch.schema.field(index).type):
            continue
        converted, _ = csv_types.convert_texts(batch.column(index), csv_types.parse_type(type_name))
        batch = batch.set_column(index, name, converted)
    return batch


def guess_types(
    sample: Sample,
    declared: Mapping[str, str],
    list_types: Mapping[str, str],
    mapping: Sequence[Guess],
) -> Iterator[Guess]:
    """Propose types for lists, for further vectors, and for columns that no rule names.

    A type that loses a character of a text is only offered.
    """
    keys = {path[0]: guess.key for guess in mapping if guess.sure for path in guess.paths}
    for field in sample.fields:
        name = field.path[0]
        if name in declared:
            continue
        if name in list_types:
            why = "every sampled text is a JSON list" + (
                "; blanks between its items are not kept" if name in keys else ": kept as text"
            )
            yield Guess("source.types", list_types[name], why, sure=name in keys, name=name)
        elif name not in keys and (fitting := fitting_type(field.texts)):
            type_name, is_lossless = fitting
            sure = is_lossless and not is_name(field)
            doubt = "named like an id" if is_lossless else "some would not come back the same"
            why = (
                "every sampled text fits and comes back the same"
                if sure
                else f"would fit, but is kept as text: {doubt}"
            )
            yield Guess("source.types", type_name, why, sure=sure, name=name)


def is_name(field: FieldSample) -> bool:
    """Tell a field whose digits are a name and no number: ids, references, codes."""
    return bool(fieldnames.ID_LIKE.search(field.name) or fieldnames.REFERS.search(field.name))


def fitting_type(texts: list[str]) -> tuple[str, bool] | None:
    """Find the type that all texts of a CSV column fit.

    Returns:
        the type's name, and whether its values written as text are the very same texts; None where
        only text fits.
    """
    column = pa.array(texts, pa.string())
    if not texts:
        return None
    for type_name in _SCALAR_TYPES:
        try:
            converted, misfits = csv_types.convert_texts(column, csv_types.parse_type(type_name))
        except pa.ArrowInvalid:
            continue
        if not misfits and not converted.null_count:
            texts_again = pc.utf8_trim(values.metadata_texts(converted), '"')
            return type_name, bool(texts_again.equals(column))
    return None
