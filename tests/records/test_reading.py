"""Arrays of every Arrow type come back from their canonical texts, and types from their names."""

import numpy as np
import pyarrow as pa
import pytest

from cfray.errors import ConfigError
from cfray.formats.arrow_types import normal_type
from cfray.records.reading import read_texts
from cfray.records.type_names import read_type
from cfray.records.values import lossy_reason, metadata_texts, type_name
from tests.arrow_arrays import LEAVES, make_array, make_type
from tests.restoring import plain_values, unnumbered

ROWS = 9


@pytest.mark.parametrize("kind", LEAVES, ids=str)
def test_every_flat_type_comes_back(kind):
    check(kind, 0)


def test_a_float32_is_rounded_once():
    texts = pa.array(["7.038531e-26", "1e-46", "-Infinity", "[7.038531e-26]"])
    # by way of a float64 it would be the neighbour
    assert np.float32(7.038531e-26) != texts[:1].cast(pa.float32())[0].as_py()
    numbers = read_texts(texts[:3], pa.float32())
    assert numbers.equals(texts[:3].cast(pa.float32()))
    lists = read_texts(texts[3:], pa.list_(pa.float32()))
    assert lists.flatten().equals(numbers[:1])


@pytest.mark.parametrize("seed", range(60))
def test_nested_types_come_back(seed):
    check(make_type(seed, 2), seed)


def check(kind, seed):
    read = read_type(type_name(kind))
    if lossy_reason(kind):
        return
    assert type_name(read) == type_name(kind)
    array = make_array(kind, ROWS + 3, seed).slice(2, ROWS)
    try:
        texts = metadata_texts(array)
    except (ConfigError, pa.ArrowException):  # behind the door it is another type
        assert normal_type(kind) != kind
        return
    again = read_texts(texts, read)
    again.validate(full=True)
    assert type_name(again.type) == type_name(kind)
    assert unnumbered(plain_values(again)) == unnumbered(plain_values(array))


@pytest.mark.parametrize(
    "name",
    ["date", "geoCoordinates", "list", "struct", "objectId", "list<double>", "int32 not null"],
)
def test_a_name_of_no_arrow_type_gives_none(name):
    assert read_type(name) is None


def test_a_text_of_another_type_is_refused():
    with pytest.raises(ValueError, match="no instant"):
        read_texts(pa.array(['"yesterday"']), pa.timestamp("us"))
