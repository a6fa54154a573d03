"""What the log of a Delta table says of one version: its live files, their partitions, its schema.

Read with delta-rs, on the driver only.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

import pyarrow as pa
import pyarrow.fs as pafs

from cfray.errors import SourceError
from cfray.formats.columns import normal_schema
from cfray.runtime import filesystems
from cfray.runtime.error_text import describe_error
from cfray.runtime.storage_errors import classify_read_error, is_refused_access, is_unanswered
from cfray.sources.files import table_formats
from cfray.sources.files.deletions import Deleted
from cfray.sources.files.listing import PinnedFile
from cfray.sources.files.locations import locate

if TYPE_CHECKING:
    import deltalake

_DELETION_VECTORS = "deletionVectors"
#: Features of a table that change nothing of how its files are read, or that are honoured.
_READ_FEATURES = frozenset(
    {
        "columnMapping",
        _DELETION_VECTORS,
        "timestampNtz",
        "typeWidening",
        "typeWidening-preview",
        "v2Checkpoint",
        "vacuumProtocolCheck",
    }
)
_MAPPING_MODE = "delta.columnMapping.mode"
_PHYSICAL_NAME = "delta.columnMapping.physicalName"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One version of a table.

    Attributes:
        version: its number.
        schema: the table's columns, those of its partitions included.
        physical_names: name of a column -> its name in the files, where that is another.
        files: the live files, sorted by name.
        partitions: name of a file -> a row of the values of its partition's columns.
        deleted: name of a file -> its deleted rows, where it has any.
    """

    version: int
    schema: pa.Schema
    physical_names: dict[str, str]
    files: list[PinnedFile]
    partitions: dict[str, pa.RecordBatch]
    deleted: dict[str, Deleted]


def read_snapshot(uri: str, version: int | None) -> Snapshot:
    """Read what a table's log says of a version.

    Args:
        uri: path or URI of the table's folder.
        version: its number; None for the newest.

    Raises:
        SourceError: no table, no such version, a live file that is gone, a feature that is not
            read, or the package is missing.
        SourceUnavailable: the filesystem did not answer.
    """
    table = _open_table(uri, version)
    fields = json.loads(table.schema().to_json())["fields"]
    _check_features(table, uri)
    physical_names = _physical_names(table, fields, uri)
    actions = pa.table(table.get_add_actions()).combine_chunks()
    paths = actions.column("path").to_pylist()
    files = _pin_files(uri, paths)
    partition_columns = list(table.metadata().partition_columns)
    schema = normal_schema(pa.schema(table.schema().to_arrow()))
    _check_partition_types(schema, partition_columns, uri)
    rows = _partition_rows(actions, [schema.field(name) for name in partition_columns])
    return Snapshot(
        table.version(),
        schema,
        physical_names,
        files,
        {unquote(path): row for path, row in zip(paths, rows, strict=True)},
        _deleted_rows(table, files, uri),
    )


def _open_table(uri: str, version: int | None) -> deltalake.DeltaTable:
    try:
        import deltalake
        from deltalake.exceptions import DeltaError
    except ModuleNotFoundError as error:
        if error.name != "deltalake":
            raise
        raise SourceError(
            "the package that reads the log of Delta tables is not installed",
            "pip install 'cfray[delta]' where the plan is made",
        ) from None
    try:
        options = filesystems.storage_options(uri)
        # delta-rs takes some names of folders for URLs
        location = uri if filesystems.is_uri(uri) else f"file://{quote(uri)}"
        return deltalake.DeltaTable(location, version=version, storage_options=options or None)
    except (DeltaError, OSError, ValueError) as error:
        if is_refused_access(error) or is_unanswered(error):
            raise classify_read_error(error, uri) from error
        raise _no_table(error, uri, version) from error


def _no_table(error: Exception, uri: str, version: int | None) -> SourceError:
    """Say why there is nothing to open: a folder within a table, no such version, or no table."""
    table_above = table_formats.find_table(uri)
    if table_above is not None and table_above[1] != uri:
        return SourceError(
            f"{uri} is no Delta table, but lies in {table_above[0]}",
            f"write source.uri: {table_above[1]} in the job file",
        )
    at_version = "" if version is None else f", version {version}"
    return SourceError(
        f"cannot open the Delta table at {uri}{at_version}: {describe_error(error)}",
        "correct source.uri, which names the folder that holds _delta_log, or source.version",
    )


def _check_features(table: deltalake.DeltaTable, uri: str) -> None:
    unread = set(table.protocol().reader_features or []) - _READ_FEATURES
    if unread:
        raise SourceError(
            f"the Delta table at {uri} uses {', '.join(sorted(unread))}, which is not read",
            "write the table's rows as plain Parquet with an engine that knows this feature, and "
            "name that folder",
        )


def _physical_names(
    table: deltalake.DeltaTable, fields: list[dict[str, Any]], uri: str
) -> dict[str, str]:
    """Give the names that columns have in the files, where they are others.

    Raises:
        SourceError: the columns are found by number, or a nested field has another name.
    """
    mode = (table.metadata().configuration or {}).get(_MAPPING_MODE, "none")
    names = {field["name"]: field["metadata"].get(_PHYSICAL_NAME) for field in fields}
    nested = [
        f"{path} ({physical})"
        for field in fields
        for path, physical in _nested_names(field["name"], field["type"])
    ]
    if mode == "id" or (mode == "name" and nested):
        what = (
            "finds its columns by number"
            if mode == "id"
            else (f"has other names in its files for nested fields: {', '.join(nested[:5])}")
        )
        raise SourceError(
            f"the Delta table at {uri} {what} ({_MAPPING_MODE}: {mode}), which is not read",
            "write the table's rows as plain Parquet with an engine that knows column mapping, and "
            "name that folder",
        )
    if mode == "none":
        return {}
    return {name: physical for name, physical in names.items() if physical not in (None, name)}


def _nested_names(path: str, kind: object) -> Iterator[tuple[str, str]]:
    """List the nested fields of a type whose name in the files is another."""
    if not isinstance(kind, dict):
        return
    for field in kind.get("fields", []):
        inner = f"{path}.{field['name']}"
        physical = field["metadata"].get(_PHYSICAL_NAME, field["name"])
        if physical != field["name"]:
            yield inner, physical
        yield from _nested_names(inner, field["type"])
    for key in ("elementType", "keyType", "valueType"):
        yield from _nested_names(path, kind.get(key))


def _check_partition_types(schema: pa.Schema, columns: list[str], uri: str) -> None:
    """Refuse a partition by bytes: delta-rs gives the escapes of the log in place of the bytes."""
    for name in columns:
        if pa.types.is_binary(schema.field(name).type):
            raise SourceError(
                f"the Delta table at {uri} is partitioned by bytes ({name}), which is not read",
                "write the table's rows as plain Parquet, and name that folder",
            )


def _partition_rows(actions: pa.Table, fields: list[pa.Field]) -> list[pa.RecordBatch]:
    """Make a row of partition values for each live file, typed as the table's schema says."""
    if not fields:
        empty = pa.RecordBatch.from_struct_array(pa.array([{}], pa.struct([])))
        return [empty] * actions.num_rows
    partition = actions.column("partition").combine_chunks()
    arrays = [partition.field(field.name).cast(field.type) for field in fields]
    batch = pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))
    return [batch.slice(row, 1) for row in range(actions.num_rows)]


def _pin_files(uri: str, paths: list[str]) -> list[PinnedFile]:
    """Pin the live files as they are now, sorted by name.

    Args:
        uri: of the table.
        paths: as the log writes them: with special characters as %XX, below the table's folder or
            absolute (in a shallow clone).

    Raises:
        SourceError: a file is gone.
    """
    names_by_uri = {_locate(uri, path): unquote(path) for path in paths}
    uris = sorted(names_by_uri, key=lambda file: names_by_uri[file])
    try:
        system, _ = filesystems.open_filesystem(uri)
        infos = system.get_file_info([filesystems.open_filesystem(file)[1] for file in uris])
    except OSError as error:
        raise classify_read_error(error, uri) from error
    for file, info in zip(uris, infos, strict=True):
        if info.type != pafs.FileType.File:
            raise SourceError(
                f"{file} is gone, and the Delta table at {uri} counts it as live in this version",
                "give a version whose files VACUUM has not removed (source.version), or restore "
                "the file",
            )
    return [
        PinnedFile(file, names_by_uri[file], int(info.size), int(info.mtime_ns), partition=())
        for file, info in zip(uris, infos, strict=True)
    ]


def _locate(uri: str, path: str) -> str:
    """Give the path or URI of a file that the log names."""
    if path.startswith("file:"):
        return unquote(urlsplit(path).path)
    return path if filesystems.is_uri(path) else locate(uri, unquote(path))


def _deleted_rows(
    table: deltalake.DeltaTable, files: list[PinnedFile], uri: str
) -> dict[str, Deleted]:
    """Read which rows of which live files are deleted: name of the file -> its deleted rows.

    Raises:
        SourceError: delta-rs does not read them together with another feature of the table.
    """
    from deltalake.exceptions import DeltaError

    if _DELETION_VECTORS not in (table.protocol().reader_features or []):
        return {}
    names = {
        unquote(file.uri) if filesystems.is_uri(file.uri) else file.uri: file.name for file in files
    }
    deleted: dict[str, Deleted] = {}
    try:
        batches = list(pa.RecordBatchReader.from_stream(table.deletion_vectors()))
    except (DeltaError, pa.ArrowException) as error:
        raise SourceError(
            f"the deletion vectors of the Delta table at {uri} cannot be read: "
            f"{describe_error(error)}",
            "have the table's engine apply them (REORG TABLE ... APPLY (PURGE)), or write its rows "
            "as plain Parquet",
        ) from error
    for batch in batches:
        locations = batch.column("filepath").to_pylist()
        for location, keeps in zip(locations, batch.column("selection_vector"), strict=True):
            path = urlsplit(location).path if location.startswith("file:") else location
            rows = ~keeps.values.to_numpy(zero_copy_only=False)
            if rows.any():
                deleted[names[unquote(path)]] = rows
    return deleted
