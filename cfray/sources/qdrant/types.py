"""Pages of Qdrant's points, in the order of their ids, and their ids.

Pages come from gRPC, from REST and from the engine that reads snapshots; all become the
same ``Page``, and a page becomes a batch of records.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, TypeAlias

import pyarrow as pa

from cfray.errors import SourceError
from cfray.formats import points
from cfray.records.record import Typed, variant_array
from cfray.sources.base import Json
from cfray.sources.qdrant.schema import VectorConfig

PointId: TypeAlias = int | str
#: Id, payload, and vectors by name.
Point: TypeAlias = tuple[PointId, dict[str, object], Mapping[str, Any]]

#: The field that names a point's shard under custom sharding.
_SHARD_KEY = "shard_key"
#: What stands before a payload key that is named like a column of the record.
_PAYLOAD = "payload"


@dataclass(slots=True)
class Page:
    """Points of one page, column by column.

    Attributes:
        ids: of the points, rising.
        payloads: of the points.
        vectors: name of each declared vector -> its value in each point, None where the point has
            none.
        next_id: where the next page begins; None after the last page.
    """

    ids: list[PointId] = field(default_factory=list)
    payloads: list[dict[str, object]] = field(default_factory=list)
    vectors: dict[str, list[Any]] = field(default_factory=dict)
    next_id: PointId | None = None

    def cut_at(self, end: PointId | None) -> Page:
        """Leave out the points from ``end`` on; such a page is the last one."""
        if end is None:
            return self
        rows = bisect_left(self.ids, id_order(end), key=id_order)
        goes_on = self.next_id is None or id_order(self.next_id) < id_order(end)
        if rows == len(self.ids) and goes_on:
            return self
        return Page(
            self.ids[:rows],
            self.payloads[:rows],
            {name: column[:rows] for name, column in self.vectors.items()},
        )

    def to_records(self, vectors: Mapping[str, VectorConfig]) -> pa.RecordBatch:
        """Make records of the page."""
        ids = variant_array(
            Typed("uuid", point_id) if isinstance(point_id, str) else point_id
            for point_id in self.ids
        )
        columns = {
            name: vector.build_column(self.vectors[name]) for name, vector in vectors.items()
        }
        return points.build_batch(ids, columns, self.payloads, payload_name=_PAYLOAD)


@dataclass(frozen=True, slots=True)
class ShardCut:
    """A part of a collection that becomes a shard.

    Attributes:
        label: the end of the shard's id; labels sort as Qdrant orders ids.
        where: the slice or the bounds, for the shard's ``where``.
        rows: number of points; None where they were not counted.
    """

    label: str
    where: dict[str, Json]
    rows: int | None


def id_order(point_id: PointId) -> tuple[bool, PointId]:
    """Give the key that Qdrant orders points by.

    All integers come first, then the UUIDs by their 128 bits, which their texts order alike.
    """
    return isinstance(point_id, str), point_id


def parse_id(value: Json) -> PointId | None:
    """Read a point id or a shard key from a shard's ``where``."""
    assert value is None or isinstance(value, int | str)
    return value


def tag_id(point_id: object) -> str:
    """Write an id with its type, for example ``i:42``."""
    return f"i:{point_id}" if isinstance(point_id, int) else f"u:{point_id}"


def build_page(
    page_points: Iterable[Point],
    vectors: Mapping[str, VectorConfig],
    *,
    next_id: PointId | None = None,
    shard_key: PointId | None = None,
    address: str = "",
) -> Page:
    """Gather points into a page.

    Under custom sharding the key of its shard is a field ``shard_key`` of each point, and a field
    of that name in the payload becomes ``payload.shard_key``.

    Raises:
        SourceError: a point has a vector that the collection did not declare when the plan was
            made.
    """
    page = Page(vectors={name: [] for name in vectors}, next_id=next_id)
    for point_id, payload, point_vectors in page_points:
        if not point_vectors.keys() <= vectors.keys():
            unknown = min(point_vectors.keys() - vectors.keys())
            raise SourceError(
                f"{address}: point {point_id} has a vector {unknown!r} "
                "that the collection did not have when the plan was made",
                "start anew with another target, so that the new vector is planned for",
            )
        page.ids.append(point_id)
        page.payloads.append(payload if shard_key is None else _with_shard_key(payload, shard_key))
        for name, column in page.vectors.items():
            column.append(point_vectors.get(name))
    return page


def _with_shard_key(payload: dict[str, object], shard_key: PointId) -> dict[str, object]:
    renamed = {
        points.unreserved_name(name, (_SHARD_KEY,), _PAYLOAD): value
        for name, value in payload.items()
    }
    return {_SHARD_KEY: shard_key} | renamed


def check_order(page: Page, last_id: PointId | None, address: str) -> PointId | None:
    """Check that the ids of a page rise, and give its last id.

    They must rise from the page before to this page, and on to where the next page begins.

    Raises:
        SourceError: they do not: a page that repeats or goes back would double or lose rows.
    """
    ids = [*page.ids]
    if last_id is not None:
        ids.insert(0, last_id)
    if page.next_id is not None:
        ids.append(page.next_id)
    if any(id_order(first) >= id_order(second) for first, second in pairwise(ids)):
        raise SourceError(
            f"{address}: a scroll gave its points out of order",
            "report it with the server's version: rows would be lost or doubled",
        )
    return page.ids[-1] if page.ids else last_id


def cut_ranges(ids: Iterable[PointId], rows: int) -> Iterator[ShardCut]:
    """Cut rising ids into ranges of ``rows`` ids; the first and the last range are open."""
    start: PointId | None = None
    count = 0
    for point_id in ids:
        if count == rows:
            yield _range_cut(start, point_id, count)
            start, count = point_id, 0
        count += 1
    yield _range_cut(start, None, count)


def _range_cut(start: PointId | None, end: PointId | None, count: int) -> ShardCut:
    label = f"u-{start}" if isinstance(start, str) else f"i-{start or 0:020d}"
    return ShardCut(f"from-{label}", {"from": start, "to": end}, count)
