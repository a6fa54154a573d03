"""Numbers with their nouns."""

import pytest

from cfray.runtime.plurals import counted, counted_name


def test_a_single_thing_has_no_plural():
    assert [counted(number, "shard") for number in (0, 1, 2, 2_000)] == [
        "0 shards",
        "1 shard",
        "2 shards",
        "2,000 shards",
    ]
    assert counted(1, "index", "indexes") == "1 index"
    assert counted(3, "index", "indexes") == "3 indexes"


@pytest.mark.parametrize(
    ("number", "name", "text"),
    [
        (1, "shards_planned", "1 shard planned"),
        (2, "shards_planned", "2 shards planned"),
        (1, "read", "1 read"),
        (1, "missing_vectors", "1 missing vector"),
        (1_000, "missing_vectors", "1,000 missing vectors"),
        (1, "cache_hits", "1 cache hit"),
    ],
)
def test_the_name_of_a_count_follows_its_number(number, name, text):
    assert counted_name(number, name) == text
