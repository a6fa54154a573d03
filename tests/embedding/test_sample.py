"""What a map is learned from: the same records whichever shard was read first."""

from collections.abc import Iterator
from itertools import permutations

import numpy as np
import pyarrow as pa

from cfray.embedding.sample import Drawn, drawn, gathered


def parts() -> Iterator[Drawn | None]:
    yield None  # a shard in which no record has both
    for shard in range(3):
        uuids = pa.array([f"{shard}-{row}" for row in range(40)])
        yield drawn(
            uuids, {"text": uuids, "query": uuids, "old": pa.array(np.arange(40) + 100 * shard)}
        )


def test_the_same_records_in_the_same_order_whichever_shard_came_first():
    for most in (1, 50, 120, 500):
        found = [gathered(iter(order), most).table.to_pydict() for order in permutations(parts())]
        assert len(found[0]["uuid"]) == min(most, 120)
        assert all(one == found[0] for one in found)


def test_one_shard_gives_no_more_than_was_asked_for():
    (one,) = [part for part in parts() if part is not None][:1]
    assert gathered(iter([one]), 7).table.num_rows == 7


def test_nothing_to_draw_from():
    assert gathered(iter([None, None]), 5) is None
