"""Weaviate's own Parquet export: a shard is a run of row groups of one file.

The files name no types: dates, uuids and blobs are strings in them, and a number with no
fraction looks like an integer.  ``schema.json`` beside them, the answer of
``GET /v1/schema``, names the types; with it, records equal those of a live read to the bit.

Source: weaviate 1.39, usecases/export/ARCHITECTURE.md and parquet_writer.go.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson
import pyarrow as pa

from cfray.formats.columns import split_by_bytes
from cfray.records.record import Reject
from cfray.sources.base import Collection, Context, Description, Json, Shard
from cfray.sources.files import rowgroups
from cfray.sources.files.listing import PinnedFile
from cfray.sources.weaviate.batches import build_records
from cfray.sources.weaviate.describe import (
    common_references,
    describe_collection,
    vector_notes,
)
from cfray.sources.weaviate.export_files import find_export, read_definitions
from cfray.sources.weaviate.export_sample import ExportSample, is_reference, sample_export
from cfray.sources.weaviate.export_vectors import MULTI, build_vectors
from cfray.sources.weaviate.schema import Definition, index_of_column, parse_definition
from cfray.sources.weaviate.settings import WeaviateSettings
from cfray.sources.weaviate.tenants import SourceCollection
from cfray.sources.weaviate.types import (
    beacon_collections,
    object_time,
    reference_values,
    value_converter,
)

#: Minus zero without a fraction, which a parser of integers would make 0.
_MINUS_ZERO = re.compile(rb"-0[,\]}]")


def plan_shards(settings: WeaviateSettings) -> list[Shard]:
    """Cut every file into runs of row groups of about ``shard_bytes``."""
    export = find_export(settings)
    schema_pin = export.schema.to_json() if export.schema else None
    samples = sample_export(export.files, _parse_definitions(export.schema))
    shards = []
    for file in export.files:
        sample = samples[file.name]
        for part in rowgroups.split_file(file.pin, settings.shard_bytes):
            where: dict[str, Json] = {
                **part.where,
                "file": file.pin.to_json(),
                "schema": schema_pin,
                "vectors": {name: list(kind) for name, kind in sample.vectors.items()},
                "references": {
                    name: list[Json](sorted(targets)) for name, targets in sample.references.items()
                },
            }
            shard = Shard(
                f"{file.name}#{file.pin.name}:{part.label}",
                where,
                part.rows,
                part.size,
                file.name,
                splittable=part.size <= settings.shard_bytes,
            )
            shards.append(shard)
    return shards


def read_shard(
    settings: WeaviateSettings, shard: Shard, context: Context
) -> Iterator[pa.RecordBatch | Reject]:
    """Decode a run of row groups."""
    where: Any = shard.where
    schema = PinnedFile.from_json(where["schema"]) if where["schema"] else None
    collection = _parse_definitions(schema).get(shard.collection.split("/")[0])
    file = PinnedFile.from_json(where["file"])
    for item in rowgroups.read_part(file, where, context.batch_bytes):
        if isinstance(item, Reject):
            yield item
        else:
            records = _build_records(item, collection, where, with_times=settings.object_times)
            yield from split_by_bytes(records, context.batch_bytes)


def _build_records(
    batch: pa.RecordBatch,
    collection: Definition | None,
    planned: Mapping[str, Any],
    *,
    with_times: bool,
) -> pa.RecordBatch:
    ids = [bytes.fromhex(text.replace("-", "")) for text in batch.column("id").to_pylist()]
    # a plan of an earlier version has no references
    references = planned.get("references")
    payload = [
        _read_declared(_parse_properties(text), collection, references)
        if collection
        else _read_undeclared(_parse_properties(text), references)
        for text in batch.column("properties").to_pylist()
    ]
    if with_times:
        keys = collection.time_keys if collection else ("_creation_time", "_update_time")
        for key, column in zip(keys, ("creation_time", "update_time"), strict=True):
            for row, milliseconds in zip(payload, batch.column(column).to_pylist(), strict=True):
                row[_free_key(key, row)] = object_time(milliseconds)
    vectors = build_vectors(batch, planned["vectors"])
    return build_records(pa.array(ids, pa.binary(16)), vectors, payload, planned["vectors"])


def _free_key(key: str, row: Mapping[str, object]) -> str:
    """Give a key that no property has, where no definition tells what properties there are."""
    while key in row:
        key = f"_{key}"
    return key


def _parse_definitions(schema: PinnedFile | None) -> dict[str, Definition]:
    return {
        name: parse_definition(definition) for name, definition in read_definitions(schema).items()
    }


def _read_declared(
    content: dict[str, Any],
    collection: Definition,
    references: Mapping[str, Sequence[str]] | None,
) -> dict[str, object]:
    """Read an object's properties by their declared types.

    Properties that were declared after the definitions were saved are read as JSON shows them.
    """
    properties: dict[str, object] = {}
    for declared in collection.properties:
        if (value := content.pop(declared.name, None)) is not None:
            properties[declared.name] = value_converter(declared)(value)
    for name, targets in collection.references.items():
        if beacons := content.pop(name, None):
            properties |= reference_values(name, beacons, targets)
    return properties | _read_undeclared(content, references) if content else properties


def _read_undeclared(
    content: Mapping[str, Any], references: Mapping[str, Sequence[str]] | None
) -> dict[str, object]:
    """Read an object's properties as JSON shows them.

    Args:
        content: the properties.
        references: reference property -> the collections that the plan saw in its beacons.
    """
    properties: dict[str, object] = {}
    for name, value in content.items():
        if is_reference(value):
            targets = beacon_collections(value) if references is None else references.get(name, ())
            properties |= reference_values(name, value, targets)
        elif value is not None:
            properties[name] = value
    return properties


def _parse_properties(text: bytes | None) -> dict[str, Any]:
    if not text:
        return {}
    if _MINUS_ZERO.search(text):
        return dict(json.loads(text, parse_int=_parse_integer))
    return dict(orjson.loads(text))


def _parse_integer(text: str) -> int | float:
    return -0.0 if text == "-0" else int(text)


def describe_export(
    settings: WeaviateSettings, base: Description, shards: list[Shard]
) -> Description:
    """Say what the export holds and what it left out."""
    export = find_export(settings)
    definitions = read_definitions(export.schema)
    notes = [f"left out by the server: {tenant}" for tenant in export.skipped_tenants]
    if export.schema is None:
        notes.append(
            "the export names no types and no distances, so dates, uuids and blobs are read as "
            "strings; save GET /v1/schema as schema.json in its folder"
        )
    samples = sample_export(export.files, _parse_definitions(export.schema))
    collections: list[Collection] = []
    declared: dict[str, Definition] = {}
    for name, class_name in sorted({(file.name, file.collection) for file in export.files}):
        sample = samples[name]
        # what the objects of one tenant show says nothing of another's
        shown = {class_name: _guess_definition(class_name, sample)} | definitions
        declared[name] = parse_definition(shown[class_name])
        collection = describe_collection(
            SourceCollection(name, class_name, name.partition("/")[2], "ACTIVE"),
            sum(shard.rows or 0 for shard in shards if shard.collection == name),
            shown,
            sample.widths,
            {},
        )
        collections.append(collection)
    notes += vector_notes(declared, {name: sample.widths for name, sample in samples.items()})
    return replace(
        base,
        consistency="pinned files",
        notes=tuple(notes),
        collections=tuple(collections),
        references=common_references(collections),
    )


def _guess_definition(name: str, sample: ExportSample) -> dict[str, Any]:
    """Make the definition that the objects of an export without definitions show."""
    return {
        "class": name,
        "vectorConfig": {
            index_of_column(column): {
                "vectorIndexConfig": {"multivector": {"enabled": depth == MULTI}}
            }
            for column, (_, depth) in sample.vectors.items()
        },
        "properties": [
            {"name": reference, "dataType": sorted(targets)}
            for reference, targets in sample.references.items()
            if "" not in targets
        ],
    }
