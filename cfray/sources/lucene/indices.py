"""Which indices there are, and what the names in ``source.collections`` stand for.

A source collection is an index, because an id is unique in an index alone: a data stream and an
alias of several indices are read as these indices.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from cfray.errors import SourceError
from cfray.sources.lucene.errors import NoPermission
from cfray.sources.lucene.facts import IndexFacts
from cfray.sources.lucene.server import Server, path_of

#: What a mark says of operations that were numbered and had not ended.
UNDER_WAY = "under way"


@dataclass(frozen=True, slots=True)
class Catalog:
    """What a server lists.

    Attributes:
        visible: indices that are read where no name is given: open, and not hidden.
        open: all open indices.
        closed: indices that cannot be read, hidden ones left out.
        groups: alias or data stream -> its indices.
        filtered: aliases that show a part of their index.
    """

    visible: tuple[str, ...]
    open: frozenset[str]
    closed: tuple[str, ...]
    groups: Mapping[str, tuple[str, ...]]
    filtered: frozenset[str] = field(default_factory=frozenset)

    def unread(self) -> Iterator[str]:
        """Say which indices are passed over where no name is given."""
        if self.closed:
            yield f"not read, because they are closed: {', '.join(self.closed)}"


def list_catalog(server: Server) -> Catalog:
    """Ask the server for its indices, aliases and data streams."""
    listed = server.send("GET", "/_resolve/index/*", expand_wildcards="all")
    streams = {
        stream["name"]: tuple(_as_list(stream["backing_indices"]))
        for stream in listed["data_streams"]
    }
    backing = {index for indices in streams.values() for index in indices}
    states = {index["name"]: index["attributes"] for index in listed["indices"]}
    groups = {alias["name"]: tuple(_as_list(alias["indices"])) for alias in listed["aliases"]}
    shown = [name for name in states if "hidden" not in states[name] and name[0] != "."]
    shown += sorted(backing)
    return Catalog(
        visible=tuple(sorted(name for name in shown if "open" in states[name])),
        open=frozenset(name for name in states if "open" in states[name]),
        closed=tuple(sorted(name for name in shown if "open" not in states[name])),
        groups={**groups, **streams},
        filtered=_filtered_aliases(server) if groups else frozenset(),
    )


def _as_list(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else sorted(value)


def _filtered_aliases(server: Server) -> frozenset[str]:
    indices = server.send("GET", "/_alias", expand_wildcards="all")
    return frozenset(
        name
        for index in indices.values()
        for name, alias in index.get("aliases", {}).items()
        if "filter" in alias
    )


def choose_indices(server: Server, catalog: Catalog) -> dict[str, str]:
    """Give the indices to read, sorted: index -> the name that stands for it in the job file.

    Raises:
        SourceError: a name stands for nothing, for a part of an index, or for a closed index; or
            two names for one index.
    """
    settings = server.settings
    chosen: dict[str, str] = {}
    for name in dict.fromkeys(settings.collections or ()):
        for index in _expand(server, catalog, name):
            first = chosen.setdefault(index, name)
            if first != name:
                raise SourceError(
                    f"source.collections names the index {index} twice, by {first} and by {name}",
                    "name it once: its records would be read twice",
                )
    if settings.collections:
        return dict(sorted(chosen.items()))
    return {index: index for index in settings.choose_collections(catalog.visible)}


def _expand(server: Server, catalog: Catalog, name: str) -> list[str]:
    """Give the indices that a name stands for."""
    settings = server.settings
    if name in catalog.filtered:
        raise SourceError(
            f"the alias {name} of {settings.address} has a filter: it shows a part of its index",
            "name the index in source.collections, and leave out what the filter hides by "
            "deleting it from a copy of the index",
        )
    if name in catalog.closed:
        raise SourceError(
            f"the index {name} of {settings.address} is closed",
            f"open it (POST {path_of(name)}/_open), or take it out of source.collections",
        )
    if name in catalog.open:
        return [name]
    if name in catalog.groups:
        indices = list(catalog.groups[name])
        if closed := [index for index in indices if index not in catalog.open]:
            raise SourceError(
                f"{name} of {settings.address} has closed indices: {', '.join(closed)}",
                "open them, or name the indices to read in source.collections",
            )
        return indices
    if "*" in name:
        matching = [index for index in catalog.visible if fnmatchcase(index, name)]
        if matching:
            return matching
    # raises, and names the nearest name
    return settings.model_copy(update={"collections": [name]}).choose_collections(
        {*catalog.open, *catalog.groups}
    )


def fetch_facts(server: Server, index: str) -> IndexFacts:
    """Ask the server for the mapping, the settings and the aliases of an index."""
    described = server.send("GET", path_of(index), flat_settings="true")
    # an index that was just named answers under its own name
    (facts,) = described.values()
    return IndexFacts(
        index,
        facts.get("mappings") or {},
        facts.get("settings") or {},
        tuple(sorted(facts.get("aliases") or {})),
    )


def mark_index(server: Server, index: str) -> str:
    """Count the operations that an index's primary shards have numbered: each write has a number.

    Raises:
        NoPermission: the credential may not read the statistics of the index.
    """
    answer = server.send(
        "GET", path_of(index, "_stats", "docs"), level="shards", filter_path="indices.*.shards"
    )
    numbers = [
        copy["seq_no"]
        for stats in answer["indices"].values()
        for copies in stats["shards"].values()
        for copy in copies
        if copy["routing"]["primary"]
    ]
    operations = sum(number["max_seq_no"] + 1 for number in numbers)
    # what every copy has: what the primary alone has may be numbered again after it is lost
    checkpoints = [
        min(number["local_checkpoint"], number["global_checkpoint"]) for number in numbers
    ]
    ended = sum(checkpoint + 1 for checkpoint in checkpoints)
    words = f"{operations:,} operations"
    return words if ended == operations else f"{words}, {operations - ended:,} {UNDER_WAY}"


def history_of(server: Server, index: str) -> str:
    """Give the ids of the histories of an index's shards, without repetition; empty: unknown.

    Raises:
        NoPermission: the credential may not read the statistics of the index.
    """
    answer = server.send(
        "GET",
        path_of(index, "_stats", "docs"),
        level="shards",
        filter_path="indices.*.shards.*.commit.user_data.history_uuid",
    )
    histories = {
        copy["commit"]["user_data"]["history_uuid"]
        for stats in answer.get("indices", {}).values()
        for copies in stats["shards"].values()
        for copy in copies
    }
    return ", ".join(sorted(histories))


def refresh(server: Server, index: str) -> bool:
    """Make every document that was written to an index searchable; False: the credential may not.

    An index is refreshed by itself each second, or seldom, or never (``refresh_interval: -1``), and
    until then a search does not see what was written and acknowledged.
    """
    try:
        answer = server.send("POST", path_of(index, "_refresh"))
    except NoPermission:
        return False
    shards = answer["_shards"]
    if shards.get("failed"):
        raise SourceError(
            f"{shards['failed']} of {shards['total']} shards of the index {index} could not be "
            "refreshed",
            "bring the index's shards back, then run the same command again",
        )
    return True
