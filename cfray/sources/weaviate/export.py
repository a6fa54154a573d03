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
import pyarrow.parquet as pq

from cfray.formats.columns import split_by_bytes
from cfray.records.record import Reject
from cfray.sources.base import Context, Description, Json, Shard
from cfray.sources.files import rowgroups
from cfray.sources.files.listing import PinnedFile, explain_read_errors, open_file
from cfray.sources.weaviate.batches import build_records
from cfray.sources.weaviate.export_files import ExportFile, find_export, read_definitions
from cfray.sources.weaviate.export_vectors import MULTI, SINGLE, VECTOR_COLUMNS, build_vectors
from cfray.sources.weaviate.schema import (
    Definition,
    describe_collection,
    index_of_column,
    parse_definition,
)
from cfray.sources.weaviate.settings import WeaviateSettings
from cfray.sources.weaviate.types import object_time, reference_value, value_converter

#: Records whose vectors are looked at for their widths.
_SAMPLE_ROWS = 100
#: Minus zero without a fraction, which a parser of integers would make 0.
_MINUS_ZERO = re.compile(rb"-0[,\]}]")


def plan_shards(settings: WeaviateSettings) -> list[Shard]:
    """Cut every file into runs of row groups of about ``shard_bytes``."""
    export = find_export(settings)
    schema_pin = export.schema.to_json() if export.schema else None
    vector_kinds = _sample_vectors(export.files)
    shards = []
    for file in export.files:
        for part in rowgroups.split_file(file.pin, settings.shard_bytes):
            where: dict[str, Json] = {
                **part.where,
                "file": file.pin.to_json(),
                "schema": schema_pin,
                "vectors": {name: list(kind) for name, kind in vector_kinds[file.name].items()},
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


def _sample_vectors(files: list[ExportFile]) -> dict[str, dict[str, tuple[int, int]]]:
    """Look at the vectors of the first records of each collection or tenant.

    Returns:
        Collection or tenant -> name of a vector -> (width, ``SINGLE`` or ``MULTI``).
    """
    kinds_by_name: dict[str, dict[str, tuple[int, int]]] = {}
    for file in files:
        if file.name in kinds_by_name:
            continue
        with explain_read_errors(file.pin), open_file(file.pin) as stream:
            batches = pq.ParquetFile(stream).iter_batches(_SAMPLE_ROWS, columns=VECTOR_COLUMNS)
            batch = next(batches, None)
        kinds_by_name[file.name] = {}
        for name, array in (build_vectors(batch, {}) if batch else {}).items():
            depth = MULTI if pa.types.is_list(array.type) else SINGLE
            vector_type = array.type.value_type if depth == MULTI else array.type
            if pa.types.is_fixed_size_list(vector_type):
                kinds_by_name[file.name][name] = (vector_type.list_size, depth)
    return kinds_by_name


def read_shard(
    settings: WeaviateSettings, shard: Shard, context: Context
) -> Iterator[pa.RecordBatch | Reject]:
    """Decode a run of row groups."""
    where: Any = shard.where
    schema = PinnedFile.from_json(where["schema"]) if where["schema"] else None
    definition = read_definitions(schema).get(shard.collection.split("/")[0])
    collection = parse_definition(definition) if definition else None
    file = PinnedFile.from_json(where["file"])
    for item in rowgroups.read_part(file, where, context.batch_bytes):
        if isinstance(item, Reject):
            yield item
        else:
            records = _build_records(
                item, collection, where["vectors"], with_times=settings.object_times
            )
            yield from split_by_bytes(records, context.batch_bytes)


def _build_records(
    batch: pa.RecordBatch,
    collection: Definition | None,
    planned_vectors: Mapping[str, Sequence[int]],
    *,
    with_times: bool,
) -> pa.RecordBatch:
    ids = [bytes.fromhex(text.replace("-", "")) for text in batch.column("id").to_pylist()]
    payload = [
        _read_properties(text, collection) for text in batch.column("properties").to_pylist()
    ]
    if with_times:
        keys = collection.time_keys if collection else ("_creation_time", "_update_time")
        for key, column in zip(keys, ("creation_time", "update_time"), strict=True):
            for row, milliseconds in zip(payload, batch.column(column).to_pylist(), strict=True):
                row[key] = object_time(milliseconds)
    return build_records(
        pa.array(ids, pa.binary(16)), build_vectors(batch, planned_vectors), payload
    )


def _read_properties(text: bytes | None, collection: Definition | None) -> dict[str, object]:
    """Read an object's properties by their declared types, or as JSON shows them."""
    content = _parse_properties(text) if text else {}
    if collection is None:
        return {
            key: reference_value(value) if _is_reference(value) else value
            for key, value in content.items()
            if value is not None
        }
    properties: dict[str, object] = {}
    for declared in collection.properties:
        if (value := content.get(declared.name)) is not None:
            properties[declared.name] = value_converter(declared)(value)
    return properties | {
        key: reference_value(content[key], targets)
        for key, targets in collection.references.items()
        if content.get(key)
    }


def _parse_properties(text: bytes) -> dict[str, Any]:
    if _MINUS_ZERO.search(text):
        return dict(json.loads(text, parse_int=_parse_integer))
    return dict(orjson.loads(text))


def _parse_integer(text: str) -> int | float:
    return -0.0 if text == "-0" else int(text)


def _is_reference(value: object) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(element, dict) and "beacon" in element for element in value)
    )


def describe_export(
    settings: WeaviateSettings, base: Description, shards: list[Shard]
) -> Description:
    """Say what the export holds and what it left out."""
    export = find_export(settings)
    definitions = read_definitions(export.schema)
    notes = [f"left out by the server: {tenant}" for tenant in export.skipped_tenants]
    if export.schema is None:
        notes.append(
            "the export names no types, so dates, uuids and blobs are read as strings; "
            "save GET /v1/schema as schema.json in its folder"
        )
    collections = []
    for name, vector_kinds in sorted(_sample_vectors(export.files).items()):
        rows = sum(shard.rows or 0 for shard in shards if shard.collection == name)
        widths = {
            column: width for column, (width, depth) in vector_kinds.items() if depth == SINGLE
        }
        class_name = name.split("/")[0]
        definition = definitions.get(class_name) or {
            "class": class_name,
            "vectorConfig": {index_of_column(column): {} for column in widths},
        }
        collections.append(describe_collection(name, rows, definition, widths, {}))
    return replace(
        base, consistency="pinned files", notes=tuple(notes), collections=tuple(collections)
    )
