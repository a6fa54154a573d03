"""Files of mongodump and mongoexport: shards are byte ranges of a file, or whole compressed files.

BSON documents say how long they are and nothing marks where one begins, so the plan walks
over their lengths once.  Every file is pinned: one that changes later is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pyarrow as pa

from cfray.records.record import Reject
from cfray.sources.base import Collection, Context, Description, Shard
from cfray.sources.files.listing import PinnedFile
from cfray.sources.mongodb import describe, export_bson, export_json
from cfray.sources.mongodb.export_files import Export, ExportFile, find_export
from cfray.sources.mongodb.settings import MongoSettings

#: Indexes, options and the identity of the collection: what a dump says of it.
_FACTS = ("options", "indexes", "uuid")


def plan_shards(settings: MongoSettings) -> list[Shard]:
    """Cut each file into shards.

    Raises:
        SourceError: no file, a damaged or truncated dump, or relaxed JSON that the job does not
            accept.
    """
    found = find_export(str(settings.uri), settings.collections)
    return [shard for file in found.files for shard in _cut_file(file, settings)]


def _cut_file(file: ExportFile, settings: MongoSettings) -> Iterator[Shard]:
    cut = export_bson.cut_file if file.is_dump else export_json.cut_file
    for number, part in enumerate(cut(file.file, settings)):
        yield Shard(
            f"{file.collection}#{number:04d}",
            {"file": file.file.to_json(), "dump": file.is_dump, "from": part.start, "to": part.end},
            rows=part.rows,
            size=part.size,
            collection=file.collection,
            splittable=part.end is not None,
        )


def read_shard(
    settings: MongoSettings, shard: Shard, context: Context
) -> Iterator[pa.RecordBatch | Reject]:
    """Stream the documents of a shard."""
    pin, start, end = shard.where["file"], shard.where["from"], shard.where["to"]
    assert isinstance(pin, dict)
    assert isinstance(start, int)
    assert end is None or isinstance(end, int)
    file = PinnedFile.from_json(pin)
    read = export_bson.read_file if shard.where["dump"] else export_json.read_file
    yield from read(file, start, end, settings, context)


def describe_files(settings: MongoSettings, shards: list[Shard]) -> Description:
    """Say what the files hold."""
    found = find_export(str(settings.uri), settings.collections)
    counts = [shard.rows for shard in shards]
    exact = all(rows is not None for rows in counts)
    notes = list(found.notes)
    if any(file.is_dump for file in found.files):
        notes.append(
            "a dump of a deployment that is written to is of different moments, unless it was "
            "made of a snapshot of the disk or while nothing was written"
        )
    shown = {file.collection: _show(file) for file in found.files}
    notes += [note for name, first in shown.items() for note in first.notes(name)]
    relaxed = [
        f"{file.file.name}: relaxed JSON does not say whether a number was an int32, an int64 or a "
        "double, so that is not read, and numbers beyond 2**53 may have been rounded when they "
        "were exported"
        for file in found.files
        if not file.is_dump and export_json.is_relaxed(file.file)
    ]
    return Description(
        schema=None,
        rows=sum(rows or 0 for rows in counts) if exact else None,
        exact=exact,
        size=sum(shard.size for shard in shards),
        consistency="pinned files",
        notes=tuple(notes),
        collections=tuple(
            _describe_collection(file, found, shards, shown[file.collection])
            for file in found.files
        ),
        unread=(*found.unread, *relaxed),
    )


def _show(file: ExportFile) -> describe.Shown:
    """Look at the first documents of a file."""
    head = export_bson.read_head if file.is_dump else export_json.read_head
    data, spans = head(file.file)
    return describe.Shown(data, spans, file.collection.partition(".")[0])


def _describe_collection(
    file: ExportFile, found: Export, shards: list[Shard], shown: describe.Shown
) -> Collection:
    """Describe a collection by the first documents of its file and by the dump's metadata."""
    counts = [shard.rows for shard in shards if shard.collection == file.collection]
    metadata = found.metadata.get(file.collection, {})
    return Collection(
        file.collection,
        rows=None if None in counts else sum(rows or 0 for rows in counts),
        dimension=shown.width,
        facts={
            name: json.dumps(metadata[name], sort_keys=True) for name in _FACTS if name in metadata
        },
    )
