"""Plan the shards of an index: slices by a hash of the id, the same at every point in time.

So a run that is resumed at another point in time reads each document in the same shard.  Slices
of Lucene's document numbers, which the products use by default at a point in time, would not be
the same after a merge.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

from cfray.errors import SourceError
from cfray.records.record import Reject
from cfray.runtime.models import MIB
from cfray.sources.base import Json, Shard
from cfray.sources.lucene.facts import IndexFacts
from cfray.sources.lucene.indices import fetch_facts
from cfray.sources.lucene.pages import Page, read_slice
from cfray.sources.lucene.records import convert_page
from cfray.sources.lucene.schema import IndexSchema, check_has_source, parse_schema
from cfray.sources.lucene.server import Server, path_of
from cfray.sources.lucene.slices import Slice
from cfray.sources.paging import PageSize

#: Documents whose bytes are looked at, to guess those of the others.
_SAMPLED_ROWS = 50
#: Bytes that a page aims at; the next page is fetched while this one is converted.
PAGE_BYTES = 8 * MIB
#: Documents of a page at most, where an index sets no lower limit.
_MAX_PAGE_ROWS = 10_000


def plan_index(server: Server, index: str) -> Iterator[Shard]:
    """Cut an index into slices of about ``shard_bytes``.

    Raises:
        SourceError: it keeps no documents.
    """
    facts = fetch_facts(server, index)
    settings = server.settings
    check_has_source(settings.address, index, facts.mapping, facts.source_mode)
    schema = parse_schema(facts.mapping, server.parse_vector)
    limit = min(_MAX_PAGE_ROWS, facts.limit("index.max_result_window", _MAX_PAGE_ROWS))
    row_bytes = _sample_row_bytes(server, index, schema, limit)
    with server.view_of(index) as view:
        rows = count_index(server, view, index)
        if not rows:
            return
        slices = _count_slices(server, view, facts, rows * row_bytes)
    where: dict[str, Json] = {
        "index": index,
        "uuid": facts.settings.get("index.uuid", ""),
        "schema": schema.to_json(),
        "limit": limit,
        "row_bytes": row_bytes,
    }
    size = rows * row_bytes // slices
    for number in range(slices):
        yield Shard(
            f"{index}#slice-{number:04d}-of-{slices:04d}",
            {**where, "slice": [number, slices]},
            size=size,
            collection=index,
        )


def slices_since(earlier: Sequence[Shard], fresh: Sequence[Shard]) -> Iterator[Shard]:
    """Give the earlier slices of each index that is the same one, about as large; else the fresh.

    Args:
        earlier: slices that ``plan_index`` made.
        fresh: the slices of all indices as they are now.
    """
    for index in dict.fromkeys(shard.collection for shard in fresh):
        mine = [shard for shard in fresh if shard.collection == index]
        before = [shard for shard in earlier if shard.collection == index]
        is_same = bool(before) and _described(before[0]) == _described(mine[0])
        if is_same and len(before) <= 2 * len(mine) and len(mine) <= 2 * len(before):
            yield from before
        else:
            yield from mine


def _described(shard: Shard) -> dict[str, Json]:
    """Give what a slice's ``where`` says of its index."""
    return {
        name: value for name, value in shard.where.items() if name not in ("slice", "row_bytes")
    }


def slice_of(shard: Shard) -> Slice:
    """Read the slice that a shard is."""
    where: Any = shard.where
    return Slice(where["index"], *where["slice"])


def _sample_row_bytes(server: Server, index: str, schema: IndexSchema, limit: int) -> int:
    """Give the bytes of a record, on average over the first page of an index."""
    page_size = PageSize(_SAMPLED_ROWS, limit, PAGE_BYTES)
    with closing(read_slice(server, Slice(index), schema, page_size)) as pages:
        page = next(pages, Page([]))
    rows = len(page.hits)
    items = convert_page(page.hits, schema, server.context, index, page.faults)
    size = sum(len(item.content) if isinstance(item, Reject) else item.nbytes for item in items)
    return max(1, size // max(1, rows))


def count_index(server: Server, view: str, index: str, query: Json = None) -> int:
    """Count the documents of an index, or those that a query finds."""
    body: dict[str, Json] = {"size": 0, "track_total_hits": True}
    if query is not None:
        body["query"] = query
    return int(search_view(server, view, index, body)["hits"]["total"]["value"])


def search_view(server: Server, view: str, index: str, body: dict[str, Json]) -> Any:
    """Search an index at a point in time, or as it is where there is none."""
    if not view:
        return server.send("POST", path_of(index, "_search"), body)
    pit: dict[str, Json] = {"id": view, "keep_alive": server.keep_alive()}
    return server.send(
        "POST", "/_search", {**body, "pit": pit}, allow_partial_search_results="false"
    )


def _count_slices(server: Server, view: str, facts: IndexFacts, size: int) -> int:
    """Choose how many slices an index is cut into.

    More slices than Lucene shards are a multiple of their number, for then all are of one size.
    Elasticsearch 8 (8.19, measured) does not hash ids at a point in time: then a slice is of whole
    Lucene shards.
    """
    settings = server.settings
    if settings.slices is not None:
        return settings.slices
    wanted = math.ceil(size / settings.shard_bytes)
    lucene_shards = facts.lucene_shards
    if wanted <= lucene_shards:
        return wanted
    if view and not hashes_ids(server, view, facts):
        return min(lucene_shards, facts.max_slices)
    multiple = math.ceil(wanted / lucene_shards)
    return max(1, min(multiple, facts.max_slices // lucene_shards) * lucene_shards)


def hashes_ids(server: Server, view: str, facts: IndexFacts) -> bool:
    """Tell whether the server cuts a Lucene shard into slices at a point in time."""
    part = Slice(facts.name, 0, 2 * facts.lucene_shards)
    body: dict[str, Json] = {"size": 0, "track_total_hits": False, **part.condition()}
    try:
        search_view(server, view, facts.name, body)
    except SourceError as error:
        if error.transient or "cannot slice on [_id]" not in error.what:
            raise
        return False
    return True


def check_same_index(server: Server, shard: Shard) -> None:
    """Refuse an index that was deleted and made anew since the plan.

    Raises:
        SourceError: names the index.
    """
    where: Any = shard.where
    facts = fetch_facts(server, where["index"])
    if facts.settings.get("index.uuid", "") != where["uuid"]:
        raise SourceError(
            f"the index {where['index']} of {server.settings.address} was made anew since the "
            "plan: it is another index of the same name",
            "start anew with another target",
        )
