"""Plan the shards of a Pinecone namespace: its ids, written down and cut into shards.

The plan refuses what cannot be read completely: a pod index lists no ids, and no number of
searches is sure to find every record.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, islice
from typing import Any

from cfray.errors import SourceError
from cfray.sources import manifests
from cfray.sources.base import Context, Shard
from cfray.sources.paging import PageSize
from cfray.sources.pinecone.client import SendRequest
from cfray.sources.pinecone.errors import NamespaceNotFound
from cfray.sources.pinecone.fetch import RecordFetcher
from cfray.sources.pinecone.ids import list_ids, read_ids_file
from cfray.sources.pinecone.records import build_records
from cfray.sources.pinecone.settings import PineconeSettings
from cfray.sources.pinecone.types import DescribedNamespace, PineconeNamespace

#: Records that are fetched to estimate the bytes of a record where the index does not say them;
#: fetching them costs one read unit.
_SAMPLE_RECORDS = 10
#: Bytes of a record where even the sample is empty.
_DEFAULT_ROW_BYTES = 1024
#: Shards of a collection at most.
_MAX_SHARDS = 4000


def check_readable(namespaces: Sequence[DescribedNamespace], ids_file: str | None) -> None:
    """Refuse collections that cannot be read completely.

    Raises:
        SourceError: a pod index without a file of ids, or a file of ids and several collections.
    """
    pods = [described.collection.name for described in namespaces if described.is_pod]
    if pods and not ids_file:
        raise SourceError(
            f"{pods[0]} is a pod index: it cannot list its ids, "
            "and no number of queries is sure to find all of them",
            "give its ids in a file with source.ids, or restore a collection of it "
            "into a serverless index and read that",
        )
    if ids_file and len(namespaces) > 1:
        raise SourceError(
            f"source.ids is for one collection, and the source has {len(namespaces)}",
            "name the collection of these ids in source.collections",
        )


def write_shards(
    settings: PineconeSettings,
    index: Any,
    described: DescribedNamespace,
    send: SendRequest,
    context: Context,
) -> list[Shard]:
    """Write down the ids of a collection, and give a shard for each file of ids."""
    namespace, rows = described.namespace, described.collection.rows or 0
    ids = iter(read_ids_file(settings.ids)) if settings.ids else list_ids(index, namespace, send)
    try:
        first_ids = list(islice(ids, _SAMPLE_RECORDS))
    except NamespaceNotFound:
        if rows:
            raise
        # nothing was ever written into this namespace
        return []
    row_bytes = described.row_bytes or _sample_row_bytes(index, namespace, first_ids, send)
    per_shard = max(settings.shard_bytes // row_bytes, rows // _MAX_SHARDS, 1)
    shards = manifests.write_id_shards(
        described.collection.name, chain(first_ids, ids), per_shard, context, row_bytes
    )
    return [replace(shard, where={**shard.where, **namespace.to_json()}) for shard in shards]


def _sample_row_bytes(
    index: Any, namespace: PineconeNamespace, ids: list[str], send: SendRequest
) -> int:
    """Fetch a few records to estimate the bytes of a record."""
    page_size = PageSize(_SAMPLE_RECORDS, _SAMPLE_RECORDS, 1)
    fetcher = RecordFetcher(index, namespace, page_size, send)
    first_request = next(fetcher.split_into_requests(ids), [])
    records = fetcher.fetch(first_request).records
    if not records:
        return _DEFAULT_ROW_BYTES
    batch = build_records(namespace, list(records), list(records.values()))
    return int(batch.nbytes) // len(records) + 1


def read_units_note(record_counts: Sequence[int], *, ids_listed: bool) -> str:
    """Estimate what a run costs, as a sentence for the plan.

    A list request takes 1 read unit and gives 100 ids; a fetch takes 1 for every 10 records.

    Source: https://docs.pinecone.io/guides/cost/understand-cost, "Read units".
    """
    list_units = sum(max(1, -(-count // 100)) for count in record_counts) if ids_listed else 0
    fetch_units = sum(-(-count // 10) for count in record_counts)
    return (
        f"read units, an estimate: {list_units} for listing the ids "
        f"(1 a request of 100, every time a plan is made) and {fetch_units} for reading "
        "(1 for every 10 records); a shard that is read again costs its read units again"
    )
