"""Arrays of the types that rows have behind the door, made of arrays of any Arrow type.

``arrow_types`` says which type stands for which.  Values stay what they are: a view is copied, a
dictionary and runs are written out, an extension array gives its storage, a union becomes variants.
Arrow's own casts are used only where they were found exact; pyarrow 26.0.1 loses values when it
casts a list view to a list.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types as kinds

from cfray.formats.arrow_types import child_fields, holds_union, normal_type
from cfray.records import values
from cfray.records.record import VARIANT

#: Bytes of an offset, a length or an item that is written out, beside its own bytes.
_ENTRY_BYTES = 8


def normal_array(array: pa.Array, kind: pa.DataType) -> pa.Array:
    """Make the array that stands for an array behind the door.

    Args:
        array: of any type, whole or sliced.
        kind: its normal type, as ``normal_type`` gives it.

    Raises:
        ArrowInvalid: the array's buffers contradict each other.
    """
    if array.type.equals(kind):
        return array
    for test, make in _MAKERS:
        if test(array.type):
            return make(array, kind)
    return array.cast(kind)


def _normal_nested(array: pa.Array, kind: pa.DataType) -> pa.Array:
    """Make lists, maps or structs whose children are normal."""
    if kinds.is_struct(kind):
        fields = child_fields(kind)
        columns = [
            normal_array(array.field(index), field.type) for index, field in enumerate(fields)
        ]
        mask = array.is_null() if array.null_count else None
        return pa.StructArray.from_arrays(columns, fields=fields, mask=mask)
    if kinds.is_fixed_size_list(kind):
        return _fixed_size_lists(array, kind)
    if kinds.is_list_view(array.type) or kinds.is_large_list_view(array.type):
        items, starts = _view_items(array)
    else:
        items, starts = _items(array)
    mask = array.is_null() if array.null_count else None
    if kinds.is_map(kind):
        keys, texts = (
            normal_array(items.field(index), field.type)
            for index, field in enumerate(child_fields(kind))
        )
        return pa.MapArray.from_arrays(
            pa.array(starts, pa.int32()), keys, texts, type=kind, mask=mask
        )
    list_class, offset_type = (
        (pa.LargeListArray, pa.int64()) if kinds.is_large_list(kind) else (pa.ListArray, pa.int32())
    )
    return list_class.from_arrays(
        pa.array(starts, offset_type), normal_array(items, kind.value_type), type=kind, mask=mask
    )


def _fixed_size_lists(array: pa.FixedSizeListArray, kind: pa.DataType) -> pa.Array:
    items, _ = _items(array)
    if kind.list_size:
        mask = array.is_null() if array.null_count else None
        return pa.FixedSizeListArray.from_arrays(
            normal_array(items, kind.value_type), type=kind, mask=mask
        )
    # Lists without items do not say how many they are.
    validity = array.buffers()[0]
    return pa.Array.from_buffers(
        kind,
        len(array),
        [validity],
        offset=array.offset,
        children=[normal_array(items, kind.value_type)],
    )


def _items(array: pa.Array) -> tuple[pa.Array, npt.NDArray[np.int64]]:
    """Give the items of lists, or the entries of maps, and where each list begins.

    The items that null lists hide are among them: nothing is copied.
    """
    if kinds.is_fixed_size_list(array.type):
        offsets = (np.arange(len(array) + 1) + array.offset) * array.type.list_size
    else:
        offsets = np.asarray(array.offsets).astype(np.int64)
    return array.values.slice(offsets[0], offsets[-1] - offsets[0]), offsets - offsets[0]


def _view_items(array: pa.Array) -> tuple[pa.Array, npt.NDArray[np.int64]]:
    """Give the items of list views one list after the other, and where each list begins."""
    sizes = np.where(array.is_valid(), array.sizes, 0).astype(np.int64)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    places = np.repeat(np.asarray(array.offsets) - starts[:-1], sizes) + np.arange(starts[-1])
    kind = normal_type(array.type.value_type)
    return normal_array(array.values, kind).take(pa.array(places, pa.int64())), starts


def _run_numbers(array: pa.RunEndEncodedArray) -> pa.Array:
    """Say for each row which run it belongs to."""
    rows = np.arange(len(array)) + array.offset
    return pa.array(np.searchsorted(np.asarray(array.run_ends), rows, "right"))


def union_variants(array: pa.Array) -> pa.StructArray:
    """Make variants of a union, or of values that hold unions; null gives a missing value."""
    names: pa.Array = (
        _member_names(array)
        if kinds.is_union(array.type)
        else pa.repeat(values.type_name(array.type), len(array))
    )
    # Only the text of a string stands without quotes.
    is_text = pc.equal(names, "string")
    texts = pc.if_else(is_text, values.metadata_texts(array), values.json_texts(array))
    children = [
        pc.if_else(texts.is_valid(), names, pa.scalar(None, pa.string())),
        texts,
        pa.nulls(len(array), pa.list_(pa.float64())),
    ]
    mask = texts.is_null()
    return pa.StructArray.from_arrays(children, fields=list(VARIANT), mask=mask)


def _member_names(array: pa.UnionArray) -> pa.StringArray:
    """Name the type of each value of a union; a text is a ``string``, as variants call it."""
    names: list[str] = [""] * 128  # type codes are 0 to 127
    for code, member in zip(array.type.type_codes, child_fields(array.type), strict=True):
        kind = member.type if holds_union(member.type) else normal_type(member.type)
        is_text = kinds.is_string(kind) or kinds.is_large_string(kind)
        names[code] = "string" if is_text else values.type_name(member.type)
    # The type codes of a slice are those of the whole array in pyarrow 26.0.1.
    codes = np.frombuffer(array.buffers()[1], np.int8)[array.offset : array.offset + len(array)]
    return pa.array(names, pa.string()).take(pa.array(codes))


def expands(kind: pa.DataType) -> bool:
    """Tell whether values of a type may share bytes that are written out for each of them."""
    if isinstance(kind, pa.BaseExtensionType):
        return expands(kind.storage_type)
    shares = (
        kinds.is_dictionary,
        kinds.is_run_end_encoded,
        kinds.is_list_view,
        kinds.is_large_list_view,
    )
    return any(test(kind) for test in shares) or any(
        expands(field.type) for field in child_fields(kind)
    )


def expanded_bytes(array: pa.Array) -> int:
    """Estimate the bytes of an array once it is normal; exact where the shared values are texts."""
    kind = array.type
    if holds_union(kind):
        # pyarrow 26.0.1 dies in ``nbytes`` of a fixed-size list of unions.
        return int(array.get_total_buffer_size())
    if not expands(kind):
        return int(array.nbytes)
    return next(count(array) for test, count in _COUNTERS if test(kind))


def _list_bytes(array: pa.Array) -> int:
    return len(array) * _ENTRY_BYTES + expanded_bytes(_items(array)[0])


def _struct_bytes(array: pa.StructArray) -> int:
    return sum(expanded_bytes(array.field(index)) for index in range(array.type.num_fields))


def _view_bytes(array: pa.Array) -> int:
    sizes = np.where(array.is_valid(), array.sizes, 0).astype(np.int64)
    item_bytes = expanded_bytes(array.values) / max(1, len(array.values))
    return int(sizes.sum() * item_bytes) + len(array) * _ENTRY_BYTES


def _shared_bytes(shared: pa.Array, places: pa.Array) -> int:
    """Add up the bytes of the shared values that stand at these places."""
    kind = shared.type
    if kinds.is_string(kind) or kinds.is_large_string(kind) or kinds.is_binary(kind):
        lengths = pc.binary_length(shared).take(places)
        return len(places) * _ENTRY_BYTES + int(pc.sum(lengths).as_py() or 0)
    return int(len(places) * expanded_bytes(shared) / max(1, len(shared)))


_Test = Callable[[pa.DataType], bool]
_MAKERS: tuple[tuple[_Test, Callable[[pa.Array, pa.DataType], pa.Array]], ...] = (
    (
        kinds.is_dictionary,
        lambda array, kind: normal_array(array.dictionary, kind).take(array.indices),
    ),
    (
        kinds.is_run_end_encoded,
        lambda array, kind: normal_array(array.values, kind).take(_run_numbers(array)),
    ),
    (
        lambda kind: isinstance(kind, pa.UuidType),
        lambda array, _: pc.utf8_slice_codeunits(values.json_texts(array), 1, -1),
    ),
    (
        lambda kind: isinstance(kind, pa.BaseExtensionType),
        lambda array, kind: normal_array(array.storage, kind),
    ),
    (
        kinds.is_string_view,
        # As bytes, for a cast of texts refuses the whole column where one of them is not UTF-8.
        lambda array, kind: array.view(pa.binary_view()).cast(pa.binary()).view(kind),
    ),
    (kinds.is_nested, _normal_nested),
)
_COUNTERS: tuple[tuple[_Test, Callable[[pa.Array], int]], ...] = (
    (
        kinds.is_dictionary,
        lambda array: _shared_bytes(array.dictionary, array.indices.drop_null()),
    ),
    (kinds.is_run_end_encoded, lambda array: _shared_bytes(array.values, _run_numbers(array))),
    (
        lambda kind: isinstance(kind, pa.BaseExtensionType),
        lambda array: expanded_bytes(array.storage),
    ),
    (kinds.is_struct, _struct_bytes),
    (kinds.is_list_view, _view_bytes),
    (kinds.is_large_list_view, _view_bytes),
    (lambda _: True, _list_bytes),
)
