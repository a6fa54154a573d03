"""custom_metadata: everything of a record that no column took, and the types of what deviates.

The last step of a batch's conversion: it must know what every column used.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cfray.conversion.columns import Columns
from cfray.frames.schema import ORIGINAL_ID, TYPES_KEY, metadata_lists
from cfray.job.mapping import Fields, Path, dotted
from cfray.records import values
from cfray.records.record import canonical, variant_texts, variant_types

_RESERVED = (ORIGINAL_ID, TYPES_KEY)

#: Row number -> key -> type name, for the values that have not the type the dataset records.
Deviating = dict[int, dict[str, str]]


def metadata(columns: Columns, ids: pa.StringArray) -> pa.ListArray:
    """Pack every field that no column took, the original id.

    The types of values that deviate.
    """
    keys: list[str] = []
    texts: list[pa.StringArray] = []
    deviating: Deviating = {}
    for path, column in columns.fields.columns.items():
        key = metadata_key(path, columns.fields)
        _note_types(columns, (key, path), column, deviating)
        taken = columns.taken.get(path, False)
        if taken is None:
            continue
        text = (
            variant_texts(column)
            if path in columns.fields.variants
            else values.metadata_texts(column)
        )
        if taken is not False:
            text = pc.if_else(pa.array(taken), None, text)
        keys.append(key)
        texts.append(text)
    for path, column in columns.fields.opened.items():
        for row in pc.indices_nonzero(column.is_null()).to_pylist():
            deviating.setdefault(row, {})[dotted(path)] = "null"
    _note_replaced(columns, deviating)
    keys.append(ORIGINAL_ID)
    texts.append(ids)
    if deviating:
        keys.append(TYPES_KEY)
        texts.append(
            pa.array(
                [
                    canonical(deviating[row]) if row in deviating else None
                    for row in range(columns.fields.rows)
                ],
                pa.string(),
            )
        )
    return metadata_lists(keys, texts, columns.fields.rows)


def _note_types(
    columns: Columns, named: tuple[str, Path], column: pa.Array, deviating: Deviating
) -> None:
    """Note the rows whose value has another type than the dataset records for its key."""
    key, path = named
    declared = columns.layout.types.get(key)
    if path in columns.fields.variants:
        kinds = variant_types(column)
        differs = (
            pc.fill_null(pc.not_equal(kinds, declared), kinds.is_valid())
            if declared is not None
            else kinds.is_valid()
        )
        for row in pc.indices_nonzero(differs).to_pylist():
            deviating.setdefault(row, {})[key] = kinds[row].as_py()
        return
    own = values.type_name(column.type)
    if own != declared:
        for row in pc.indices_nonzero(column.is_valid()).to_pylist():
            deviating.setdefault(row, {})[key] = own


def _note_replaced(columns: Columns, deviating: Deviating) -> None:
    """Note the rows in which a column shows something although the source had null.

    Or had no such key.
    """
    word = "null" if columns.layout.fixed else "missing"
    for path, rows in columns.nulls.items():
        key = metadata_key(path, columns.fields)
        if key not in columns.layout.types:
            # nobody restores a key that has no type: neither the dataset's nor, where the row has a
            # value after all, the row's own
            continue
        for row in np.flatnonzero(rows).tolist():
            deviating.setdefault(row, {}).setdefault(key, word)


def metadata_key(path: Path, fields: Fields) -> str:
    """Name a field in custom_metadata.

    Its dotted path, behind ``source.`` where that name would be ambiguous or is cfray's own.
    """
    key = dotted(path)
    literal = len(path) == 1 and "." in key and key.split(".", 1)[0] in fields.entered
    return f"source.{key}" if literal or key.rpartition("source.")[2] in _RESERVED else key
