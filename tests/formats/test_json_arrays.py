"""Arrays of records in a JSON text are counted as the parser counts them, wherever blocks end."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfray.formats.json_arrays import MAX_KEYS, find_arrays, record_arrays

KEYS = st.text(alphabet='ab"\\[{,é', min_size=1, max_size=3)
VALUES = st.recursive(
    st.none() | st.integers(-9, 9) | st.text(alphabet='x"\\[]{},', max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=20,
)


def expected(value, path=()):
    """Count the objects of each array as a parsed text has them."""
    for key, item in value.items():
        below = (*path, key)
        if isinstance(item, list):
            if any(isinstance(element, dict) for element in item):
                yield below, sum(isinstance(element, dict) for element in item)
        elif isinstance(item, dict) and len(below) < MAX_KEYS:
            yield from expected(item, below)


@given(st.dictionaries(KEYS, VALUES, max_size=4), st.integers(1, 20), st.booleans())
def test_the_objects_of_every_array_are_counted(value, block_bytes, indented):
    text = json.dumps(value, ensure_ascii=False, indent=1 if indented else None).encode()
    blocks = [text[start : start + block_bytes] for start in range(0, len(text), block_bytes)]
    assert dict(record_arrays(find_arrays(blocks))) == dict(expected(value))


def test_the_arrays_of_several_objects_are_counted_together():
    pages = [{"data": [{"a": 1}, {"a": 2}], "n": 1}, {"data": [{"a": 3}]}]
    text = "\n".join(map(json.dumps, pages)).encode()
    assert list(record_arrays(find_arrays([text]))) == [(("data",), 3)]


@pytest.mark.parametrize(("array", "elements"), [([1.5, [2, 3], "a,b"], 3), ([{"x": []}], 1)])
def test_elements_of_any_kind_are_counted(array, elements):
    found = find_arrays([json.dumps({"a": array}).encode()])
    assert found["a",].elements == elements
