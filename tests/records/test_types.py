"""The name of a vector's type, as plans record it, reads back to the type of its column."""

import pyarrow as pa
import pytest

from cfray.records.types import SPARSE, vector_type
from cfray.records.values import type_name

NUMBER_TYPES = [pa.float16(), pa.float32(), pa.float64(), pa.int8(), pa.uint8()]


@pytest.mark.parametrize("number_type", NUMBER_TYPES, ids=str)
@pytest.mark.parametrize("item_name", ["item", "element"])
@pytest.mark.parametrize("nullable", [True, False])
def test_every_list_of_numbers_reads_back(number_type, item_name, nullable):
    item_field = pa.field(item_name, number_type, nullable=nullable)
    vector_list = pa.list_(number_type, 384)
    for written_type, read_type in [
        (pa.list_(item_field, 384), vector_list),
        (pa.list_(item_field), pa.list_(number_type)),
        (pa.large_list(item_field), pa.list_(number_type)),
        (
            pa.list_(pa.field(item_name, pa.list_(item_field, 384), nullable=nullable)),
            pa.list_(vector_list),
        ),
    ]:
        assert vector_type(type_name(written_type)).equals(read_type), written_type


def test_a_sparse_vector_reads_back():
    assert vector_type(type_name(SPARSE)) == SPARSE


@pytest.mark.parametrize(
    "name", ["list<double>", "list<int64>", "list", "string", "list<item: int32>"]
)
def test_lists_of_any_other_number_are_read_as_double(name):
    assert vector_type(name) == pa.list_(pa.float64())
