"""Say what is worth keeping of a Milvus collection, and what an operator should know of it."""

from __future__ import annotations

from collections.abc import Mapping

from cfray.records.record import canonical
from cfray.sources.base import Collection, Metric
from cfray.sources.milvus.schema import CollectionInfo, partition_key_field

#: Milvus's metric -> Lance's.
_METRICS: dict[str, Metric] = {"COSINE": "cosine", "L2": "l2", "IP": "dot"}


def describe_collection(
    source_collection: str,
    collection: CollectionInfo,
    rows: int,
    indexes: Mapping[str, dict[str, str]],
) -> Collection:
    """Describe a collection.

    Args:
        source_collection: its name as a source collection.
        collection: what the server says of it.
        rows: counted.
        indexes: field -> parameters of its index.
    """
    vectors = {
        name: (field.dimension, _metric(indexes.get(field.name, {})))
        for name, field in collection.schema.vectors.items()
        if field.is_numbers
    }
    dimension, metric = vectors.pop("", (None, None))
    facts = _facts(collection, indexes)
    return Collection(source_collection, rows, dimension, metric, vectors, facts)


def _metric(index: Mapping[str, str]) -> Metric | None:
    """Give an index's metric by Lance's name; None for a metric that Lance does not have."""
    return _METRICS.get(index.get("metric_type", "").upper())


def _facts(collection: CollectionInfo, indexes: Mapping[str, dict[str, str]]) -> dict[str, str]:
    """Write what the server says of a collection, without what is empty."""
    from pymilvus.grpc_gen import common_pb2, schema_pb2

    description, schema = collection.description, collection.schema
    declared = description.schema
    functions = {
        function.name: [
            schema_pb2.FunctionType.Name(function.type),
            list(function.input_field_names),
            list(function.output_field_names),
        ]
        for function in declared.functions
    }
    facts: dict[str, object] = {
        "primary_field": schema.primary.name,
        "fields": {field.name: field.type_text for field in schema.fields},
        "nullable": [field.name for field in declared.fields if field.nullable],
        "indexes": dict(indexes),
        "functions": functions,
        "computed_by_the_server": list(schema.index_only),
        "partition_key": partition_key_field(description),
        "partitions": [name for name in collection.partitions if name is not None],
        "aliases": sorted(description.aliases),
        "properties": {pair.key: pair.value for pair in description.properties},
        "description": declared.description,
        "consistency_level": common_pb2.ConsistencyLevel.Name(description.consistency_level),
        "dynamic_field": schema.is_dynamic,
        "auto_id": any(field.autoID for field in declared.fields),
        "shards": description.shards_num,
    }
    return {
        name: fact if isinstance(fact, str) else canonical(fact)
        for name, fact in facts.items()
        if fact or fact is False
    }


def collection_notes(
    source_collection: str, collection: CollectionInfo, hidden_rows: int
) -> list[str]:
    """Say what an operator should know of a collection.

    Args:
        source_collection: its name as a source collection.
        collection: what the server says of it.
        hidden_rows: rows that the server counts and gives in no query.
    """
    notes = []
    if hidden_rows > 0:
        notes.append(
            f"{source_collection}: {hidden_rows} rows have the primary key of another row; "
            "queries give one row for a key, the other rows will be quarantined"
        )
    if names := ", ".join(collection.schema.index_only):
        notes.append(
            f"{source_collection}: {names} is computed by the server for its index and not given; "
            "it is left out"
        )
    return notes
