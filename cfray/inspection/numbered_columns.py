"""Vectors that are spread over numbered columns: ``v0`` to ``v383``.

No rule of a job file gathers columns, so a draft only says that they look like one vector.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from cfray.inspection.csv_columns import fitting_type
from cfray.inspection.field_samples import FieldSample

#: Fewest columns of a vector: fewer are answers, months or coordinates.
_FEWEST = 16
_NUMBERED = re.compile(r"(.*?)(\d+)")
#: Texts of a column that are read as numbers.
_LOOKED_AT = 20


def name_spread_vectors(fields: Sequence[FieldSample]) -> Iterator[str]:
    """Say which columns look like the numbers of one vector."""
    groups: dict[str, dict[int, str]] = {}
    for field in fields:
        numbered = _NUMBERED.fullmatch(field.path[0])
        if numbered and len(field.path) == 1 and len(numbered[2]) <= 5 and _holds_floats(field):
            groups.setdefault(numbered[1], {})[int(numbered[2])] = field.path[0]
    for columns in groups.values():
        first, last = min(columns), max(columns)
        if len(columns) >= _FEWEST and last - first + 1 == len(columns):
            yield (
                f"{columns[first]} to {columns[last]} look like a vector of {len(columns):,} "
                "numbers spread over columns, which no rule reads: the frames keep the numbers in "
                "custom_metadata and have no vector of them; write them as one list to have it"
            )


def _holds_floats(field: FieldSample) -> bool:
    if field.kind == "number":
        return True
    fitting = fitting_type(field.texts[:_LOOKED_AT]) if field.kind == "text" else None
    return fitting is not None and fitting[0] == "double"
