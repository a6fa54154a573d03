"""Plan the shards of a live Qdrant collection: slices, or ranges of ids.

A slice is a hash of the id; a server from version 1.19 on promises that slices are disjoint
and complete.  On an older server one pass over the ids finds the bounds of ranges: without a
sample and without a guess, so that the same points give the same ranges.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from urllib.parse import quote

from cfray.sources.base import Json, Shard
from cfray.sources.paging import PageSize
from cfray.sources.qdrant import schema
from cfray.sources.qdrant.scroll import ScrollQuery, StoreReader
from cfray.sources.qdrant.types import PointId, ShardCut, cut_ranges, id_order

#: Shards of a collection at most.  A slice's scroll looks at every id of the collection, so many
#: slices cost the server: 999 slices of 100 million points are a hash of 10**11 ids.
_MAX_SHARDS = 999
#: Ids that the server may look at to count the slices one by one; above, their sizes stay unknown.
_MAX_IDS_TO_COUNT = 10**8
#: Points of a page of ids alone.
_ID_PAGE_ROWS = 10_000


def plan_collection(reader: StoreReader, name: str, *, by_slices: bool) -> Iterator[Shard]:
    """Plan one collection: a group of shards for each shard key, or one group for all points."""
    info = reader.send(partial(reader.client.get_collection, name))
    config = schema.collection_config(info)
    vectors: dict[str, Json] = {
        "vectors": config.get("vectors"),
        "sparse_vectors": config.get("sparse_vectors"),
    }
    where: dict[str, Json] = {"config": vectors, "limit": schema.max_page_rows(config)}
    row_bytes = schema.estimate_row_bytes(schema.parse_vectors(config))
    for shard_key in _shard_keys(reader, name, config):
        query = ScrollQuery(name, shard_key=shard_key, consistency=reader.settings.consistency)
        group = name if shard_key is None else f"{name}#{_shard_key_label(shard_key)}"
        group_where = where if shard_key is None else {**where, "key": shard_key}
        rows = reader.count(query)
        shards_by_size = math.ceil(rows * row_bytes / reader.settings.shard_bytes)
        shard_count = max(1, min(rows, _MAX_SHARDS, shards_by_size))
        cut = _cut_slices if by_slices else _cut_ranges
        for shard_cut in cut(reader, query, rows, shard_count):
            shard_rows = rows // shard_count if shard_cut.rows is None else shard_cut.rows
            yield Shard(
                f"{group}#{shard_cut.label}",
                {**group_where, **shard_cut.where},
                rows=shard_cut.rows,
                size=row_bytes * shard_rows,
                collection=name,
            )


def _shard_keys(
    reader: StoreReader, name: str, config: dict[str, Json]
) -> list[PointId] | list[None]:
    """List the shard keys of a collection; without custom sharding the only key is None."""
    if config.get("sharding_method") != "custom":
        return [None]
    listed = reader.send(partial(reader.client.list_shard_keys, name)).shard_keys
    return sorted((described.key for described in listed or []), key=id_order)


def _shard_key_label(shard_key: PointId) -> str:
    kind = "i" if isinstance(shard_key, int) else "s"
    return f"key-{kind}-{quote(str(shard_key), safe='')}"


def _cut_slices(
    reader: StoreReader, query: ScrollQuery, rows: int, shard_count: int
) -> Iterator[ShardCut]:
    is_countable = rows * shard_count <= _MAX_IDS_TO_COUNT
    for index in range(shard_count):
        slice_query = replace(query, slice=(shard_count, index))
        yield ShardCut(
            f"slice-{index:03d}-of-{shard_count:03d}",
            {"slice": [shard_count, index]},
            reader.count(slice_query) if is_countable else None,
        )


def _cut_ranges(
    reader: StoreReader, query: ScrollQuery, rows: int, shard_count: int
) -> Iterator[ShardCut]:
    page_size = PageSize(_ID_PAGE_ROWS, _ID_PAGE_ROWS, _ID_PAGE_ROWS)
    pages = reader.scroll(replace(query, with_content=False), page_size)
    ids = (point_id for page in pages for point_id in page.ids)
    return cut_ranges(ids, math.ceil(rows / shard_count) or 1)
