"""custom_metadata: every value of a record that no column shows, and the types that deviate.

The last step of a batch's conversion, for it must know what every column shows.  The dataset
records the type of each field once; a value of another type has its type recorded in its row, under
``TYPES_KEY``, so that an export can give back what the source held.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cfray.conversion.rule_reader import RuleReader
from cfray.frames.schema import ORIGINAL_ID, TYPES_KEY, pack_metadata
from cfray.job.mapping import Path
from cfray.records import values
from cfray.records.record import canonical, variant_texts, variant_types

#: Row number -> key -> name of the type that the row's value has instead of the dataset's.
RowTypes = dict[int, dict[str, str]]


def metadata(reader: RuleReader, ids: pa.StringArray) -> pa.ListArray:
    """Pack every value that no column shows, the original id, and the types that deviate.

    Args:
        reader: knows the fields of the batch and what the columns show of them.
        ids: the original id of each record.
    """
    keys: list[str] = []
    texts: list[pa.StringArray] = []
    row_types: RowTypes = {}
    for path, column in reader.fields.columns.items():
        if path in reader.fields.file_paths:
            continue
        key = reader.fields.metadata_key(path)
        _note_types(reader, path, column, row_types)
        if path in reader.shown and reader.shown[path] is None:
            continue
        keys.append(key)
        texts.append(_unshown_texts(reader, path, column))
    for path, column in reader.fields.structs.items():
        for row in pc.indices_nonzero(column.is_null()).to_pylist():
            row_types.setdefault(row, {})[reader.fields.metadata_key(path)] = "null"
    _note_replaced_nulls(reader, row_types)
    keys.append(ORIGINAL_ID)
    texts.append(ids)
    if row_types:
        rows = range(reader.fields.rows)
        types = [canonical(row_types[row]) if row in row_types else None for row in rows]
        keys.append(TYPES_KEY)
        texts.append(pa.array(types, pa.string()))
    return pack_metadata(keys, texts, reader.fields.rows)


def _unshown_texts(reader: RuleReader, path: Path, column: pa.Array) -> pa.StringArray:
    """Write a field's values, null in the rows in which a column shows them."""
    is_variant = path in reader.fields.variants
    texts = variant_texts(column) if is_variant else values.metadata_texts(column)
    shown = reader.shown.get(path)
    return texts if shown is None else pc.if_else(pa.array(shown), None, texts)


def _note_types(reader: RuleReader, path: Path, column: pa.Array, row_types: RowTypes) -> None:
    """Note the rows whose value has another type than the dataset records for its key."""
    key = reader.fields.metadata_key(path)
    recorded = reader.shape.types.get(key)
    if path in reader.fields.variants:
        kinds = variant_types(column)
        differs = kinds.is_valid()
        if recorded is not None:
            differs = pc.fill_null(pc.not_equal(kinds, recorded), differs)
        copied = reader.fields.copied_rows(path)
        for row in pc.indices_nonzero(differs).to_pylist():
            if copied is None or not copied[row]:
                row_types.setdefault(row, {})[key] = kinds[row].as_py()
        return
    name = reader.fields.type_name(path)
    if recorded is None or values.unencoded_name(name) != values.unencoded_name(recorded):
        for row in pc.indices_nonzero(column.is_valid()).to_pylist():
            row_types.setdefault(row, {})[key] = name


def _note_replaced_nulls(reader: RuleReader, row_types: RowTypes) -> None:
    """Note the rows in which a column shows something although the source had no value."""
    name = "null" if reader.shape.fixed else "missing"
    for path, rows in reader.replaced_nulls.items():
        key = reader.fields.metadata_key(path)
        if key not in reader.shape.types:
            # An export restores no key without a type: neither the dataset records a type, nor
            # does the row, where it has a value after all.
            continue
        for row in np.flatnonzero(rows).tolist():
            row_types.setdefault(row, {}).setdefault(key, name)
