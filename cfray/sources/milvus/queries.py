"""The requests of queries: a page of records in the order of keys, or a count."""

from __future__ import annotations

from cfray.sources.milvus.client import Connection
from cfray.sources.milvus.keys import KeyRange
from cfray.sources.milvus.schema import Message

#: Rows of one query at most (Milvus, quotaAndLimits.limits.maxQueryResultWindow).
MAX_PAGE_ROWS = 16_384
#: What a query must say so that every page is a run of the smallest remaining keys; pymilvus's
#: iterator says the same.
_IN_ORDER = {"iterator": "True", "reduce_stop_for_best": "True", "ignore_growing": "False"}


def query_request(
    key_range: KeyRange,
    key_filter: str,
    fields: list[str],
    limit: int | None,
    since: int | None = None,
) -> dict[str, object]:
    """Give the fields of a query's request.

    Args:
        key_range: names the collection and the partition.
        key_filter: the filter.
        fields: names of the fields that come.
        limit: rows at most; None for an aggregate.
        since: what was written before this timestamp of the server must be seen; None: before now
            (``Strong``), for which each query waits until the server's clock has ticked, 200 ms by
            default.
    """
    from pymilvus.grpc_gen.common_pb2 import ConsistencyLevel, KeyValuePair

    flags = {} if limit is None else {"limit": str(limit), **_IN_ORDER}
    level = ConsistencyLevel.Strong if since is None else ConsistencyLevel.Customized
    return {
        "collection_name": key_range.collection,
        "partition_names": [] if key_range.partition is None else [key_range.partition],
        "expr": key_filter,
        "output_fields": fields,
        "consistency_level": level,
        "guarantee_timestamp": since or 0,
        "use_default_consistency": False,
        "query_params": [KeyValuePair(key=key, value=value) for key, value in flags.items()],
    }


def query_range(
    connection: Connection, key_range: KeyRange, fields: list[str], limit: int | None = None
) -> Message:
    """Query what a range holds now: records in the order of keys, or an aggregate."""
    request = query_request(key_range, key_range.filter, fields, limit)
    return connection.call("Query", **request)


def count_rows(connection: Connection, key_range: KeyRange) -> int:
    """Count the rows of a range; each duplicate of a primary key counts."""
    (column,) = query_range(connection, key_range, ["count(*)"]).fields_data
    return int(column.scalars.long_data.data[0])
