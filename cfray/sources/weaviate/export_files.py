"""Find the files of a Weaviate export, and check that the server exported all of it.

The server calls an export a success although it left offloaded tenants out.  So the status of
every shard of the server is looked at, and its count is compared with the rows in the files.

Source: weaviate 1.39, usecases/export/ARCHITECTURE.md and parquet_writer.go.
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow.parquet as pq

from cfray.errors import SourceError
from cfray.sources.files import rowgroups
from cfray.sources.files.listing import PinnedFile, open_file
from cfray.sources.files.locations import list_files
from cfray.sources.weaviate.settings import WeaviateSettings

_METADATA, _SCHEMA = "export_metadata.json", "schema.json"
#: Tenants that an error lists at most, and faults of an export.
_LISTED_TENANTS, _LISTED_FAULTS = 50, 20


@dataclass(frozen=True)
class ExportFile:
    """A Parquet file of a collection or tenant.

    Attributes:
        name: ``collection`` or ``collection/tenant``.
        collection: name of the collection.
        footer: what Parquet says of the file's row groups.
    """

    pin: PinnedFile
    name: str
    collection: str
    footer: pq.FileMetaData


@dataclass(frozen=True)
class Export:
    """The files that a job reads.

    Attributes:
        files: the Parquet files.
        skipped_tenants: tenants that the server left out, each with its reason.
        schema: the file ``schema.json``, where the user put it beside them.
    """

    files: list[ExportFile]
    skipped_tenants: list[str]
    schema: PinnedFile | None


def find_export(settings: WeaviateSettings) -> Export:
    """Find the files to read, the tenants that the export skipped, and the schema.

    Raises:
        SourceError: the folder holds no export, an unfinished one, or one that left tenants out.
    """
    assert settings.uri
    pins = {pin.name: pin for pin in list_files(settings.uri)}
    if _METADATA not in pins:
        raise SourceError(
            f"no {_METADATA} in {settings.address}", "name the folder of one export in source.uri"
        )
    metadata = json.loads(_read_file(pins[_METADATA]))
    files = [_open_footer(pins[name]) for name in fnmatch.filter(sorted(pins), "*.parquet")]
    skipped = _check_complete(settings.address, metadata, pins, files)
    available = {file.name for file in files} | {file.collection for file in files}
    available |= set(metadata.get("classes") or []) | {name.split(" ")[0] for name in skipped}
    chosen = set(settings.choose_collections(available))
    if settings.collections:
        files = [file for file in files if chosen & {file.name, file.collection}]
        skipped = [name for name in skipped if chosen & {name.split(" ")[0], name.split("/")[0]}]
    if skipped and settings.inactive_tenants != "skip":
        raise SourceError(
            f"the export {settings.address} left out {len(skipped)} tenants: "
            f"{', '.join(skipped[:_LISTED_TENANTS])}",
            "activate them and export again, or write source.inactive_tenants: skip",
        )
    return Export(files, skipped, pins.get(_SCHEMA))


def _open_footer(pin: PinnedFile) -> ExportFile:
    footer = rowgroups.read_footer(pin)
    facts = {key.decode(): value.decode() for key, value in (footer.metadata or {}).items()}
    if "collection" not in facts:
        raise SourceError(
            f"{pin.uri} names no collection: the server's export did not write it",
            "take it out of the folder",
        )
    collection, tenant = facts["collection"], facts.get("tenant")
    return ExportFile(pin, f"{collection}/{tenant}" if tenant else collection, collection, footer)


def _check_complete(
    address: str,
    metadata: Mapping[str, Any],
    pins: Mapping[str, PinnedFile],
    files: list[ExportFile],
) -> list[str]:
    """Compare the status of every shard of the server with the files; name the skipped tenants.

    Raises:
        SourceError: the export failed or still runs, or a node's status or a file is missing.
    """
    faults, skipped = [], []
    if metadata["status"] != "SUCCESS":
        faults.append(f"the export is {metadata['status']} {metadata.get('error', '')}")
    faults += [
        f"node {node} left no status"
        for node in metadata.get("nodeAssignments") or {}
        if f"node_{node}_status.json" not in pins
    ]
    for collection, shard, status in _shard_statuses(metadata, pins):
        name, reason = f"{collection}/{shard}", status.get("skipReason")
        expected_rows = status.get("objectsExported", 0)
        exported_rows = _count_rows(files, f"{collection}_{shard}_")
        if status["status"] == "SKIPPED":
            if reason != "no data":
                skipped.append(f"{name} ({reason or 'no reason'})")
        elif status["status"] != "SUCCESS":
            faults.append(f"{name} is {status['status']} {status.get('error', '')}")
        elif exported_rows != expected_rows:
            faults.append(f"{name} has {expected_rows} objects, but the files hold {exported_rows}")
    if faults:
        raise SourceError(
            f"the export {address} is not complete: {'; '.join(faults[:_LISTED_FAULTS])}",
            "export again, and copy the complete folder",
        )
    return skipped


def _shard_statuses(
    metadata: Mapping[str, Any], pins: Mapping[str, PinnedFile]
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Give (collection, shard of the server, status).

    The status in a node's file is preferred to the status in the export's metadata.
    """
    statuses: dict[str, dict[str, Any]] = dict(metadata.get("shardStatus") or {})
    for name in fnmatch.filter(sorted(pins), "node_*_status.json"):
        progress = json.loads(_read_file(pins[name])).get("shardProgress") or {}
        for collection, shards in progress.items():
            statuses[collection] = {**statuses.get(collection, {}), **shards}
    for collection, shards in sorted(statuses.items()):
        for shard, status in sorted(shards.items()):
            yield collection, shard, status


def _count_rows(files: list[ExportFile], prefix: str) -> int:
    """Count the rows in the files that are called by a prefix and a number."""
    return sum(
        file.footer.num_rows
        for file in files
        if file.pin.name.startswith(prefix) and file.pin.name[len(prefix) :].split(".")[0].isdigit()
    )


def _read_file(pin: PinnedFile) -> bytes:
    with open_file(pin) as stream:
        return bytes(stream.read())


def read_definitions(schema: PinnedFile | None) -> dict[str, dict[str, Any]]:
    """Read ``schema.json``: collection -> definition; nothing where the file is missing."""
    if schema is None:
        return {}
    try:
        definitions = json.loads(_read_file(schema))["classes"]
        return {definition["class"]: definition for definition in definitions}
    except (ValueError, TypeError, KeyError) as error:
        raise SourceError(
            f"{schema.uri} is not what GET /v1/schema answers: {error}",
            "save that answer, or delete the file",
        ) from error
