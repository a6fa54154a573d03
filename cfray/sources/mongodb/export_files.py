"""Find the files that mongodump and mongoexport wrote, and name the collection of each.

mongodump writes ``DATABASE/COLLECTION.bson`` with ``COLLECTION.metadata.json`` beside it;
characters that a file name cannot hold are ``%XX``.  mongoexport and Compass write one JSON
file a collection, whose name may or may not say which.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import unquote

from cfray.errors import SourceError
from cfray.runtime import filesystems
from cfray.sources.files.compression import HEAD_BYTES
from cfray.sources.files.listing import PinnedFile, open_file
from cfray.sources.files.locations import list_files

#: How a dump in one file begins (mongodump --archive), little-endian 0x8199e26d.
_ARCHIVE_MAGIC = b"\x6d\xe2\x99\x81"
_DUMP, _METADATA = ".bson", ".metadata.json"
_JSON = (".json", ".jsonl", ".ndjson", ".extjson")
#: Databases of the deployment itself, which a dump of all databases holds, too.
_OWN_DATABASES = frozenset({"admin", "config", "local"})
_DUMP_HELP = (
    "name in source.uri the folder that mongodump wrote, a .bson or .bson.gz file of it, or a file "
    "that mongoexport wrote"
)


@dataclass(frozen=True, slots=True)
class ExportFile:
    """A file with documents of one collection.

    Attributes:
        file: pinned.
        collection: name of the source collection.
        is_dump: whether it is BSON; else it is extended JSON.
    """

    file: PinnedFile
    collection: str
    is_dump: bool


@dataclass(frozen=True, slots=True)
class Export:
    """What lies at a location.

    Attributes:
        files: those to read.
        metadata: name of the source collection -> what mongodump says of it, parsed.
        unread: sentences about documents that are not read.
        notes: sentences about what the dump holds.
    """

    files: list[ExportFile]
    metadata: dict[str, dict[str, object]]
    unread: tuple[str, ...]
    notes: tuple[str, ...]


def find_export(uri: str, collections: Sequence[str] | None) -> Export:
    """Find the files of an export.

    Raises:
        SourceError: there is none, it is an archive, the collection of a file cannot be told, or
            the job names a collection that no file holds.
    """
    pinned = list_files(uri)
    files: list[ExportFile] = []
    metadata: dict[str, dict[str, object]] = {}
    unread: list[str] = []
    json_files = [file for file in pinned if _is_json(file.name)]
    for file in pinned:
        name = _without_codec(file.name)
        if name.endswith(_DUMP):
            _add_dump(file, uri, files, unread)
        elif name.endswith(_METADATA):
            metadata[_dump_collection(file, uri, _METADATA)] = _read_metadata(file)
        elif file in json_files and posixpath.basename(name) != "prelude.json":
            collection = _json_collection(file, collections, len(json_files))
            files.append(ExportFile(file, collection, is_dump=False))
        else:
            _refuse_archive(file)
    if not files:
        raise SourceError(f"no file of mongodump or mongoexport at {uri}", _nowhere_help())
    unread += _unread_kinds(metadata)
    notes = _view_notes(metadata)
    return Export(_choose(files, collections, uri), metadata, tuple(unread), notes)


def _nowhere_help() -> str:
    return f"correct source.uri: {_DUMP_HELP}"


def _without_codec(name: str) -> str:
    for suffix in (".gz", ".zst"):
        name = name.removesuffix(suffix)
    return name


def _is_json(name: str) -> bool:
    name = _without_codec(name)
    return name.endswith(_JSON) and not name.endswith(_METADATA)


def _add_dump(file: PinnedFile, uri: str, files: list[ExportFile], unread: list[str]) -> None:
    """Add a BSON file, unless it is none of a collection of the user's."""
    _refuse_archive(file)
    base = posixpath.basename(_without_codec(file.name))
    if base == "oplog.bson":
        unread.append(
            f"{file.name} is not read: the writes during the dump are in it and not in the "
            "collections, whose files are of different moments"
        )
        return
    collection = _dump_collection(file, uri, _DUMP)
    database, _, name = collection.partition(".")
    if name.startswith("system.buckets.") or not (
        database in _OWN_DATABASES or name.startswith("system.")
    ):
        if name.startswith("system.buckets."):
            return
        files.append(ExportFile(file, collection, is_dump=True))


def _dump_collection(file: PinnedFile, uri: str, suffix: str) -> str:
    """Name the collection of a file of a dump: its folder is the database."""
    path = _without_codec(file.name).removesuffix(suffix)
    folder, _, name = path.rpartition("/")
    if not folder:
        # the location is the database's folder, or the file itself
        root = filesystems.strip_credentials(uri).rstrip("/")
        if root.endswith(posixpath.basename(file.name)):
            root = posixpath.dirname(root)
        folder = root
    return f"{posixpath.basename(folder)}.{unquote(name)}"


def _json_collection(file: PinnedFile, collections: Sequence[str] | None, json_count: int) -> str:
    """Name the collection of a JSON file.

    Raises:
        SourceError: neither the file's name nor the job says it.
    """
    name = posixpath.basename(_without_codec(file.name))
    for suffix in _JSON:
        name = name.removesuffix(suffix)
    if json_count == 1 and collections and len(collections) == 1:
        return collections[0]
    if "." not in name:
        raise SourceError(
            f"{file.uri}: its name does not say which database its collection is from",
            "write source.collections: [DATABASE.COLLECTION] in a job for this file, or rename it "
            f"to DATABASE.{name}.json",
        )
    return name


def _refuse_archive(file: PinnedFile) -> None:
    """Refuse a dump in one file.

    Raises:
        SourceError: it is one.
    """
    with open_file(file) as stream:
        head = bytes(stream.read(HEAD_BYTES))
    if head.startswith(_ARCHIVE_MAGIC):
        raise SourceError(
            f"{file.uri} is an archive of mongodump, in which the collections are mixed",
            "dump without --archive, or restore it and read the deployment; cfray reads the folder "
            "that mongodump --out writes",
        )


def _read_metadata(file: PinnedFile) -> dict[str, object]:
    with open_file(file) as stream:
        text = bytes(stream.read())
    try:
        parsed = json.loads(text)
    except ValueError as error:
        raise SourceError(
            f"{file.uri} is no metadata of mongodump: {error}", "restore the file, or dump again"
        ) from None
    return parsed if isinstance(parsed, dict) else {}


def _unread_kinds(metadata: dict[str, dict[str, object]]) -> list[str]:
    return [
        f"{name} is not read: it is a time series, whose measurements have no unique _id"
        for name, entry in sorted(metadata.items())
        if _kind(entry) == "timeseries"
    ]


def _view_notes(metadata: dict[str, dict[str, object]]) -> tuple[str, ...]:
    return tuple(
        f"{name} is not read: it is a view"
        for name, entry in sorted(metadata.items())
        if _kind(entry) == "view"
    )


def _kind(entry: dict[str, object]) -> str:
    options = entry.get("options")
    if isinstance(options, dict):
        if "viewOn" in options:
            return "view"
        if "timeseries" in options:
            return "timeseries"
    return str(entry.get("type", "collection"))


def _choose(
    files: list[ExportFile], collections: Sequence[str] | None, uri: str
) -> list[ExportFile]:
    """Choose the files of the collections that the job names.

    Raises:
        SourceError: one of them is not there, or one collection has two files.
    """
    names = {file.collection for file in files}
    missing = sorted(set(collections or ()) - names)
    if missing:
        raise SourceError(
            f"{uri} has no file of the collection {missing[0]}; there are: "
            f"{', '.join(sorted(names)[:20])}",
            "correct source.collections in the job file",
        )
    chosen = [file for file in files if not collections or file.collection in collections]
    first_files: dict[str, PinnedFile] = {}
    for file in chosen:
        first = first_files.setdefault(file.collection, file.file)
        if first is not file.file:
            raise SourceError(
                f"{first.name} and {file.file.name} are both of the collection {file.collection}",
                "remove one of them, or name one in source.uri: documents would be read twice",
            )
    return chosen
