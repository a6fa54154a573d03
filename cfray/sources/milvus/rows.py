"""Rows of bulk-writer files as the records that a live read gives: the same types and vectors.

A column is an Arrow type (Parquet) or a variant (JSON); where that does not show a field's
type, what the job file says of the field decides.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cfray.formats import points
from cfray.formats.columns import interleave
from cfray.formats.jsontext import InexactJson, parse_json
from cfray.records.record import (
    MISSING,
    Reject,
    Typed,
    is_variant,
    parsed,
    variant_array,
    variant_texts,
    variant_types,
)
from cfray.records.types import SPARSE
from cfray.sources.milvus.field_samples import is_halves, is_list_like, present_rows
from cfray.sources.milvus.schema import DENSE, Field, is_main_vector
from cfray.sources.milvus.types import DYNAMIC, join_columns
from cfray.sources.milvus.vectors import widen_bfloat16

#: Kind -> the recorded type of its numbers, where parsed JSON would call them otherwise.
_NUMBER_TYPES = {"Int8": "int8", "Int16": "int16", "Int32": "int32", "Float": "float"}
#: Characters of a primary key that a reject shows.
_SHOWN_KEY = 80

#: Row number -> why the row cannot become a record.
Reasons = dict[int, str]


def build_records(
    batch: pa.RecordBatch, primary: str, fields: Mapping[str, Field], position: str
) -> Iterator[pa.RecordBatch | Reject]:
    """Make records of rows, and a Reject for each row that cannot become a record.

    Args:
        batch: a file's columns, as they are in it.
        primary: the field that is the record's id.
        fields: the fields whose type is known, by name.
        position: where the batch stands.
    """
    reasons: Reasons = {}
    dynamic_keys: list[object] = [None] * len(batch)
    declared: dict[str, pa.StructArray] = {}
    for name in batch.schema.names:
        file_field, column, field = batch.schema.field(name), batch[name], fields.get(name)
        if name == DYNAMIC:
            dynamic_keys = _read_values(Field(name, "JSON"), file_field, column, reasons)
        elif name != primary and not (field and field.is_vector):
            declared[name] = variant_array(_read_values(field, file_field, column, reasons))
    vectors = _build_vectors(batch, fields, reasons)
    for row, content in enumerate(dynamic_keys):
        if isinstance(content, str):
            dynamic_keys[row] = _parse_json(DYNAMIC, row, content, reasons)
        if not (dynamic_keys[row] in (None, MISSING) or isinstance(dynamic_keys[row], dict)):
            reasons[row] = f"field {DYNAMIC}: no object of keys"
    ids = batch[primary] if primary in batch.schema.names else variant_array([MISSING] * len(batch))
    records = join_columns(ids, vectors, dynamic_keys, declared)
    good_rows = [row for row in range(len(batch)) if row not in reasons]
    rejects = (
        (row, _reject(batch, primary, row, reasons[row], position)) for row in sorted(reasons)
    )
    yield from interleave(good_rows, records.take(pa.array(good_rows, pa.int64())), rejects)


def _build_vectors(
    batch: pa.RecordBatch, fields: Mapping[str, Field], reasons: Reasons
) -> dict[str, pa.Array]:
    """Make the columns of all vectors that the files have, also of those that this batch lacks."""
    vector_fields = [field for field in fields.values() if field.is_vector]
    vectors: dict[str, pa.Array] = {}
    for field in vector_fields:
        key = "" if is_main_vector(field, vector_fields) else field.name
        is_here = field.name in batch.schema.names
        if field.is_dense and not field.dimension:
            # the first value of the files, if there is any, is no list of numbers
            for row in present_rows(batch, field.name) if is_here else ():
                reasons[row] = f"field {field.name}: no list of numbers, as its first value is none"
            continue
        if not is_here:
            vectors[key] = pa.nulls(len(batch), field.arrow if field.is_dense else SPARSE)
            continue
        build = _dense_column if field.is_dense else _sparse_column
        file_field = batch.schema.field(field.name)
        vectors[key] = build(field, file_field, batch[field.name], reasons)
    return vectors


def _reject(batch: pa.RecordBatch, primary: str, row: int, reason: str, position: str) -> Reject:
    content = {
        name: value
        for name in batch.schema.names
        if (value := _plain_value(batch, name, row)) is not MISSING
    }
    key = str(content.get(primary, "?"))[:_SHOWN_KEY]
    text = json.dumps(content, ensure_ascii=False, default=str)
    return Reject(reason, f"{position}: {key}", text.encode(errors="surrogatepass"))


def _plain_value(batch: pa.RecordBatch, name: str, row: int) -> object:
    """Give the value of a cell as JSON has it; ``MISSING`` where the row lacks the field."""
    cell = batch[name].slice(row, 1)
    if not is_variant(batch.schema.field(name)):
        return cell[0].as_py()
    kind, text = variant_types(cell)[0].as_py(), variant_texts(cell)[0].as_py()
    if kind is None:
        return MISSING
    return text if kind == "string" else parsed(text)


def _dense_column(
    field: Field, file_field: pa.Field, column: pa.Array, reasons: Reasons
) -> pa.Array:
    """Make a vector column of lists of numbers, or of bytes.

    A row whose list has another length than the first vector's cannot become a record.
    """
    lists = column.flatten()[2] if is_variant(file_field) else column
    if not is_list_like(lists.type):
        for row in pc.indices_nonzero(lists.is_valid()).to_pylist():
            reasons[row] = f"field {field.name}: {lists.type}, no list of numbers"
        return pa.nulls(len(column), field.arrow)
    is_list = lists.is_valid().to_numpy(zero_copy_only=False)
    if is_variant(file_field):
        is_null = pc.fill_null(pc.equal(variant_types(column), "null"), fill_value=True)
        no_list = ~is_list & ~is_null.to_numpy(zero_copy_only=False)
        for row in np.flatnonzero(no_list):
            reasons[int(row)] = f"field {field.name}: no list of numbers"
    has_halves = is_halves(field.kind, file_field)
    expected_length = field.dimension // DENSE[field.kind].packed * (2 if has_halves else 1)
    lengths = pc.list_value_length(lists).fill_null(expected_length).to_numpy()
    for row in np.flatnonzero(lengths != expected_length):
        reasons[int(row)] = (
            f"field {field.name}: {lengths[row]} numbers, "
            f"where the first vector has {expected_length}"
        )
    is_vector = is_list & (lengths == expected_length)
    elements = lists.filter(pa.array(is_vector)).flatten().to_numpy(zero_copy_only=False)
    if has_halves:
        elements = _read_halves(field.kind, elements)
    width, element_type = field.arrow.list_size, DENSE[field.kind].element
    matrix = np.zeros((len(column), width), element_type.to_pandas_dtype())
    if matrix.dtype == np.float32 and elements.dtype == np.float64:
        elements = points.to_float32(elements)
    matrix[is_vector] = elements.astype(matrix.dtype, copy=False).reshape(-1, width)
    return pa.FixedSizeListArray.from_arrays(
        pa.array(matrix.reshape(-1)), width, mask=pa.array(~is_vector)
    )


def _read_halves(
    kind: str, content: npt.NDArray[np.uint8]
) -> npt.NDArray[np.float16] | npt.NDArray[np.float32]:
    numbers = content.view(DENSE[kind].reply_type)
    return widen_bfloat16(numbers) if kind == "BFloat16Vector" else numbers


def _sparse_column(
    field: Field, file_field: pa.Field, column: pa.Array, reasons: Reasons
) -> pa.Array:
    """Read ``{"index": value}`` or ``{"indices": [...], "values": [...]}``."""
    vectors: list[tuple[list[int], list[float]] | None] = []
    contents = _read_values(Field(field.name, "JSON"), file_field, column, reasons)
    for row, content in enumerate(contents):
        try:
            vectors.append(None if content in (None, MISSING) else _read_pairs(content))
        except (TypeError, ValueError):
            vectors.append(None)
            reasons[row] = f"field {field.name}: no sparse vector"
    return points.sparse_column(vectors)


def _read_pairs(content: object) -> tuple[list[int], list[float]]:
    """Give indices and values in the order of the indices, as servers do.

    Raises:
        TypeError: the content is no object.
        ValueError: a key is no integer, or a value no number.
    """
    if not isinstance(content, dict):
        raise TypeError
    items: Iterable[tuple[object, object]] = content.items()
    if content.keys() == {"indices", "values"}:
        indices, values = content["indices"], content["values"]
        if not isinstance(indices, list) or not isinstance(values, list):
            raise TypeError
        items = zip(indices, values, strict=True)
    pairs = sorted((int(str(index)), float(str(value))) for index, value in items)
    return [index for index, _ in pairs], [value for _, value in pairs]


def _read_values(
    field: Field | None, file_field: pa.Field, column: pa.Array, reasons: Reasons
) -> list[object]:
    """Give a column's values, with the types of a live read."""
    if is_variant(file_field):
        return _read_variants(field, column)
    if field and field.kind == "JSON":
        return [
            _parse_json(field.name, row, text, reasons)
            for row, text in enumerate(column.to_pylist())
        ]
    is_list = pa.types.is_list(file_field.type)
    arrow_name = str(file_field.type.value_type if is_list else file_field.type)
    number_type = arrow_name if arrow_name in _NUMBER_TYPES.values() else ""
    return [_with_type(number_type, value) for value in column.to_pylist()]


def _read_variants(field: Field | None, column: pa.StructArray) -> list[object]:
    number_type = _NUMBER_TYPES.get((field.element or field.kind) if field else "", "")
    types, texts = variant_types(column).to_pylist(), variant_texts(column).to_pylist()
    values: list[object] = []
    for value_type, text in zip(types, texts, strict=True):
        if value_type is None:
            values.append(MISSING)
        else:
            value = text if value_type == "string" else parsed(text)
            values.append(_with_type(number_type, value))
    return values


def _with_type(number_type: str, value: object) -> object:
    """Record the type of a number, or of a list of numbers, where it has one to record."""
    if not number_type or value is None:
        return value
    if isinstance(value, list):
        numbers = [_shortest(number_type, number) for number in value]
        return Typed(f"list<{number_type}>", numbers)
    return Typed(number_type, _shortest(number_type, value))


def _shortest(number_type: str, value: object) -> object:
    """Give a float32 as the float with its shortest text; any other value as it is."""
    if number_type == "float" and isinstance(value, float):
        return float(str(np.float32(value)))
    return value


def _parse_json(name: str, row: int, text: str | None, reasons: Reasons) -> object:
    try:
        return None if text is None else parse_json(text.encode())
    except InexactJson as error:
        reasons[row] = f"field {name}: {error}"
        return None
