"""The name of a vector's type, as plans record it, reads back to the type that its column gets."""

import pyarrow as pa
import pytest

from cfray.records.types import SPARSE, vector_type
from cfray.records.values import type_name

NUMBERS = [pa.float16(), pa.float32(), pa.float64(), pa.int8(), pa.uint8()]


@pytest.mark.parametrize("numbers", NUMBERS, ids=str)
@pytest.mark.parametrize("item", ["item", "element"])
@pytest.mark.parametrize("nullable", [True, False])
def test_every_list_of_numbers_reads_back(numbers, item, nullable):
    field = pa.field(item, numbers, nullable=nullable)
    vectors = pa.list_(numbers, 384)
    for written, read in [
        (pa.list_(field, 384), vectors),
        (pa.list_(field), pa.list_(numbers)),
        (pa.large_list(field), pa.list_(numbers)),
        (pa.list_(pa.field(item, pa.list_(field, 384), nullable=nullable)), pa.list_(vectors)),
    ]:
        assert vector_type(type_name(written)).equals(read), written


def test_a_sparse_vector_reads_back():
    assert vector_type(type_name(SPARSE)) == SPARSE


@pytest.mark.parametrize(
    "name", ["list<double>", "list<int64>", "list", "string", "list<item: int32>"]
)
def test_lists_of_any_other_number_are_read_as_double(name):
    assert vector_type(name) == pa.list_(pa.float64())
