"""Which shape each record of a batch has, where the mapping has cases.

A record is of the first case whose condition holds, else of the mapping's own shape.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cfray.conversion.fields import Fields
from cfray.conversion.identity import is_present
from cfray.job.mapping import Case, Condition, Scalar
from cfray.records import values
from cfray.records.record import variant_texts

Mask = npt.NDArray[np.bool_]


def shape_numbers(fields: Fields, cases: list[Case]) -> npt.NDArray[np.int64]:
    """Give each record the number of its shape in ``Mapping.shapes``, ``(n,)``."""
    numbers = np.full(fields.rows, len(cases), np.int64)
    for number, case in reversed(list(enumerate(cases))):
        numbers[_holds(fields, case.when)] = number
    return numbers


def _holds(fields: Fields, condition: Condition) -> Mask:
    """Tell for which records a condition holds."""
    path = condition.path
    if condition.equals is None:
        is_there = is_present(fields, path)
        return is_there if condition.present else ~is_there
    column = fields.rule_column(path)
    if column is None:
        return np.zeros(fields.rows, np.bool_)
    texts = variant_texts(column) if path in fields.variants else values.metadata_texts(column)
    expected = condition.equals if isinstance(condition.equals, list) else [condition.equals]
    holds: Mask = pc.is_in(texts, pa.array(map(_text, expected), texts.type)).to_numpy(
        zero_copy_only=False
    )
    return holds


def _text(value: Scalar) -> str:
    """Write a value of the job file as custom_metadata shows values."""
    return str(values.metadata_texts(pa.array([value]))[0].as_py())
