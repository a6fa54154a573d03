"""A look at some objects of a Weaviate collection before its shards are cut.

It shows the lowest id, how much an object weighs, and how wide each vector is: a definition
declares no width.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from cfray.sources.paging import PageSize
from cfray.sources.weaviate.batches import vector_widths
from cfray.sources.weaviate.errors import TooLargeError
from cfray.sources.weaviate.pages import PAGE_BYTES, Cursor, format_id, halve_until_it_fits
from cfray.sources.weaviate.ranges import highest_id

#: Objects of the sample, in each of so many quarters of the ids.
_SAMPLE_ROWS, _QUARTERS = 8, 4
#: Objects behind each of some ids that are looked at for a vector that the sample has not.
_VECTOR_ROWS = 500


class Sample(NamedTuple):
    """What a look at some objects shows.

    Attributes:
        first_id: the lowest id; None where the collection is empty.
        row_bytes: bytes that an object takes.
        widths: width of each vector that was seen.
    """

    first_id: int | None
    row_bytes: int
    widths: dict[str, int]


def take_sample(cursor: Cursor, rows: int) -> Sample:
    """Look at some objects of a collection of ``rows`` objects."""
    first_id, seen_rows, seen_bytes, widths = None, 0, 0, dict[str, int]()
    for quarter in range(_QUARTERS if rows > _SAMPLE_ROWS else 1):
        # the nil id is seen only without a cursor
        after = format_id(quarter << 126) if quarter else ""
        size = PageSize(_SAMPLE_ROWS, _SAMPLE_ROWS, PAGE_BYTES)
        try:
            objects, page_bytes = halve_until_it_fits(
                size, partial(cursor.fetch, after, with_content=True)
            )
            seen_rows, seen_bytes = seen_rows + len(objects), seen_bytes + page_bytes
        except TooLargeError:
            # reading sets the object aside by name; its size says nothing of the others
            objects, _ = cursor.fetch(after, 1, with_content=False)
        if objects and first_id is None:
            first_id = int.from_bytes(objects[0].metadata.id_as_bytes, "big")
        for column, width in vector_widths(cursor.collection, objects):
            widths.setdefault(column, width)
    unseen = [name for name in cursor.collection.vectors if name not in widths]
    if unseen and first_id is not None and rows > seen_rows:
        widths |= _find_widths(cursor, unseen, first_id)
    row_bytes = max(1, seen_bytes // seen_rows) if seen_rows else PAGE_BYTES
    return Sample(first_id, row_bytes, widths)


def _find_widths(cursor: Cursor, columns: Sequence[str], first_id: int) -> dict[str, int]:
    """Look at more objects for vectors that few have; nothing else of them is requested.

    Objects with the highest ids are looked at, too: where ids count upwards, these are the
    objects that are younger than the vector.  To find them takes up to 128 requests, too many for
    each of thousands of tenants.
    """
    messages = cursor.connection.protocol.search_get_pb2
    target_names = [cursor.collection.vectors[column].target_name for column in columns]
    metadata = messages.MetadataRequest(
        uuid=True,
        # an unnamed vector comes only with all others
        vector="" in target_names,
        vectors=[name for name in target_names if name],
        # a request for ids alone would leave the vectors out
        creation_time_unix=True,
    )
    starts = {first_id}
    if not cursor.tenant:
        last_id = highest_id(cursor.ids_after, first_id)
        span = last_id - first_id
        starts |= {first_id + span * quarter // _QUARTERS for quarter in range(_QUARTERS)}
        starts.add(max(first_id, last_id - _VECTOR_ROWS))
    widths: dict[str, int] = {}
    for start in sorted(starts):
        size = PageSize(_VECTOR_ROWS, _VECTOR_ROWS, PAGE_BYTES)
        request = partial(
            cursor.fetch_parts,
            format_id(start),
            metadata=metadata,
            properties=messages.PropertiesRequest(),
        )
        with suppress(TooLargeError):
            objects, _ = halve_until_it_fits(size, request)
            for column, width in vector_widths(cursor.collection, objects):
                widths.setdefault(column, width)
    return widths
