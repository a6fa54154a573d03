"""A map is learned from the same records, whichever shard was read first."""

from collections.abc import Iterator
from itertools import permutations

import numpy as np
import pyarrow as pa
import pytest

from cfray.embedding.sample import Sample, merge_samples, spread_evenly


def shard_samples() -> Iterator[Sample | None]:
    # A shard in which no record has both a text and a vector gives no sample.
    yield None
    for shard in range(3):
        uuids = pa.array([f"{shard}-{row}" for row in range(40)])
        old = pa.array(np.arange(40) + 100 * shard)
        yield Sample.from_columns(uuids, {"text": uuids, "query": uuids, "old": old})


def test_the_same_records_in_the_same_order_whichever_shard_came_first():
    for max_rows in (1, 50, 120, 500):
        tables = [
            merge_samples(iter(order), max_rows).table.to_pydict()
            for order in permutations(shard_samples())
        ]
        assert len(tables[0]["uuid"]) == min(max_rows, 120)
        assert all(table == tables[0] for table in tables)


def test_a_single_shard_gives_no_more_than_was_asked_for():
    sample = next(sample for sample in shard_samples() if sample is not None)
    assert merge_samples(iter([sample]), 7).table.num_rows == 7


def test_nothing_to_draw_from():
    assert merge_samples(iter([None, None]), 5) is None


@pytest.mark.parametrize(
    ("count", "chosen_count"), [(0, 0), (1, 1), (64, 64), (65, 64), (10_000, 64)]
)
def test_shards_are_spread_evenly_and_none_is_chosen_twice(count, chosen_count):
    chosen_shards = spread_evenly(range(count), 64)
    assert len(chosen_shards) == len(set(chosen_shards)) == chosen_count
    assert chosen_shards == sorted(chosen_shards)
    if count:
        assert (chosen_shards[0], chosen_shards[-1]) == (0, count - 1)
        assert np.ptp(np.diff(chosen_shards)) <= 1 if chosen_count > 1 else True
