"""Which of Arrow's types a format holds: its writer is asked."""

from __future__ import annotations

from functools import partial

import lance
import pyarrow as pa
import pyarrow.parquet as pq

from cfray.records.reading import build
from cfray.target.creation import STORAGE_VERSION
from cfray.transfers.exports.fields import Column, held_column


def held_columns(columns: list[Column], file_format: str) -> list[Column]:
    """Give columns types that a format has."""
    return [held_column(column, partial(_holds, file_format)) for column in columns]


def _holds(file_format: str, kind: pa.DataType) -> bool:
    """Tell whether a format has a type, by writing a null of it."""
    if pa.types.is_struct(kind) and not kind.num_fields:
        return False  # Lance writes those that are all null, or that none is
    table = pa.table({"c": build([None], kind)})
    try:
        if file_format == "parquet":
            pq.write_table(table, pa.BufferOutputStream())
        elif file_format == "lance":
            lance.write_dataset(
                table, "memory://type", mode="overwrite", data_storage_version=STORAGE_VERSION
            )
    except (pa.ArrowException, OSError, ValueError):
        return False
    return True
