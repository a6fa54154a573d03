"""Snapshots of Qdrant shards: each archive is cut into ranges of ids.

Tested with archives of shards that the vendor's engine wrote; a server's
``/collections/NAME/shards/N/snapshots`` should be the same and is untested.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence

import pyarrow.fs as pafs

from cfray.errors import SourceError
from cfray.runtime import filesystems
from cfray.sources.base import Collection, Description, Json, Shard
from cfray.sources.files.locations import list_files
from cfray.sources.paging import PageSize
from cfray.sources.qdrant import schema
from cfray.sources.qdrant.archive import Archive, LoadedArchive
from cfray.sources.qdrant.types import Page, cut_ranges, parse_id

#: Ranges of an archive at most.  Each range unpacks the archive anew, so more ranges would cost
#: more than they save.
_MAX_RANGES = 8
#: Points of a page of ids alone.
_ID_PAGE_ROWS = 10_000
_SUFFIXES = (".snapshot", ".tar")
_NOTES = (
    (
        "a set of shard snapshots cannot be proven complete: "
        "compare the number of records with the collection's own count"
    ),
    ("aliases are not part of snapshots, and snapshots of several shards are of several moments"),
)


def plan_shards(uri: str, collections: list[str] | None, shard_bytes: int) -> list[Shard]:
    """Cut each archive at a path or in a folder into ranges of ids.

    The archives are unpacked one after the other.

    Raises:
        SourceError: no archive, or archives that are not of the shards of one collection.
    """
    archives = _find_archives(uri)
    names = [_collection_name(archive, collections) for archive in archives]
    _refuse_same_shard(archives, names)
    planned: list[Shard] = []
    for archive, name in zip(archives, names, strict=True):
        with archive.load() as loaded:
            _check_same_vectors(loaded, name, planned)
            planned += _cut(loaded, name, shard_bytes)
    return planned


def _find_archives(uri: str) -> list[Archive]:
    """List the archives: a file, a folder that a shard was unpacked to, or a folder of files."""
    system, path = filesystems.open_filesystem(uri)
    if system.get_file_info(f"{path.rstrip('/')}/segments").type == pafs.FileType.Directory:
        return [Archive.pin_files(uri)]
    files = list_files(uri)
    is_single_file = len(files) == 1 and files[0].uri == uri
    if not is_single_file:
        files = [file for file in files if file.name.endswith(_SUFFIXES)]
    if not files:
        raise SourceError(
            f"no snapshot ({' or '.join(_SUFFIXES)}) at {uri}",
            "correct source.uri in the job file",
        )
    return [Archive.pin_files(file.uri) for file in files]


def _collection_name(archive: Archive, collections: list[str] | None) -> str:
    """Name the collection of an archive: ``source.collections`` comes before the file's name."""
    if not collections:
        return archive.collection
    if len(collections) != 1:
        raise SourceError(
            "snapshots are read as one collection, and source.collections names several",
            "make a job for each collection",
        )
    return collections[0]


def _refuse_same_shard(archives: Sequence[Archive], names: Sequence[str]) -> None:
    """Refuse two archives of the same shard of a collection."""
    first_names: dict[tuple[str, str], str] = {}
    for archive, name in zip(archives, names, strict=True):
        if archive.shard_number is None:
            continue
        first_name = first_names.setdefault((name, archive.shard_number), archive.name)
        if first_name != archive.name:
            raise SourceError(
                f"{first_name} and {archive.name} are of the same shard",
                "remove one of them: both would give the shard's points twice",
            )


def _check_same_vectors(loaded: LoadedArchive, name: str, planned: Sequence[Shard]) -> None:
    """Refuse an archive whose vectors differ from those of its collection's other archives."""
    earlier = next((shard for shard in planned if shard.collection == name), None)
    if earlier is None:
        return
    vectors = schema.parse_vectors(loaded.config)
    if schema.parse_vectors(schema.shard_config(earlier)) != vectors:
        raise SourceError(
            f"{loaded.archive.name} declares other vectors than the other archives of {name}",
            "move it to another folder, and make a job for that folder",
        )


def _cut(loaded: LoadedArchive, name: str, shard_bytes: int) -> Iterator[Shard]:
    """Cut a loaded archive into ranges of ids."""
    archive = loaded.archive
    rows = loaded.count()
    row_bytes = schema.estimate_row_bytes(schema.parse_vectors(loaded.config))
    shard_count = max(1, min(rows, _MAX_RANGES, math.ceil(rows * row_bytes / shard_bytes)))
    where: dict[str, Json] = {"uri": archive.uri, "pin": archive.pin, "config": loaded.config}
    ids = loaded.scroll_ids(PageSize(_ID_PAGE_ROWS, _ID_PAGE_ROWS, _ID_PAGE_ROWS))
    for cut in cut_ranges(ids, math.ceil(rows / shard_count) or 1):
        yield Shard(
            f"{name}#{archive.name}#{cut.label}",
            {**where, **cut.where},
            rows=cut.rows,
            size=archive.size // shard_count,
            collection=name,
        )


def read_pages(shard: Shard, page_size: PageSize) -> Iterator[Page]:
    """Read one range out of a copy of its archive."""
    uri = str(shard.where["uri"])
    archive = Archive(uri, name=os.path.basename(uri), pin=str(shard.where["pin"]))
    vectors = schema.parse_vectors(schema.shard_config(shard))
    start, end = parse_id(shard.where["from"]), parse_id(shard.where["to"])
    with archive.load() as loaded:
        yield from loaded.scroll(vectors, page_size, start=start, end=end)


def describe_archives(shards: list[Shard]) -> Description:
    """Say what the archives hold, and what they cannot tell."""
    rows = Counter[str]()
    configs: dict[str, dict[str, Json]] = {}
    for shard in shards:
        rows[shard.collection] += shard.rows or 0
        configs[shard.collection] = schema.shard_config(shard)
    notes = [*_NOTES]
    collections: list[Collection] = []
    for name, config in configs.items():
        collections.append(schema.to_collection(name, config, rows[name]))
        notes += schema.collection_notes(name, config, replicas_must_agree=True)
    return Description(
        schema=None,
        rows=rows.total(),
        exact=True,
        size=sum(shard.size for shard in shards),
        consistency="pinned files",
        notes=tuple(notes),
        collections=tuple(collections),
    )
