"""What the report keeps of an index: its size, its vectors, its mapping and its settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cfray.records.record import canonical
from cfray.sources.base import Collection
from cfray.sources.lucene.facts import IndexFacts
from cfray.sources.lucene.schema import IndexSchema, join_paths, parse_schema
from cfray.sources.lucene.server import Server

#: Settings that say nothing about what the index holds.
_MOMENTARY_SETTINGS = ("index.creation_date", "index.uuid", "index.version.created")


def describe_index(server: Server, facts: IndexFacts, rows: int) -> Collection:
    """Describe an index; join fields refer to its own documents."""
    schema = parse_schema(facts.mapping, server.parse_vector)
    dense = {
        name: (vector.width or None, vector.metric)
        for name, vector in schema.vectors.items()
        if not vector.is_multi
    }
    dimension, metric = dense.pop("", (None, None))
    described: dict[str, str] = {"mapping": canonical(facts.mapping)}
    kept = {
        name: value for name, value in facts.settings.items() if name not in _MOMENTARY_SETTINGS
    }
    described["settings"] = canonical(kept)
    if facts.aliases:
        described["aliases"] = canonical(list(facts.aliases))
    references = dict.fromkeys(join_paths(facts.mapping), facts.name)
    return Collection(facts.name, rows, dimension, metric, dense, described, references)


def index_notes(
    facts: IndexFacts, schema: IndexSchema, without_vector: Mapping[str, int]
) -> Iterator[str]:
    """Say what an operator should know of an index before it is read.

    Args:
        facts: of the index.
        schema: of the index.
        without_vector: path of a vector -> documents that have none.
    """
    name = facts.name
    if facts.source_mode == "synthetic":
        yield (
            f"{name}: its documents are put together from the index (synthetic _source): arrays "
            "may be sorted and without duplicates, and objects flattened, as the server gives them"
        )
    for path, count in without_vector.items():
        if count:
            yield f"{name}: {count:,} documents have no vector {path}"
    for vector in schema.vectors.values():
        if vector.metric is None and not vector.is_multi:
            yield (
                f"{name}: the similarity of {vector.path} has no counterpart in Lance's vector "
                "indexes; it is kept in the mapping"
            )
    inner = ", ".join(vector.path for vector in schema.inner_vectors)
    if inner:
        yield f"{name}: vectors within objects stay where they are in a record: {inner}"
