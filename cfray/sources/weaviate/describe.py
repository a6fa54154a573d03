"""What Weaviate says of the collections and tenants of a job before any object is read.

Everything here comes from the definitions and from a look at some objects; live reads and
exports are described alike.

Source: https://docs.weaviate.io/weaviate/config-refs/collections
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cfray.records.record import canonical
from cfray.sources.base import Collection
from cfray.sources.weaviate.schema import Definition, has_tenants, parse_definition
from cfray.sources.weaviate.tenants import SourceCollection

#: Collections that a note lists.
_LISTED_COLLECTIONS = 5


def describe_collection(
    collection: SourceCollection,
    rows: int | None,
    definitions: Mapping[str, Mapping[str, Any]],
    widths: Mapping[str, int],
    aliases: Mapping[str, Sequence[str]],
) -> Collection:
    """Describe a collection or tenant; its definition is carried over unabridged.

    Args:
        collection: what is described.
        rows: counted.
        definitions: every collection of the server, as REST gives it.
        widths: width of each vector that was seen.
        aliases: collection -> its aliases.
    """
    definition = definitions[collection.collection]
    parsed = parse_definition(definition)
    facts = {"class": canonical(definition)}
    if collection.tenant:
        facts["tenant"] = collection.tenant
    if collection_aliases := aliases.get(collection.collection):
        facts["aliases"] = ", ".join(sorted(collection_aliases))
    # an index that no object has a vector in says nothing of how the others are searched
    indexes = {
        column: index
        for column, index in parsed.vectors.items()
        if (column in widths or not rows) and not index.is_multi
    }
    main_index = indexes.pop("", None)
    named_vectors = {
        column: (widths.get(column), index.metric) for column, index in indexes.items()
    }
    return Collection(
        collection.name,
        rows,
        widths.get("") if main_index else None,
        main_index.metric if main_index else None,
        named_vectors,
        facts,
        _declared_references(parsed, collection.tenant, definitions),
    )


def _declared_references(
    collection: Definition, tenant: str, definitions: Mapping[str, Mapping[str, Any]]
) -> dict[str, str]:
    """Say where the references of a collection or tenant point: path -> source collection.

    A reference stays inside its tenant, and from a collection without tenants none leads into one.
    """
    targets_by_path: dict[str, str] = {}
    for field, targets in collection.references.items():
        for target in targets:
            path = f"{field}.{target}" if len(targets) > 1 else field
            if not has_tenants(definitions.get(target, {})):
                targets_by_path[path] = target
            elif tenant:
                targets_by_path[path] = f"{target}/{tenant}"
    return targets_by_path


def common_references(collections: Sequence[Collection]) -> dict[str, str]:
    """Give the references that all collections that have them declare alike."""
    targets_by_path: dict[str, set[str]] = {}
    for collection in collections:
        for path, target in collection.references.items():
            targets_by_path.setdefault(path, set()).add(target)
    return {path: targets.pop() for path, targets in targets_by_path.items() if len(targets) == 1}


def alias_notes(collections: Sequence[SourceCollection]) -> list[str]:
    """Say which collections are read that the job names by an alias."""
    pairs = {(collection.alias, collection.collection) for collection in collections}
    return [
        f"{alias} is an alias of {name}, which is read" for alias, name in sorted(pairs) if alias
    ]


def vector_notes(
    definitions: Mapping[str, Definition], widths: Mapping[str, Mapping[str, int]]
) -> list[str]:
    """Say which vectors no index of the target compares alike, and which were not seen.

    Args:
        definitions: source collection -> definition.
        widths: source collection that has objects -> width of each vector that was seen.
    """
    distances: dict[tuple[str, str], list[str]] = {}
    unseen: dict[str, list[str]] = {}
    for name, definition in sorted(definitions.items()):
        for column, index in definition.vectors.items():
            path = f"vectors.{column}" if column else "vector"
            if index.distance and index.metric is None:
                distances.setdefault((path, index.distance), []).append(name)
            if name in widths and column not in widths[name]:
                unseen.setdefault(path, []).append(name)
    return [
        *(
            f"{path} of {_listed(names)} is compared by {distance}, which no index of the target "
            "has; index.vector.metric says what the target's compares by"
            for (path, distance), names in sorted(distances.items())
        ),
        *(
            f"no object that was looked at has {path} of {_listed(names)}"
            + ("" if path == "vector" else "; where one has it, custom_metadata keeps it")
            for path, names in sorted(unseen.items())
        ),
    ]


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _LISTED_COLLECTIONS
    listed = ", ".join(names[:_LISTED_COLLECTIONS])
    return f"{listed} and {more} more" if more > 0 else listed
