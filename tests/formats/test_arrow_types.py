"""Arrays of every Arrow type pass the door with their values, and none keeps an odd type."""

import pyarrow as pa
import pytest

from cfray.formats.arrow_types import loss_of, normal_schema, source_type_name
from cfray.formats.columns import normal_batch
from cfray.formats.invalid_text import invalid_text_rows
from cfray.records import values
from cfray.records.record import is_variant, variant_texts
from tests.arrow_arrays import LEAVES, make_array, make_type
from tests.restoring import UnreadableTypeError, plain_values, read_type, read_value


def is_plain(kind):
    """Tell the types that may stand behind the door."""
    if isinstance(kind, pa.BaseExtensionType):
        return isinstance(kind, pa.UuidType)
    replaced = (
        pa.types.is_string_view,
        pa.types.is_binary_view,
        pa.types.is_dictionary,
        pa.types.is_run_end_encoded,
        pa.types.is_list_view,
        pa.types.is_large_list_view,
        pa.types.is_union,
        pa.types.is_decimal32,
        pa.types.is_decimal64,
    )
    if any(test(kind) for test in replaced):
        return False
    names = [kind.field(i).name for i in range(kind.num_fields)]
    return len(set(names)) == len(names) and all(
        is_plain(kind.field(i).type) for i in range(kind.num_fields)
    )


def slices_of(array):
    half = len(array) // 2
    return [array, array.slice(1), array.slice(half), array.slice(1, half)]


def check_array(array):
    """Check that an array passes the door with its values, and that its text restores them."""
    for part in slices_of(array):
        batch = normal_batch(pa.record_batch([part], ["x"]))
        batch.validate()
        assert not [row for column in batch.columns for row in invalid_text_rows(column)]
        assert batch.schema == normal_schema(pa.schema([("x", array.type)]))
        (field,), (column,) = batch.schema, batch.columns
        assert len(column) == len(part)
        assert is_plain(field.type)
        if is_variant(field):
            check_union_texts(part, column)
            continue
        assert named_alike(plain_values(column)) == named_alike(plain_values(part))
        name = source_type_name(field) or values.type_name(field.type)
        check_restored(part, name, values.metadata_texts(column), loss_of(field))


def check_restored(array, name, texts, loss):
    """Check that texts and the name of their type give an array's values back."""
    try:
        kind = read_type(name)
    except UnreadableTypeError:
        assert loss is not None
        return
    read = [read_value(kind, text) for text in texts.to_pylist()]
    assert named_alike(read) == named_alike(plain_values(array))


def check_union_texts(array, column):
    expected = [value is None for value in plain_values(array)]
    assert [text is None for text in variant_texts(column).to_pylist()] == expected


def named_alike(value):
    """Drop the numbers of names that fields of a struct share."""
    if isinstance(value, tuple) and all(isinstance(item, tuple) for item in value):
        return sorted(
            [(name.split("#")[0], repr(named_alike(item))) for name, item in value if True]
        )
    if isinstance(value, list):
        return [named_alike(item) for item in value]
    if isinstance(value, tuple):
        return tuple(named_alike(item) for item in value)
    return value


@pytest.mark.parametrize("kind", LEAVES, ids=str)
def test_every_flat_type(kind):
    for seed in range(5):
        check_array(make_array(kind, 12, seed))


@pytest.mark.parametrize("block", range(6))
def test_every_nested_type(block):
    for seed in range(block * 50, block * 50 + 50):
        kind = make_type(seed)
        try:
            check_array(make_array(kind, seed % 13, seed))
        except Exception as error:
            raise AssertionError(f"seed {seed}: {kind}") from error
