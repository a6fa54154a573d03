"""Weaviate's own Parquet export: a shard is a run of row groups of one file.

The server calls an export a success although it left offloaded tenants out, so
every shard's own status is looked at, and its count is compared with the files.
The files name no types: dates, uuids and blobs are strings in them, and a number
with no fraction looks like an integer.  ``schema.json`` beside them, the answer of
``GET /v1/schema``, tells; with it, records equal those of a live read to the bit.

Layout: weaviate 1.39, usecases/export/ARCHITECTURE.md and parquet_writer.go.
"""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj
import pyarrow.parquet as pq

from cfray.errors import SourceError
from cfray.formats.columns import pieces
from cfray.records.record import Reject
from cfray.sources.base import Context, Description, Json, Shard
from cfray.sources.files import rowgroups
from cfray.sources.files.listing import PinnedFile, listed, opened, undamaged
from cfray.sources.weaviate import types
from cfray.sources.weaviate.schema import Declared, declared, told

if TYPE_CHECKING:
    from cfray.sources.weaviate.source import Weaviate

_SCHEMA = "schema.json"
_VECTORS = ["vector", "named_vectors", "multi_vectors"]
#: Records whose vectors are looked at for their widths.
_SAMPLE = 100
#: An integer that is no integer: minus zero, which a parser of integers would make 0.
_MINUS_ZERO = re.compile(rb"-0[,\]}]")


@dataclass(frozen=True)
class _File:
    """A file of one collection or tenant."""

    pin: PinnedFile
    full: str
    collection: str
    footer: pq.FileMetaData


def _files(source: Weaviate) -> tuple[list[_File], list[str], PinnedFile | None]:
    """Find the files to read, what the export skipped, and the schema.

    Raises:
        SourceError: no export, an unfinished one, or one that left something out.
    """
    assert source.uri
    there = {file.name: file for file in listed(source.uri)}
    if "export_metadata.json" not in there:
        raise SourceError(
            f"no export_metadata.json in {source.place}",
            "name the folder of one export in source.uri",
        )
    files = [_file(there[name]) for name in fnmatch.filter(sorted(there), "*.parquet")]
    skipped = _checked(source, there, files)
    names = {one.full for one in files} | {one.collection for one in files}
    classes = json.loads(_content(there["export_metadata.json"])).get("classes") or []
    chosen = set(source.chosen(names | set(classes) | {one.split(" ")[0] for one in skipped}))
    wanted = [one for one in files if not source.collections or chosen & {one.full, one.collection}]
    left_out = [
        one
        for one in skipped
        if not source.collections or chosen & {one.split(" ")[0], one.split("/")[0]}
    ]
    if left_out and source.inactive_tenants != "skip":
        raise SourceError(
            f"the export {source.place} left out {len(left_out)} tenants: {', '.join(left_out[:50])}",
            "activate them and export again, or write source.inactive_tenants: skip",
        )
    return wanted, left_out, there.get(_SCHEMA)


def _file(pin: PinnedFile) -> _File:
    footer = rowgroups.footer(pin)
    facts = {key.decode(): value.decode() for key, value in (footer.metadata or {}).items()}
    if "collection" not in facts:
        raise SourceError(
            f"{pin.uri} names no collection: the server's export did not write it",
            "take it out of the folder",
        )
    tenant = facts.get("tenant")
    return _File(
        pin,
        f"{facts['collection']}/{tenant}" if tenant else facts["collection"],
        facts["collection"],
        footer,
    )


def _checked(source: Weaviate, there: Mapping[str, PinnedFile], files: list[_File]) -> list[str]:
    """Compare every shard's status with the files; name what was skipped.

    Raises:
        SourceError: it failed or still runs, a node's status or a file is missing.
    """
    whole = json.loads(_content(there["export_metadata.json"]))
    bad = (
        [f"the export is {whole['status']} {whole.get('error', '')}"]
        if whole["status"] != "SUCCESS"
        else []
    )
    bad += [
        f"node {node} left no status"
        for node in whole.get("nodeAssignments") or {}
        if f"node_{node}_status.json" not in there
    ]
    shards: dict[str, dict[str, Any]] = whole.get("shardStatus") or {}
    for name in fnmatch.filter(sorted(there), "node_*_status.json"):
        for collection, some in (
            json.loads(_content(there[name])).get("shardProgress") or {}
        ).items():
            shards[collection] = {**shards.get(collection, {}), **some}
    skipped: list[str] = []
    for collection, shard, status in (
        (collection, *one)
        for collection, some in sorted(shards.items())
        for one in sorted(some.items())
    ):
        prefix, count = f"{collection}_{shard}_", status.get("objectsExported", 0)
        found = sum(
            one.footer.num_rows
            for one in files
            if one.pin.name.startswith(prefix)
            and one.pin.name[len(prefix) :].split(".")[0].isdigit()
        )
        if status["status"] == "SKIPPED":
            skipped += (
                []
                if status.get("skipReason") == "no data"
                else [f"{collection}/{shard} ({status.get('skipReason') or 'no reason'})"]
            )
        elif status["status"] != "SUCCESS":
            bad.append(f"{collection}/{shard} is {status['status']} {status.get('error', '')}")
        elif found != count:
            bad.append(f"{collection}/{shard} has {count} objects, but the files hold {found}")
    if bad:
        raise SourceError(
            f"the export {source.place} is not whole: {'; '.join(bad[:20])}",
            "export again, and copy the folder whole",
        )
    return skipped


def _content(file: PinnedFile) -> bytes:
    with opened(file) as stream:
        return bytes(stream.read())


def _declared(schema: PinnedFile | None) -> dict[str, dict[str, Any]]:
    """Read ``schema.json``: collection -> definition."""
    if schema is None:
        return {}
    try:
        return {one["class"]: one for one in json.loads(_content(schema))["classes"]}
    except (ValueError, TypeError, KeyError) as error:
        raise SourceError(
            f"{schema.uri} is not what GET /v1/schema answers: {error}",
            "save that answer, or delete the file",
        ) from error


def shards(source: Weaviate) -> list[Shard]:
    """Cut every file into runs of row groups of about ``shard_bytes``."""
    files, _, schema = _files(source)
    pin = schema.as_json() if schema else None
    seen = _seen(files)
    found = []
    for one in files:
        for part in rowgroups.parts(one.pin, source.shard_bytes):
            where: dict[str, Json] = {
                **part.where,
                "file": one.pin.as_json(),
                "schema": pin,
                "vectors": {name: list(kind) for name, kind in seen[one.full].items()},
            }
            name = f"{one.full}#{one.pin.name}:{part.label}"
            found.append(
                Shard(
                    name,
                    where,
                    part.rows,
                    part.size,
                    one.full,
                    splittable=part.size <= source.shard_bytes,
                )
            )
    return found


def _seen(files: list[_File]) -> dict[str, dict[str, tuple[int, int]]]:
    """Give for each collection or tenant the vectors that its first records have.

    Width, and 2 where a record has several of one name.
    """
    found: dict[str, dict[str, tuple[int, int]]] = {}
    for file in files:
        if file.full in found:
            continue
        with undamaged(file.pin), opened(file.pin) as stream:
            batch = next(pq.ParquetFile(stream).iter_batches(_SAMPLE, columns=_VECTORS), None)
        vectors = _vectors(batch, {}) if batch else {}
        kinds = {
            name: (one.type.value_type, 2) if pa.types.is_list(one.type) else (one.type, 1)
            for name, one in vectors.items()
        }
        found[file.full] = {
            name: (kind.list_size, depth)
            for name, (kind, depth) in kinds.items()
            if pa.types.is_fixed_size_list(kind)
        }
    return found


def read(source: Weaviate, shard: Shard, context: Context) -> Iterator[pa.RecordBatch | Reject]:
    """Decode a run of row groups."""
    where: Any = shard.where
    definition = _declared(where["schema"] and PinnedFile.from_json(where["schema"])).get(
        shard.collection.split("/")[0]
    )
    collection = declared(definition) if definition else None
    for item in rowgroups.batches(PinnedFile.from_json(where["file"]), where, context.batch_bytes):
        if isinstance(item, Reject):
            yield item
        else:
            yield from pieces(
                _records(item, collection, where["vectors"], times=source.object_times),
                context.batch_bytes,
            )


def _records(
    batch: pa.RecordBatch,
    collection: Declared | None,
    known: Mapping[str, Sequence[int]],
    *,
    times: bool,
) -> pa.RecordBatch:
    ids = pa.array(
        [bytes.fromhex(one.replace("-", "")) for one in batch.column("id").to_pylist()],
        pa.binary(16),
    )
    payload = [_payload(raw, collection) for raw in batch.column("properties").to_pylist()]
    if times:
        keys = collection.times if collection else ("_creation_time", "_update_time")
        for row, *both in zip(
            payload,
            batch.column("creation_time").to_pylist(),
            batch.column("update_time").to_pylist(),
            strict=True,
        ):
            row |= dict(zip(keys, map(types.instant, both), strict=True))
    return types.assembled(ids, _vectors(batch, known), payload)


def _vectors(batch: pa.RecordBatch, known: Mapping[str, Sequence[int]]) -> dict[str, pa.Array]:
    """Give the columns of vectors that the batch has or the plan saw."""
    flat, several = (
        _parsed(
            batch.column(column),
            depth,
            [name or "default" for name, (_, own) in known.items() if own == depth],
        )
        for column, depth in (("named_vectors", 1), ("multi_vectors", 2))
    )
    found = {
        "" if name == "default" else name: one for name, one in [*flat.items(), *several.items()]
    }
    if (unnamed := types.dense(batch.column("vector").to_pylist(), None)) is not None:
        found[""] = unnamed
    for name, (width, depth) in known.items():
        if name not in found:
            fixed = pa.list_(pa.float32(), width)
            found[name] = pa.nulls(len(batch), fixed if depth == 1 else pa.list_(fixed))
    return found


def _parsed(column: pa.Array, depth: int, names: Collection[str]) -> dict[str, pa.Array]:
    """Parse a column of JSON objects of vectors.

    Their numbers become float32 at once, with no float64 in between.

    Args:
        column: bytes; null where a record has none.
        depth: 1 for vectors, 2 for lists of vectors.
        names: those the objects are known to have; with others they are parsed once more.
    """
    if column.null_count == len(column):
        return {}
    data = b"".join((one or b"{}") + b"\n" for one in column.to_pylist())
    kind = pa.list_(pa.float32()) if depth == 1 else pa.list_(pa.list_(pa.float32()))
    parse = pj.ParseOptions(
        explicit_schema=pa.schema([(name, kind) for name in names]),
        unexpected_field_behavior="infer",
    )
    table = pj.read_json(
        pa.BufferReader(data), pj.ReadOptions(use_threads=False, block_size=len(data) + 1), parse
    )
    if set(table.schema.names) - set(names):
        return _parsed(column, depth, table.schema.names)
    columns = {name: table.column(name).combine_chunks() for name in names}
    return {name: _fixed(one) for name, one in columns.items() if one.null_count < len(one)}


def _fixed(lists: pa.ListArray) -> pa.Array:
    """Make lists of one width fixed-size, the innermost ones.

    Leave others as they are, so that each row is judged for itself.
    """
    if pa.types.is_list(lists.type.value_type):
        counts = pc.fill_null(pc.list_value_length(lists), 0).to_numpy()
        offsets = pa.array(np.cumsum([0, *counts], dtype=np.int32))
        return pa.ListArray.from_arrays(offsets, _fixed(lists.flatten()), mask=lists.is_null())
    widths = pc.unique(pc.list_value_length(lists)).drop_null().to_pylist()
    if len(widths) != 1:
        return lists
    there = lists.is_valid().to_numpy(zero_copy_only=False)
    numbers = np.zeros((len(lists), widths[0]), np.float32)
    numbers[there] = lists.flatten().to_numpy(zero_copy_only=False).reshape(-1, widths[0])
    return pa.FixedSizeListArray.from_arrays(
        pa.array(numbers.reshape(-1)),
        widths[0],
        mask=pa.array(~there) if lists.null_count else None,
    )


def _payload(raw: bytes | None, collection: Declared | None) -> dict[str, object]:
    found: dict[str, Any] = {}
    if raw:
        found = json.loads(raw, parse_int=_whole) if _MINUS_ZERO.search(raw) else orjson.loads(raw)
    if collection is None:
        return {
            key: types.referred(one) if _is_reference(one) else one
            for key, one in found.items()
            if one is not None
        }
    made: dict[str, object] = {}
    for one in collection.properties:
        if (value := found.get(one.name)) is not None:
            made[one.name] = types.typed(one)(value)
    return made | {
        key: types.referred(found[key], to)
        for key, to in collection.references.items()
        if found.get(key)
    }


def _whole(text: str) -> int | float:
    return -0.0 if text == "-0" else int(text)


def _is_reference(value: object) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(one, dict) and "beacon" in one for one in value)
    )


def describe(source: Weaviate, base: Description, shards: list[Shard]) -> Description:
    """Say what the export holds and what it left out."""
    files, skipped, schema = _files(source)
    definitions = _declared(schema)
    notes = [f"left out by the server: {one}" for one in skipped]
    if schema is None:
        notes.append(
            "the export names no types, so dates, uuids and blobs are read as strings; save GET /v1/schema as schema.json in its folder"
        )
    collections = []
    seen = _seen(files)
    for full in sorted(seen):
        rows = sum(shard.rows or 0 for shard in shards if shard.collection == full)
        name = full.split("/")[0]
        widths = {one: width for one, (width, depth) in seen[full].items() if depth == 1}
        definition = definitions.get(name) or {
            "class": name,
            "vectorConfig": {one or "default": {} for one in widths},
        }
        collections.append(told(full, rows, definition, widths, {}))
    return replace(
        base, consistency="pinned files", notes=tuple(notes), collections=tuple(collections)
    )
