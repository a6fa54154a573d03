"""Uuids are compared exactly, whatever they look like and whoever wrote them."""

import uuid
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfray.copying.uuid_search import KEY, KEYED_ROW, bucket_numbers, search, uuid_keys

A_UUID = "6ba7b811-9dad-51d1-80b4-00c04fd430c8"
#: Texts that stand for the same number as ``A_UUID``, or look as if they did, and differ from it.
OTHER_TEXTS = (
    A_UUID.upper(),
    A_UUID.replace("-", ""),
    f"{{{A_UUID}}}",
    A_UUID.replace("-", "0"),
    A_UUID.replace("6ba7b811-9dad", "6ba7b8119-dad"),
    A_UUID.replace("c8", "cg"),
    A_UUID.replace("c8", "é"),
    A_UUID.replace("c8", "  "),
    "",
)


def keys_of(texts):
    return uuid_keys(pa.array(texts, pa.string())).tolist()


def test_a_key_is_the_number_that_the_text_stands_for():
    numbers = [0, 1, 255, 1 << 127, (1 << 128) - 1]
    keys = uuid_keys(pa.array([str(uuid.UUID(int=number)) for number in numbers]))
    assert [int.from_bytes(key.tobytes().ljust(16, b"\0")) for key in keys] == numbers


@pytest.mark.parametrize("texts", [(A_UUID, *OTHER_TEXTS), OTHER_TEXTS])
def test_texts_that_differ_have_different_keys(texts):
    assert len(set(keys_of(texts))) == len(texts)
    assert keys_of(texts[::-1]) == keys_of(texts)[::-1]


def test_a_slice_of_a_column_has_the_keys_of_its_rows():
    texts = [A_UUID, "short", str(uuid.UUID(int=5)), str(uuid.UUID(int=6))]
    column = pa.array(texts)
    assert uuid_keys(column.slice(1, 2)).tolist() == keys_of(texts)[1:3]


@pytest.mark.parametrize("bucket_count", [1, 2, 7, 64])
@pytest.mark.parametrize("shift", [0, 64, 112])
def test_buckets_are_about_equal_for_uuids_that_count_up(bucket_count, shift):
    keys = np.array([(number << shift).to_bytes(16) for number in range(50_000)], KEY)
    sizes = np.bincount(bucket_numbers(keys, bucket_count), minlength=bucket_count)
    assert len(sizes) == bucket_count
    assert sizes.min() > 0.8 * len(keys) / bucket_count


def test_equal_keys_share_a_bucket_whatever_stands_beside_them():
    keys = np.array([number.to_bytes(16) for number in range(100)], KEY)
    together = bucket_numbers(keys, 5).tolist()
    assert [int(bucket_numbers(keys[row : row + 1], 5)[0]) for row in range(100)] == together


#: Few keys, alike in their first or their last bytes, zeros at the end among them.
KEYS = st.sampled_from(
    [bytes([first]) + bytes(14) + bytes([last]) for first in (0, 1, 255) for last in (0, 1, 255)]
)


@given(st.lists(KEYS), st.lists(st.lists(KEYS)))
def test_repeats_and_missing_keys_are_found(row_keys, reference_batches):
    keyed_rows = np.array([(key, 10 * row) for row, key in enumerate(row_keys)], KEYED_ROW)
    found = search(keyed_rows, [np.array(batch, KEY) for batch in reference_batches])
    rows_of = {
        key: {10 * row for row, other in enumerate(row_keys) if other == key} for key in row_keys
    }
    expected = [rows for rows in rows_of.values() if len(rows) > 1]
    groups = [set(group) for group in found.groups()]
    assert sorted(map(sorted, groups)) == sorted(map(sorted, expected))
    assert sum(map(len, groups)) == len(found.row_ids)
    counts = Counter(key for batch in reference_batches for key in batch)
    assert found.dangling == sum(count for key, count in counts.items() if key not in rows_of)
