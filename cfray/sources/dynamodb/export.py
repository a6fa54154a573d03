"""Exports of tables to S3: the only consistent copy, planned and read from its files.

A shard is one or more files of items.  Where incremental exports follow the full one, an item
comes from the last export that names its key, and an item that was deleted comes from none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa

from cfray.records.record import Reject
from cfray.runtime.models import MIB
from cfray.sources.base import Collection, Context, Description, Json, Shard
from cfray.sources.dynamodb.history import (
    ChangedKeys,
    History,
    choose_histories,
    write_changed_keys,
)
from cfray.sources.dynamodb.lines import read_lines
from cfray.sources.dynamodb.manifest import DataFile, Export
from cfray.sources.dynamodb.records import RecordBuilder
from cfray.sources.dynamodb.settings import DynamoDBSettings
from cfray.sources.dynamodb.types import UnreadableItem, WireItem

#: Bytes of lines that a batch is made of.
_GATHERED_BYTES = 8 * MIB


def plan_shards(settings: DynamoDBSettings, context: Context) -> list[Shard]:
    """Pack the files of each export, in the manifest's order, into shards of ``shard_bytes``.

    The keys that an incremental export names are written into the scratch folder: whoever reads an
    earlier export leaves them out.
    """
    shards: list[Shard] = []
    key = tuple(settings.key or ())
    for history in choose_histories(settings):
        names = [write_changed_keys(export, key, context) for export in history.changes]
        for number, export in enumerate((history.full, *history.changes)):
            shards += _plan_export(settings, export, number, names[number:])
    return shards


def _plan_export(
    settings: DynamoDBSettings, export: Export, number: int, later_names: list[str]
) -> Iterator[Shard]:
    is_whole = export.is_full and not later_names
    for index, files in enumerate(_pack(export.files, settings.shard_bytes)):
        yield Shard(
            f"{export.table}#{number:04d}-{index:06d}",
            {
                "files": [file.to_json() for file in files],
                "format": export.format,
                "key": list[Json](settings.key or ()),
                "later": list[Json](later_names),
            },
            rows=sum(file.items for file in files) if is_whole else None,
            size=sum(file.file.size for file in files),
            collection=export.table,
        )


def _pack(files: Iterable[DataFile], shard_bytes: int) -> list[list[DataFile]]:
    groups: list[list[DataFile]] = []
    size = 0
    for file in files:
        if not groups or size + file.file.size > shard_bytes:
            groups.append([])
            size = 0
        groups[-1].append(file)
        size += file.file.size
    return groups


def read_shard(shard: Shard, builder: RecordBuilder) -> Iterator[pa.RecordBatch | Reject]:
    """Read the files of a shard one after the other.

    Raises:
        SourceError: a file changed, or is not what the manifest says.
    """
    files, later_names = shard.where["files"], shard.where["later"]
    assert isinstance(files, list)
    assert isinstance(later_names, list)
    later = ChangedKeys.read(map(str, later_names), builder.key, builder.context)
    for data in map(DataFile.from_json, files):
        yield from _read_file(data, str(shard.where["format"]), builder, later)


def _read_file(
    data: DataFile, output_format: str, builder: RecordBuilder, later: ChangedKeys
) -> Iterator[pa.RecordBatch | Reject]:
    size = min(builder.context.batch_bytes, _GATHERED_BYTES)
    items: list[WireItem] = []
    positions: list[str] = []
    gathered = 0
    for line in read_lines(data, output_format):
        position = f"{data.file.name}, line {line.number}"
        fault = line.fault
        try:
            if line.item is not None and not later.names_item(line.item):
                items.append(line.item)
                positions.append(position)
                gathered += len(line.content)
        except UnreadableItem as error:
            fault = str(error)
        if fault or gathered >= size:
            yield from builder.build(items, positions)
            items, positions, gathered = [], [], 0
        if fault:
            yield Reject(fault, position, line.content)
    yield from builder.build(items, positions)


def describe_exports(settings: DynamoDBSettings, shards: list[Shard]) -> Description:
    """Say what the manifests say."""
    histories = choose_histories(settings)
    vectors = {name: (declared.dimension, None) for name, declared in settings.vectors.items()}
    collections = [
        Collection(
            history.full.table,
            None if history.changes else history.full.items,
            vectors=vectors,
            facts=_facts(history) | {"key": ", ".join(settings.key or ())},
        )
        for history in histories
    ]
    notes = [
        f"vectors.{name}: lists of numbers are read as float32"
        for name, declared in settings.vectors.items()
        if declared.dtype is None
    ]
    return Description(
        schema=None,
        rows=sum(history.full.items for history in histories),
        exact=not any(history.changes for history in histories),
        size=sum(shard.size for shard in shards),
        consistency="snapshot",
        notes=(*notes, *(note for history in histories for note in _notes(history))),
        collections=tuple(collections),
        unread=tuple(
            f"{export.folder}: {len(export.unlisted)} files of its folder data are not in "
            f"{export.table}'s manifest and are not read, {export.unlisted[0]} among them"
            for history in histories
            for export in (history.full, *history.changes)
            if export.unlisted
        ),
    )


def _facts(history: History) -> dict[str, str]:
    names = {
        "export time": "exportTime",
        "export": "exportArn",
        "table arn": "tableArn",
        "table id": "tableId",
        "output format": "outputFormat",
    }
    summary = history.full.summary
    facts = {name: str(summary[key]) for name, key in names.items() if summary.get(key)}
    if history.changes:
        facts["incremental exports"] = str(len(history.changes))
        facts["changes until"] = str(history.changes[-1].summary["exportToTime"])
    return facts


def _notes(history: History) -> Iterator[str]:
    table = history.full.table
    if history.changes:
        yield (
            f"{table}: the full export of {history.full.summary['exportTime']} with "
            f"{len(history.changes)} incremental exports up to "
            f"{history.changes[-1].summary['exportToTime']}"
        )
    for export in history.unused:
        yield f"{table}: {export.folder} holds changes that a later export has, and is not read"
