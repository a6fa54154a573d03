"""Items of lists as fields: what the step ``data[0]`` of a path means.

A list of one item that a path leads into is opened as an object is: its parts become fields under
``data[0]``.  Any other list stays whole under its own path, and the fields are copies of what it
holds.  So no item is lost, and none is carried twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cfray.job.mapping import Path
from cfray.records.record import MISSING, parsed, variant_array, variant_texts, variant_types

Mask = npt.NDArray[np.bool_]

_STEP = re.compile(r"(?P<name>.+)\[(?P<number>\d{1,6})\]", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Items:
    """Some items of a column of lists.

    Attributes:
        columns: number of an item -> the item of each record; null (variants: missing) where the
            record has no list or a shorter one.
        is_opened: ``(n,)`` true where the items say all that the list holds.
    """

    columns: dict[int, pa.Array]
    is_opened: Mask


def has_steps(paths: Iterable[Path]) -> bool:
    """Tell whether a path leads to an item of a list."""
    return any(name.endswith("]") and _STEP.fullmatch(name) for path in paths for name in path)


def item_path(path: Path, number: int) -> Path:
    """Name an item of the list at a path."""
    return (*path[:-1], f"{path[-1]}[{number}]")


def numbers_below(path: Path, paths: Iterable[Path]) -> set[int]:
    """List the items of the list at ``path`` that ``paths`` lead to, by their numbers."""
    numbers = set()
    for other in paths:
        if len(other) < len(path) or other[: len(path) - 1] != path[:-1]:
            continue
        name, step = other[len(path) - 1], _STEP.fullmatch(other[len(path) - 1])
        while step is not None:
            if step["name"] == path[-1]:
                numbers.add(int(step["number"]))
            name = step["name"]
            step = _STEP.fullmatch(name)
    return numbers


def take_items(column: pa.Array, numbers: set[int], *, variant: bool) -> Items | None:
    """Take items out of a column of lists; None if the column holds no list."""
    if variant:
        return _variant_items(column, numbers)
    kind = column.type
    if not (
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    ):
        return None
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy().astype(np.int64)
    starts = np.cumsum(lengths) - lengths
    values = column.flatten()  # which leaves out what null lists take up
    columns = {
        number: values.take(pa.array(starts + number, mask=lengths <= number))
        for number in sorted(numbers)
    }
    is_opened = np.zeros(len(column), np.bool_)
    if numbers == {0}:
        is_opened = (lengths == 1) & columns[0].is_valid().to_numpy(zero_copy_only=False)
    return Items(columns, is_opened)


def _variant_items(column: pa.StructArray, numbers: set[int]) -> Items | None:
    """Take items out of the lists among variants."""
    kinds = variant_types(column)
    is_list = pc.fill_null(pc.starts_with(kinds, "list"), fill_value=False)
    if not pc.any(is_list).as_py():
        return None
    texts = pc.if_else(is_list, variant_texts(column), None).to_pylist()
    lists = [None if text is None else parsed(text) for text in texts]
    values = [value if isinstance(value, list) else [] for value in lists]
    columns = {
        number: variant_array(value[number] if number < len(value) else MISSING for value in values)
        for number in sorted(numbers)
    }
    is_opened = np.array(
        [numbers == {0} and len(value) == 1 and value[0] is not None for value in values], np.bool_
    )
    return Items(columns, is_opened)


def item_of(name: str) -> tuple[str, int] | None:
    """Read a name such as ``data[0]`` as a list and the number of an item; None if it is none."""
    step = _STEP.fullmatch(name)
    return None if step is None else (step["name"], int(step["number"]))
