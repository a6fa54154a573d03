"""Fields that look like vectors and that no rule takes, where records have no primary vector.

Such a field lands in custom_metadata, and its records get zero vectors: nothing is lost, and yet it
is hardly what anyone wants.  So the plan names the field and the rule that would read it.  A guess
is never acted upon.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cfray.conversion.fields import Fields
from cfray.job.mapping import Path, dotted
from cfray.records import values
from cfray.records.record import variant_texts
from cfray.records.vector_bytes import numbers_of_bytes
from cfray.records.vector_forms import Numbers, UnreadableVectorError, VectorForm
from cfray.records.vector_texts import numbers_of_json, numbers_of_text

#: Values of a field that are looked at.
_LOOKED_AT = 20
#: Numbers that a vector has at least, so that a position or a colour is not taken for one.
_LEAST_WIDTH = 8
#: Widths that the vectors of a field may have; lists of tokens have more.
_MOST_WIDTHS = 3
#: Levels of objects and lists that are searched.
_DEPTH = 8
#: Forms in the order in which they are tried.  The narrowest bytes come last: float16 gives
#: plausible numbers for more bytes than the others do.
_TEXT_FORMS: tuple[VectorForm, ...] = ("auto", "separated", "base64", "doubles")
_BLOB_FORMS: tuple[VectorForm, ...] = ("auto", "npy", "floats", "doubles", "halves")
#: Magnitudes that the numbers of a vector have, except for zeros.
_PLAUSIBLE = (1e-7, 1e4)


def vector_hints(sample: list[Fields], mapped_paths: set[Path]) -> list[tuple[str, str]]:
    """Find the fields that look like vectors.

    Args:
        sample: batches of records.
        mapped_paths: paths that a rule takes.

    Returns:
        for each field what it looks like, and the rule that would read it.
    """
    hints: dict[str, str] = {}
    looks: dict[str, str] = {}
    for fields in sample:
        for path, column in fields.columns.items():
            if path in mapped_paths:
                continue
            for name, form, width in _candidates(path, column, fields):
                looks.setdefault(name, f"{name} looks like a vector of {width} numbers")
                rule = name if form == "auto" else f"{{path: {name}, as: {form}}}"
                hints.setdefault(name, rule)
    return [(looks[name], hints[name]) for name in hints]


def _candidates(
    path: Path, column: pa.Array, fields: Fields
) -> Iterator[tuple[str, VectorForm, int]]:
    """Give the fields at and below a path that look like vectors: name, form, width."""
    head = column.filter(column.is_valid()).slice(0, _LOOKED_AT)
    if not len(head):
        return
    cells: list[object]
    if path in fields.variants:
        cells = [_parsed(text) for text in variant_texts(head).to_pylist()]
    elif pa.types.is_nested(head.type):
        cells = [json.loads(text) for text in values.json_texts(head).to_pylist()]
    elif (
        _is_blob(head.type) or pa.types.is_string(head.type) or pa.types.is_large_string(head.type)
    ):
        cells = head.to_pylist()
    else:
        return
    for name, inner in _leaves(dotted(path), cells, _DEPTH):
        form = likely_form(inner)
        if form is not None:
            yield name, *form


def _is_blob(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
    )


def _parsed(text: str) -> object:
    """Read the text of a variant: JSON, or a string as it is."""
    try:
        value: object = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, dict | list) else text


def _leaves(name: str, cells: list[object], depth: int) -> Iterator[tuple[str, list[object]]]:
    """Give the values at a path, or those below it where they are objects or lists of objects."""
    objects = [cell for cell in cells if isinstance(cell, dict)]
    if objects and depth and likely_form(cells) is None:
        for key in dict.fromkeys(key for item in objects for key in item):
            yield from _leaves(f"{name}.{key}", [i[key] for i in objects if key in i], depth - 1)
        return
    lists = [cell for cell in cells if isinstance(cell, list) and cell]
    is_nested = lists and all(isinstance(item[0], dict) for item in lists)
    if is_nested and depth and likely_form(cells) is None:
        yield from _leaves(f"{name}[0]", [item[0] for item in lists], depth - 1)
        return
    yield name, cells


def likely_form(cells: Iterable[object]) -> tuple[VectorForm, int] | None:
    """Guess how the vectors of a field are written.

    Args:
        cells: some values of the field: texts, bytes or parsed JSON.

    Returns:
        the form, and the width that most values have in it; None if they look like no vectors.
    """
    present = [cell for cell in cells if cell not in (None, "", [], b"")]
    if not present:
        return None
    is_blob, is_text = isinstance(present[0], bytes), isinstance(present[0], str)
    forms = _BLOB_FORMS if is_blob else _TEXT_FORMS if is_text else _TEXT_FORMS[:1]
    for form in forms:
        read = [numbers for cell in present if (numbers := _numbers(cell, form)) is not None]
        widths = Counter(len(numbers) for numbers in read)
        if not widths:
            continue
        width, count = widths.most_common(1)[0]
        is_of_one_width = count > len(present) / 2
        is_of_few = len(widths) <= _MOST_WIDTHS and sum(widths.values()) > 0.9 * len(present)
        if width < _LEAST_WIDTH or not (is_of_one_width or is_of_few):
            continue
        if form in ("auto", "separated") or _are_plausible(read):
            return form, width
    return None


def _numbers(cell: object, form: VectorForm) -> Numbers:
    """Read a value in a form; None where that fails."""
    try:
        if isinstance(cell, bytes):
            return numbers_of_bytes(cell, form)
        return numbers_of_text(cell, form) if isinstance(cell, str) else numbers_of_json(cell)
    except (UnreadableVectorError, OverflowError):
        return None


def _are_plausible(read: Sequence[Sequence[float] | npt.NDArray[np.generic]]) -> bool:
    """Tell whether decoded bytes look like the numbers of vectors, not like other bytes.

    Numbers of a vector have few magnitudes and are mostly different.
    """
    with np.errstate(invalid="ignore"):  # a signalling NaN becomes a quiet one
        numbers = np.concatenate([np.asarray(vector, np.float64) for vector in read])
    if not np.isfinite(numbers).all() or len(np.unique(numbers)) < len(read[0]) / 2:
        return False
    sizes = np.abs(numbers[numbers != 0])
    least, largest = _PLAUSIBLE
    return bool(len(sizes) and ((sizes > least) & (sizes < largest)).mean() > 0.99)
