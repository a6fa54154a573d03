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
    return first_that_holds([_holds(fields, case.when) for case in cases], fields.rows)


def first_that_holds(holds: list[Mask], rows: int) -> npt.NDArray[np.int64]:
    """Give each row the number of the first mask in which it is true, else their count."""
    numbers = np.full(rows, len(holds), np.int64)
    for number, mask in reversed(list(enumerate(holds))):
        numbers[mask] = number
    return numbers


def _holds(fields: Fields, condition: Condition) -> Mask:
    """Tell for which records a condition holds."""
    path = condition.path
    column = fields.rule_column(path)
    if column is None:
        texts: pa.StringArray = pa.nulls(fields.rows, pa.string())
    else:
        is_variant = path in fields.variants
        texts = variant_texts(column) if is_variant else values.metadata_texts(column)
    return condition_holds(condition, texts, is_present(fields, path))


def condition_holds(condition: Condition, texts: pa.StringArray, is_there: Mask) -> Mask:
    """Tell where a condition holds.

    Args:
        condition: of a case.
        texts: the field's values as custom_metadata shows them; null where there is none.
        is_there: rows in which the field is neither missing nor null.
    """
    if condition.equals is None:
        return is_there if condition.present else ~is_there
    expected = condition.equals if isinstance(condition.equals, list) else [condition.equals]
    holds: Mask = pc.is_in(texts, pa.array(map(_text, expected), texts.type)).to_numpy(
        zero_copy_only=False
    )
    return holds


def _text(value: Scalar) -> str:
    """Write a value of the job file as custom_metadata shows values."""
    return str(values.metadata_texts(pa.array([value]))[0].as_py())
