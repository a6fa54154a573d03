"""Hive partitions: folders called ``key=value``, whose keys are fields of the records below.

Spark, Hive, pandas, DuckDB, Polars and Athena write a table so and leave the keys out of the files.
The keys of the folder that ``source.uri`` names, and of those right above it, count, too, so that
one partition is read as it is within its table.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import cast
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc

from cfray.errors import SourceError
from cfray.formats.csv_types import convert_texts, parse_type
from cfray.records import values
from cfray.records.record import (
    MISSING,
    is_variant,
    variant_array,
    variant_field,
    variant_texts,
)
from cfray.sources.files.listing import Partition, PinnedFile
from cfray.sources.files.selection import Selection

#: Name of the folder whose key is null.  Source: Hive's ``hive.exec.default.partition.name``.
_NULL = "__HIVE_DEFAULT_PARTITION__"
_FOLDER = re.compile(r"([^=]+)=(.*)", re.DOTALL)


def read_partition(folders: Sequence[str], location: str) -> Partition:
    """Read the keys and values of folders, outermost first; other folders are left out.

    Args:
        folders: names of folders.
        location: path or URI that they are part of, for messages.

    Raises:
        SourceError: two folders give a key different values.
    """
    partition: dict[str, str | None] = {}
    for folder in folders:
        match = _FOLDER.fullmatch(folder)
        if match is None:
            continue
        key, value = _decode(match[1]), _decode(match[2]) if match[2] != _NULL else None
        if partition.setdefault(key, value) != value:
            raise SourceError(
                f"{location} lies in two folders of the key {key} with different values",
                "set source.partitioning: none, which makes no fields of the folders' names",
            )
    return tuple(partition.items())


def _decode(text: str) -> str:
    """Undo percent-encoding; a text whose escapes are no UTF-8 stays as it is."""
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        return text


def folders_above(path: str) -> list[str]:
    """Give the last folders of a path that are called ``key=value``, without a gap."""
    folders: list[str] = []
    for folder in reversed(path.rstrip("/").split("/")):
        if not _FOLDER.fullmatch(folder):
            break
        folders.insert(0, folder)
    return folders


def pin_partitions(selection: Selection, partitioning: str) -> list[PinnedFile]:
    """Pin what the names of folders say of the files in them.

    Args:
        selection: the files, and where they lie.
        partitioning: the key of the job file: ``auto``, ``hive`` or ``none``.

    Raises:
        SourceError: two folders of a file give a key different values; or under ``hive`` a file
            lies in no folder with keys, or in folders of other keys than the first file.
    """
    if partitioning == "none":
        return [replace(file, partition=()) for file in selection.files]
    above = folders_above(selection.listing.path)
    files = [
        replace(file, partition=read_partition([*above, *file.name.split("/")[:-1]], file.uri))
        for file in selection.files
    ]
    if partitioning == "hive":
        _check_same_keys(files)
    return files


def _check_same_keys(files: list[PinnedFile]) -> None:
    keys = [key for key, _ in files[0].partition or ()] if files else []
    for file in files:
        other_keys = [key for key, _ in file.partition or ()]
        if not other_keys or set(other_keys) != set(keys):
            lies = (
                f"folders of the keys {', '.join(other_keys)}" if other_keys else "no such folder"
            )
            raise SourceError(
                f"source.partitioning is hive, and {file.uri} lies in {lies}; {files[0].name} has "
                f"the keys {', '.join(keys) or 'of none'}",
                "move the file, name the right files in source.uri, or set source.partitioning: "
                "auto, which reads files with different keys together",
            )


def keys_of_folders(selection: Selection) -> list[str]:
    """List the keys that the names of folders have, whatever the job file makes of them."""
    above = folders_above(selection.listing.path)
    paths = {tuple(file.name.split("/")[:-1]) for file in selection.files}
    matches = (_FOLDER.fullmatch(folder) for path in sorted(paths) for folder in (*above, *path))
    return list(dict.fromkeys(_decode(match[1]) for match in matches if match))


def list_keys(files: Iterable[PinnedFile]) -> list[str]:
    """List the keys of all folders, in the order in which the files bring them."""
    return list(dict.fromkeys(key for file in files for key, _ in file.partition or ()))


def check_values(types: Mapping[str, str], files: Iterable[PinnedFile]) -> None:
    """Refuse a value that does not have the type that the job file declares for its key.

    Raises:
        SourceError: names the file.
    """
    if not types:
        return
    checked: set[tuple[str, str | None]] = set()
    for file in files:
        for key, value in file.partition or ():
            if key in types and value is not None and (key, value) not in checked:
                checked.add((key, value))
                _check_value(key, value, types[key], file.uri)


def _check_value(key: str, value: str, kind: str, location: str) -> None:
    _, misfits = convert_texts(pa.array([value]), parse_type(kind))
    if misfits:
        raise SourceError(
            f"source.types declares {key} as {kind}, and {location} lies in the folder "
            f"{key}={value}",
            "correct source.types, or leave the key out of it: then it is text",
        )


def extend_schema(schema: pa.Schema, file: PinnedFile, types: Mapping[str, str]) -> pa.Schema:
    """Append the keys of a file's folders to the schema of its records, as ``add_partition`` does.

    Args:
        schema: of the records in the file, without variants.
        file: the file.
        types: declared type by key; all others are text.
    """
    for key, _ in file.partition or ():
        if key not in schema.names:
            schema = schema.append(pa.field(key, parse_type(types.get(key, "string"))))
    return schema


def second_name(key: str) -> str:
    """Name the field of a folder's value where the file has a column called like its key."""
    return f"partition_{key}"


def add_partition(
    batch: pa.RecordBatch, partition: Partition, types: Mapping[str, str], *, variants: bool
) -> pa.RecordBatch:
    """Append the keys of a file's folders to a batch of its records.

    Where the file has a column called like the key, the column stays.  A folder's value that
    differs from it stands in a field of its own, whose name ``second_name`` gives; a batch without
    such a difference has no such field.

    Args:
        batch: records of the file.
        partition: the keys and values of its folders.
        types: declared type by key; all others are text.
        variants: whether the records have no fixed schema.

    Raises:
        SourceError: the second name is taken, too.
    """
    for key, value in partition:
        index = batch.schema.get_field_index(key)
        if index < 0 and key in batch.schema.names:
            raise _taken(key, key)
        if index >= 0 and is_variant(batch.schema.field(index)):
            batch = _fill_variants(batch, index, key, value)
        elif index >= 0:
            batch = _append_different(batch, index, key, value)
        else:
            batch = _append(batch, *_constant(key, value, types, batch.num_rows, variants=variants))
    return batch


def _constant(
    key: str, value: str | None, types: Mapping[str, str], rows: int, *, variants: bool
) -> tuple[pa.Field, pa.Array]:
    """Make the column of a key that the file has no column for."""
    if variants and key not in types:
        return variant_field(key), variant_array([value] * rows)
    kind = parse_type(types.get(key, "string"))
    if value is None:
        return pa.field(key, kind), pa.nulls(rows, kind)
    converted, _ = convert_texts(pa.array([value]), kind) if key in types else (None, [])
    scalar = pa.scalar(value) if converted is None else converted[0]
    return pa.field(key, kind), pa.repeat(scalar, rows)


def _fill_variants(
    batch: pa.RecordBatch, index: int, key: str, value: str | None
) -> pa.RecordBatch:
    """Give a folder's value to the records that lack its key; keep a value that differs."""
    column = batch.column(index)
    is_missing = column.is_null()
    folder_values = variant_array([value] * batch.num_rows)
    field = batch.schema.field(index)
    filled = batch.set_column(index, field, pc.if_else(is_missing, folder_values, column))
    if value is None:
        return filled
    differs = pc.and_not(pc.not_equal(variant_texts(column), value), is_missing)
    differs = pc.fill_null(differs, fill_value=False).to_pylist()
    if not any(differs):
        return filled
    second = variant_array([value if is_other else MISSING for is_other in differs])
    return _append(filled, variant_field(second_name(key)), second)


def _append_different(
    batch: pa.RecordBatch, index: int, key: str, value: str | None
) -> pa.RecordBatch:
    """Keep a folder's value beside the file's column in the rows in which they differ."""
    if value is None:
        return batch
    texts = values.metadata_texts(batch.column(index))
    is_same = pc.or_(pc.equal(texts, value), pc.equal(texts, f'"{value}"'))
    is_same = pc.fill_null(is_same, fill_value=False)
    if pc.all(is_same).as_py():
        return batch
    second = pc.if_else(is_same, pa.scalar(None, pa.string()), pa.scalar(value))
    return _append(batch, pa.field(second_name(key), pa.string()), second)


def _append(batch: pa.RecordBatch, field: pa.Field, column: pa.Array) -> pa.RecordBatch:
    if field.name in batch.schema.names:
        raise _taken(field.name, field.name.removeprefix("partition_"))
    if not batch.num_columns:
        return pa.RecordBatch.from_arrays([column], schema=pa.schema([field]))
    return cast("pa.RecordBatch", batch.append_column(field, column))


def _taken(name: str, key: str) -> SourceError:
    return SourceError(
        f"the files have a column {name}, and lie in folders of the key {key}, whose value would "
        "take that name",
        "set source.partitioning: none, which makes no fields of the folders' names; $file in a "
        "rule of the mapping gives the path",
    )
