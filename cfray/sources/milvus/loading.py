"""Load collections for a run, and release them at the end.

Only a loaded collection can be read, and loading takes the server's memory: so it is done
only where the job file says so, and what was loaded before the run stays loaded.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias

from cfray.errors import SourceError
from cfray.sources.milvus.client import Connection
from cfray.sources.milvus.schema import CollectionInfo

#: Name of a partition; None for all partitions of a collection.
Partition: TypeAlias = str | None

#: States of a collection or partition (common_pb2.LoadState).
_LOADING, _LOADED = 2, 3
#: Seconds between two questions whether a collection is loaded.
_POLL_INTERVAL = 0.2
#: Seconds without progress until loading counts as stuck (a choice: as long as Weaviate's tenants
#: may take to wake).
_STUCK_AFTER = 1_800


def list_unloaded(connection: Connection, collection: CollectionInfo) -> list[Partition]:
    """List the partitions that cannot be read because they are not loaded."""
    return [
        partition
        for partition in collection.partitions
        if _load_state(connection, collection.name, partition) != _LOADED
    ]


@contextmanager
def load_for_run(
    connection: Connection, collections: Sequence[CollectionInfo]
) -> Iterator[dict[str, list[Partition]]]:
    """Load what is not loaded, and release the same at the end, also after an error.

    Yields:
        collection -> the partitions that were loaded.

    Raises:
        SourceError: the server stopped loading, or made no progress for half an hour.
    """
    loaded: list[tuple[CollectionInfo, list[Partition]]] = []
    try:
        for collection in collections:
            if partitions := list_unloaded(connection, collection):
                loaded.append((collection, partitions))
                _load(connection, collection, partitions)
        yield {collection.name: partitions for collection, partitions in loaded}
    finally:
        for collection, partitions in loaded:
            _release(connection, collection, partitions)


def _load(connection: Connection, collection: CollectionInfo, partitions: list[Partition]) -> None:
    """Load partitions and wait until they are loaded; all partitions: load the collection."""
    if len(partitions) == len(collection.partitions):
        connection.call("LoadCollection", collection_name=collection.name, replica_number=1)
    else:
        connection.call(
            "LoadPartitions",
            collection_name=collection.name,
            partition_names=partitions,
            replica_number=1,
        )
    for partition in partitions:
        _wait_until_loaded(connection, collection.name, partition)


def _wait_until_loaded(connection: Connection, collection: str, partition: Partition) -> None:
    percent, deadline = -1, 0.0
    while (state := _load_state(connection, collection, partition)) != _LOADED:
        if state != _LOADING:
            raise SourceError(
                f"the server stopped loading collection {collection}",
                "see the server's log; it may lack memory",
            )
        if (progress := _load_percent(connection, collection, partition)) != percent:
            percent, deadline = progress, time.monotonic() + _STUCK_AFTER
        elif time.monotonic() > deadline:
            raise SourceError(
                f"the server has been loading collection {collection} without progress "
                f"for {_STUCK_AFTER} s, at {percent} %",
                "see the server's log; it may lack memory",
            )
        time.sleep(_POLL_INTERVAL)


def _load_state(connection: Connection, collection: str, partition: Partition) -> int:
    names = [partition] if partition else []
    reply = connection.call("GetLoadState", collection_name=collection, partition_names=names)
    return int(reply.state)


def _load_percent(connection: Connection, collection: str, partition: Partition) -> int:
    names = [partition] if partition else []
    reply = connection.call("GetLoadingProgress", collection_name=collection, partition_names=names)
    return int(reply.progress)


def _release(
    connection: Connection, collection: CollectionInfo, partitions: list[Partition]
) -> None:
    if len(partitions) == len(collection.partitions):
        connection.call("ReleaseCollection", collection_name=collection.name)
    else:
        connection.call(
            "ReleasePartitions", collection_name=collection.name, partition_names=partitions
        )
