"""Which collections and tenants a job reads, and which of them are active.

Reading an inactive tenant wakes it where the collection allows that, and a migration must not
change its source.  So the states are looked at first, and a tenant is woken only where the job
file says so.

Source: https://docs.weaviate.io/weaviate/manage-collections/tenant-states
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from cfray.errors import SourceError
from cfray.sources.weaviate.client import Connection
from cfray.sources.weaviate.schema import parse_definition
from cfray.sources.weaviate.settings import WeaviateSettings

#: Seconds that tenants may take to wake: an offloaded tenant is fetched from cold storage first.
_WAKE_TIMEOUT = 1_800
#: Seconds between two looks at the states of tenants that wake.
_POLL_INTERVAL = 0.2
#: Inactive tenants that an error lists, and tenants that do not wake.
_LISTED_INACTIVE, _LISTED_LATE = 50, 20


class SourceCollection(NamedTuple):
    """A collection, or one tenant of a collection.

    Attributes:
        name: ``collection`` or ``collection/tenant``.
        collection: name of the collection.
        tenant: empty where the collection has no tenants.
        state: the tenant's; ``ACTIVE`` where the collection has no tenants.
        alias: by which alone the job names the collection; empty where the job names it itself.
    """

    name: str
    collection: str
    tenant: str
    state: str
    alias: str = ""

    @property
    def is_active(self) -> bool:
        """Tell whether its objects can be read without waking it."""
        return self.state == "ACTIVE"


def list_source_collections(
    settings: WeaviateSettings, connection: Connection
) -> list[SourceCollection]:
    """List what the job reads, whatever its state; an alias stands for its collection.

    Raises:
        SourceError: the job names a collection or tenant that is none, and no alias of one.
    """
    definitions = connection.fetch_definitions()
    settings, aliases = _resolve_aliases(settings, connection, definitions)
    requested = {name.split("/", 1)[0] for name in settings.collections or definitions}
    collections: list[SourceCollection] = []
    for name in sorted(requested & set(definitions)):
        alias = aliases.get(name, "")
        if parse_definition(definitions[name]).has_tenants:
            collections += [
                SourceCollection(f"{name}/{tenant}", name, tenant, state, alias)
                for tenant, state in sorted(connection.fetch_tenant_states(name).items())
            ]
        else:
            collections.append(SourceCollection(name, name, "", "ACTIVE", alias))
    chosen = set(
        settings.choose_collections(
            {*definitions, *(collection.name for collection in collections)}
        )
    )
    return [
        collection
        for collection in collections
        if not settings.collections or chosen & {collection.name, collection.collection}
    ]


def _resolve_aliases(
    settings: WeaviateSettings, connection: Connection, definitions: Collection[str]
) -> tuple[WeaviateSettings, dict[str, str]]:
    """Replace the aliases in the job's list of collections.

    Returns:
        The settings with the names of collections, and collection -> its alias for each that only
        an alias names.
    """
    aliases: dict[str, str] = {}
    names: list[str] = []
    for name in settings.collections or []:
        first, slash, tenant = name.partition("/")
        collection = None if first in definitions else connection.resolve_alias(first)
        if collection:
            aliases[collection] = first
        names.append(f"{collection or first}{slash}{tenant}")
    named_itself = {name.split("/", 1)[0] for name in settings.collections or []}
    return settings.model_copy(update={"collections": names or None}), {
        collection: alias for collection, alias in aliases.items() if collection not in named_itself
    }


def select_active(
    settings: WeaviateSettings, connection: Connection
) -> tuple[list[SourceCollection], list[str]]:
    """List the active collections and tenants of the job, and name the tenants that are skipped.

    Raises:
        SourceError: tenants are inactive, and the job file does not allow to skip them.
    """
    collections = list_source_collections(settings, connection)
    inactive = [
        f"{collection.name} ({collection.state})"
        for collection in collections
        if not collection.is_active
    ]
    if inactive and settings.inactive_tenants != "skip":
        more = len(inactive) - _LISTED_INACTIVE
        names = ", ".join(inactive[:_LISTED_INACTIVE]) + (f" and {more} more" if more > 0 else "")
        raise SourceError(
            f"{len(inactive)} tenants of {settings.address} are not active: {names}",
            "write source.inactive_tenants: skip or activate, "
            "or name the other tenants in source.collections",
        )
    return [collection for collection in collections if collection.is_active], inactive


@contextmanager
def wake_tenants(settings: WeaviateSettings, connection: Connection) -> Iterator[list[str]]:
    """Wake the inactive tenants of the job, name them, and restore their states at the end.

    Raises:
        SourceError: a tenant does not wake.
    """

    def list_inactive() -> list[SourceCollection]:
        collections = list_source_collections(settings, connection)
        return [collection for collection in collections if not collection.is_active]

    states_before: dict[str, dict[str, str]] = {}
    for inactive in list_inactive():
        # a state that is changing already is restored as what it changes to
        state = {"OFFLOADING": "OFFLOADED", "ONLOADING": "ACTIVE"}.get(
            inactive.state, inactive.state
        )
        states_before.setdefault(inactive.collection, {})[inactive.tenant] = state
    try:
        for collection, states in states_before.items():
            connection.change_tenant_states(collection, dict.fromkeys(states, "ACTIVE"))
        _wait_until_active(list_inactive)
        yield [
            f"{collection}/{tenant} ({state})"
            for collection, states in states_before.items()
            for tenant, state in states.items()
        ]
    finally:
        for collection, states in states_before.items():
            connection.change_tenant_states(collection, states)


def _wait_until_active(list_inactive: Callable[[], list[SourceCollection]]) -> None:
    deadline = time.monotonic() + _WAKE_TIMEOUT
    while late := [collection.name for collection in list_inactive()]:
        if time.monotonic() > deadline:
            raise SourceError(
                f"tenants do not wake: {', '.join(late[:_LISTED_LATE])}",
                "see the server's log, or write inactive_tenants: skip",
            )
        time.sleep(_POLL_INTERVAL)
