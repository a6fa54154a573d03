"""One cluster time for all reads of a run.

The first read with the concern ``snapshot`` gets a time from the server, and every later
read asks for that time.  The server keeps it for a while (300 seconds unless
``minSnapshotHistoryWindowInSeconds`` says otherwise), and nothing that a client does keeps
it longer.

Source: https://www.mongodb.com/docs/manual/reference/read-concern-snapshot/
"""

from __future__ import annotations

from typing import Any

from cfray.sources.base import Session
from cfray.sources.mongodb import errors
from cfray.sources.mongodb.catalog import read_catalog
from cfray.sources.mongodb.client import Connection


def take_snapshot(connection: Connection) -> Session:
    """Let the server name a cluster time.

    Raises:
        SourceError: it gives none: it is no replica set, too old, or ignores what it is asked.
    """
    entry = read_catalog(connection).chosen[0]
    command: dict[str, Any] = {
        "find": entry.name,
        "filter": {},
        "limit": 1,
        "singleBatch": True,
        "projection": {"_id": 1},
    }
    answer = connection.find_at(entry.database, command, {"level": "snapshot"})
    if answer.time is None:
        raise errors.no_snapshot(connection.settings.address)
    seconds, counter = answer.time
    return Session(
        f"cluster-time-{seconds}-{counter}",
        consistency="snapshot",
        state={"seconds": seconds, "counter": counter},
    )
