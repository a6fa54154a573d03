"""Snapshots of Qdrant shards, read by the vendor's own engine in this process.

(PyPI ``qdrant-edge-py``).

Loading a shard writes to it and locks it, so the original is never loaded: each read unpacks a copy
of its own in the machine's temporary folder and deletes it.  Tested with archives of shards that
the engine itself wrote; a server's ``/collections/NAME/shards/N/snapshots`` should be the same and
is untested.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import pyarrow.fs as pafs

from cfray.errors import SourceError, SourceUnavailable
from cfray.runtime import filesystems
from cfray.sources.base import Collection, Description, Json, Shard
from cfray.sources.files.listing import listed
from cfray.sources.qdrant import schema, types
from cfray.sources.qdrant.schema import Vector
from cfray.sources.qdrant.types import Id, Page
from cfray.sources.remote import PageSize

T = TypeVar("T")

#: Each range of an archive unpacks it anew, so more of them would cost more than they save.
_MOST_RANGES = 8
_IDS = 10_000
_SUFFIXES = (".snapshot", ".tar")
#: What a server calls the snapshot of a shard: collection, shard, date.
_NAMED = re.compile(r"^(?P<collection>.+)-shard-(?P<shard>\d+)-[\d-]+\.snapshot$")


@dataclass(frozen=True, slots=True)
class Archive:
    """One shard's snapshot.

    Attributes:
        uri: a tar file, or the folder that it was unpacked to.
        name: file name.
        pin: digest of its files' names, sizes and times when the plan was made.
        size: bytes.
    """

    uri: str
    name: str
    pin: str
    size: int

    @classmethod
    def at(cls, uri: str) -> Archive:
        """Pin what is at a path or URI."""
        files = listed(uri)
        digest = hashlib.sha256(
            repr([(file.name, file.size, file.modified) for file in files]).encode()
        ).hexdigest()
        return cls(uri, os.path.basename(uri.rstrip("/")), digest, sum(file.size for file in files))

    @property
    def collection(self) -> str:
        """Read the collection out of the name that a server gives; else the name itself."""
        named = _NAMED.match(self.name)
        return named["collection"] if named else os.path.splitext(self.name)[0]

    def check(self) -> None:
        """Compare with the pin.

        Raises:
            SourceError: the files changed.
        """
        if Archive.at(self.uri).pin != self.pin:
            raise SourceError(
                f"{self.uri} changed since the plan was made",
                "restore it, or start anew with another target",
            )

    @contextmanager
    def loaded(self) -> Iterator[tuple[Any, dict[str, Json]]]:
        """Unpack a copy, load it, and give the engine's shard and its configuration.

        Raises:
            SourceError: it changed, or is no snapshot of a shard.
            SourceUnavailable: a remote filesystem did not deliver it.
        """
        edge = engine()
        self.check()
        with tempfile.TemporaryDirectory(prefix="cfray-qdrant-") as folder:
            copy = self._unpacked(edge, Path(folder))
            self.check()
            shard = self.engines(lambda: edge.EdgeShard.load(str(copy)))
            try:
                yield shard, _config(copy)
            finally:
                shard.close()

    def engines(self, do: Callable[[], T]) -> T:
        """Run a call of the engine; what it says of the files is a terminal error.

        Raises:
            SourceError: the files are damaged, or are none of a shard's.
        """
        try:
            return do()
        except Exception as error:
            raise self._unreadable(str(error)) from error
        except BaseException as error:
            if (
                type(error).__name__ != "PanicException"
            ):  # a panic of its Rust code, which no module names
                raise
            raise self._unreadable(f"the engine gave up: {error}") from None

    def _unpacked(self, edge: ModuleType, folder: Path) -> Path:
        system, path = filesystems.filesystem(self.uri)
        copy, local = folder / "shard", pafs.LocalFileSystem()
        is_folder = system.get_file_info(path).type == pafs.FileType.Directory
        if is_folder or filesystems.is_uri(self.uri):
            fetched = copy if is_folder else folder / "archive"
            try:
                pafs.copy_files(
                    path, str(fetched), source_filesystem=system, destination_filesystem=local
                )
            except OSError as error:
                raise SourceUnavailable(
                    f"{self.uri} cannot be copied: {error}",
                    "check that its filesystem answers and the local disk has room",
                ) from error
            path = str(fetched)
        if not is_folder:
            self.engines(lambda: edge.EdgeShard.unpack_snapshot(path, str(copy)))
        segments = sorted(copy.glob("segments/*"))
        if not segments:
            raise self._unreadable("it holds no segments")
        for segment in segments:
            if (
                segment.is_dir() and not (segment / "version.info").exists()
            ):  # the engine would leave it out and say nothing
                raise self._unreadable(f"its segment {segment.name} is incomplete")
        return copy

    def _unreadable(self, why: str) -> SourceError:
        return SourceError(
            f"{self.uri} cannot be read as the snapshot of a Qdrant shard: {why}",
            "take one for each shard (POST /collections/NAME/shards/N/snapshots): a whole collection's or node's snapshot is not read",
        )


def engine() -> ModuleType:
    """Import the vendor's engine.

    Raises:
        SourceError: it is not installed; names the package.
    """
    try:
        import qdrant_edge
    except ModuleNotFoundError as error:
        if error.name != "qdrant_edge":
            raise
        raise SourceError(
            "the engine that reads Qdrant's snapshots is not installed",
            "pip install qdrant-edge-py on the driver and on every worker",
        ) from None
    return qdrant_edge


def shards(uri: str, collections: list[str] | None, shard_bytes: int) -> list[Shard]:
    """Cut each archive at a path or in a folder into ranges of ids; one unpacked copy at a time.

    Raises:
        SourceError: nothing there, or not the snapshots of one collection's shards.
    """
    found = _archives(uri)
    planned: list[Shard] = []
    seen: dict[tuple[str, str], str] = {}
    for archive in found:
        name = _named(archive, collections)
        if named := _NAMED.match(archive.name):
            other = seen.setdefault((name, named["shard"]), archive.name)
            if other != archive.name:
                raise SourceError(
                    f"{other} and {archive.name} are of the same shard",
                    "keep the one to read: both would give its points twice",
                )
        with archive.loaded() as (store, config):
            declares = schema.declared(config.get("vectors"), config.get("sparse_vectors"))
            before = next((shard for shard in planned if shard.collection == name), None)
            if before is not None and _declared(before) != declares:
                raise SourceError(
                    f"{archive.name} declares other vectors than the other archives of {name}",
                    "move it to a folder of its own",
                )
            rows, weight = store.info().points_count, schema.row_bytes(declares)
            parts = max(1, min(rows, _MOST_RANGES, math.ceil(rows * weight / shard_bytes)))
            ids = (
                one
                for page in _pages(archive, store, {}, PageSize(_IDS, _IDS, _IDS), whole=False)
                for one in page.ids
            )
            where: dict[str, Json] = {"uri": archive.uri, "pin": archive.pin, "config": config}
            for label, bounds, count in types.ranges(ids, math.ceil(rows / parts) or 1):
                planned.append(
                    Shard(
                        f"{name}#{archive.name}#{label}",
                        {**where, **bounds},
                        rows=count,
                        size=archive.size // parts,
                        collection=name,
                    )
                )
    return planned


def pages(shard: Shard, size: PageSize) -> Iterator[Page]:
    """Read one range out of a copy of its archive."""
    uri, start, end = (
        str(shard.where["uri"]),
        types.id_json(shard.where["from"]),
        types.id_json(shard.where["to"]),
    )
    archive = Archive(uri, os.path.basename(uri), str(shard.where["pin"]), 0)
    with archive.loaded() as (store, _):
        yield from _pages(archive, store, _declared(shard), size, start=start, end=end)


def describe(shards: list[Shard]) -> Description:
    """Say what the archives hold, and what cannot be known of them."""
    rows: dict[str, int] = {}
    configs: dict[str, dict[str, Json]] = {}
    for shard in shards:
        rows[shard.collection] = rows.get(shard.collection, 0) + (shard.rows or 0)
        config = shard.where["config"]
        assert isinstance(config, dict)
        configs[shard.collection] = config
    notes = [
        "a set of shard snapshots cannot be proven complete: compare the number of records with the collection's own count",
        "aliases are not part of snapshots, and snapshots of several shards are of several moments",
    ]
    collections: list[Collection] = []
    for name, config in configs.items():
        collections.append(schema.collection(name, config, rows[name]))
        notes += schema.notes(name, config, consistent=True)
    size = sum(shard.size for shard in shards)
    return Description(
        None, sum(rows.values()), True, size, "pinned files", tuple(notes), tuple(collections)
    )


def _archives(uri: str) -> list[Archive]:
    """List the archives: a file, a folder that a shard was unpacked to, or a folder of files."""
    system, path = filesystems.filesystem(uri)
    if system.get_file_info(f"{path.rstrip('/')}/segments").type == pafs.FileType.Directory:
        return [Archive.at(uri)]
    files = listed(uri)
    if len(files) != 1 or files[0].uri != uri:  # a folder
        files = [file for file in files if file.name.endswith(_SUFFIXES)]
    if not files:
        raise SourceError(
            f"no snapshot ({' or '.join(_SUFFIXES)}) at {uri}", "correct source.uri in the job file"
        )
    return [Archive.at(file.uri) for file in files]


def _named(archive: Archive, collections: list[str] | None) -> str:
    """Name the collection of an archive.

    ``source.collections`` says it where the file's name does not.
    """
    if not collections:
        return archive.collection
    if len(collections) != 1:
        raise SourceError(
            "snapshots are read as one collection, and source.collections names several",
            "make a job for each collection",
        )
    return collections[0]


def _declared(shard: Shard) -> dict[str, Vector]:
    config = shard.where["config"]
    assert isinstance(config, dict)
    return schema.declared(config.get("vectors"), config.get("sparse_vectors"))


def _pages(
    archive: Archive,
    store: Any,
    declares: dict[str, Vector],
    size: PageSize,
    *,
    start: Id | None = None,
    end: Id | None = None,
    whole: bool = True,
) -> Iterator[Page]:
    edge, offset, last = engine(), start, None
    while True:
        asked = edge.ScrollRequest(
            offset=offset, limit=size.rows, with_payload=whole, with_vector=whole
        )
        found, following = archive.engines(partial(store.scroll, asked))
        offset = following if following is None or isinstance(following, int) else str(following)
        page = types.page_of(map(types.from_record, found), declares, following=offset)
        last = types.risen(page, last, archive.uri)
        page = page.until(end)
        if page.ids:
            yield page
        if page.following is None:
            return


def _config(copy: Path) -> dict[str, Json]:
    """Read what the shard declares.

    The engine's own file, or any segment's, which says the same in other words.
    """
    if (copy / "edge_config.json").exists():
        config: dict[str, Json] = json.loads((copy / "edge_config.json").read_text())
        return config
    for segment in sorted(copy.glob("segments/*/segment.json")):
        told = json.loads(segment.read_text())["config"]
        return {
            "vectors": told.get("vector_data"),
            "sparse_vectors": told.get("sparse_vector_data"),
        }
    return {}
