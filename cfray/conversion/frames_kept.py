"""Records that are frames already: what the conversion takes over of them as it is.

The rules of ``FRAME_MAPPING`` find a frame's id and its vector, and refuse what does not fit, as
those of any source do.  The columns themselves are the record's.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from cfray.conversion.fields import Fields


def kept_columns(fields: Fields, schema: pa.Schema) -> dict[str, pa.Array]:
    """Give the columns of the target that the records have, in the target's types.

    Args:
        fields: of the records.
        schema: of the target's frames.
    """
    return {
        field.name: kept_column(fields, field.name).cast(field.type)
        for field in schema
        if (field.name,) in fields.columns and field.name != "vector"
    }


def kept_column(fields: Fields, name: str) -> pa.Array:
    """Give a column of the records; nulls where they have none.  A title is never null."""
    column = fields.columns.get((name,))
    if column is None:
        return pa.nulls(fields.rows, pa.string())
    return pc.fill_null(column, "") if name == "title" else column
