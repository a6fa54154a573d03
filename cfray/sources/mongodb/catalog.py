"""What a deployment holds: its databases and collections, and which of them can be read.

A view has no index of its own, a time series keeps its measurements in buckets, and a
collection with a collation orders its ids by a language.  None of them can be cut into
ranges of ``_id``: they are refused by name where the job names them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cfray.errors import SourceError
from cfray.sources.mongodb.client import Connection

#: Databases of the deployment itself.
_OWN_DATABASES = frozenset({"admin", "config", "local"})


@dataclass(frozen=True, slots=True)
class Entry:
    """A collection as ``listCollections`` describes it.

    Attributes:
        database: of the collection.
        name: in the database.
        kind: ``collection``, ``view`` or ``timeseries``.
        options: as it was created.
    """

    database: str
    name: str
    kind: str
    options: dict[str, Any]

    @property
    def full_name(self) -> str:
        """Give database and name."""
        return f"{self.database}.{self.name}"

    @property
    def why_not_read(self) -> str:
        """Say why its documents cannot be read as records; empty where they can."""
        if self.kind == "view":
            return f"it is a view of {self.options.get('viewOn', 'another collection')}"
        if self.kind == "timeseries":
            return "it is a time series, whose measurements have no unique _id"
        return ""


@dataclass(frozen=True, slots=True)
class Catalog:
    """The collections of a deployment.

    Attributes:
        chosen: those to read, by name.
        left_out: views and time series that the job does not name.
    """

    chosen: list[Entry]
    left_out: list[Entry]


def read_catalog(connection: Connection) -> Catalog:
    """List the collections, and choose those of the job.

    Raises:
        SourceError: the job names a collection that does not exist or cannot be read, or there is
            none.
    """
    settings = connection.settings
    entries = {entry.full_name: entry for entry in _entries(connection)}
    requested = set(settings.collections or ())
    readable = [
        name for name, entry in entries.items() if not entry.why_not_read or name in requested
    ]
    chosen = [entries[name] for name in settings.choose_collections(readable)]
    for entry in chosen:
        _check_readable(entry, settings.address)
    left_out = [entry for name, entry in entries.items() if name not in readable]
    return Catalog(chosen, left_out)


def _entries(connection: Connection) -> Iterator[Entry]:
    for database in _databases(connection):
        command: dict[str, Any] = {
            "listCollections": 1,
            "authorizedCollections": True,
            "cursor": {"batchSize": 100_000},
        }
        answer = connection.run(database, command)["cursor"]
        if answer.get("id"):
            raise SourceError(
                f"{connection.settings.address}: the database {database} has more collections than "
                "one answer holds",
                "name the collections in source.collections, or use a job for each database",
            )
        for listed in answer["firstBatch"]:
            if not listed["name"].startswith("system."):
                options = dict(listed.get("options") or {})
                kind = listed.get("type", "collection")
                if "timeseries" in options:
                    kind = "timeseries"
                yield Entry(database, listed["name"], kind, options)


def _databases(connection: Connection) -> list[str]:
    """List the databases to look into: those that the job names, or all."""
    settings = connection.settings
    if settings.database:
        return [settings.database]
    if settings.collections:
        return sorted({name.partition(".")[0] for name in settings.collections})
    command = {"listDatabases": 1, "nameOnly": True, "authorizedDatabases": True}
    listed = connection.run("admin", command)["databases"]
    return sorted(entry["name"] for entry in listed if entry["name"] not in _OWN_DATABASES)


def _check_readable(entry: Entry, address: str) -> None:
    """Refuse a collection that cannot be cut into ranges of ``_id``.

    Raises:
        SourceError: it is a view or a time series, or its ids are in the order of a language.
    """
    if entry.why_not_read:
        raise SourceError(
            f"{address}: {entry.full_name} cannot be read: {entry.why_not_read}",
            "name the collection that a view is of in source.collections; of a view or a time "
            "series, write a copy with $out and read the copy",
        )
    locale = (entry.options.get("collation") or {}).get("locale", "simple")
    if locale != "simple":
        raise SourceError(
            f"{address}: {entry.full_name} has the collation {locale}, so its index orders texts "
            "by language and ranges of _id cannot be checked",
            "export it with mongodump and name the dump in source.uri",
        )
