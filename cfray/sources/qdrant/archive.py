"""One snapshot of a Qdrant shard, read by the vendor's own engine in this process.

The engine is the package ``qdrant-edge-py``.  Loading a shard writes to it and locks it, so
the original is never loaded: each read unpacks a copy into the machine's temporary folder
and deletes it at the end.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import pyarrow.fs as pafs

from cfray.errors import SourceError, SourceUnavailable
from cfray.runtime import filesystems
from cfray.sources.base import Json
from cfray.sources.files.locations import list_files
from cfray.sources.paging import PageSize
from cfray.sources.qdrant.decode import decode_record
from cfray.sources.qdrant.schema import VectorConfig
from cfray.sources.qdrant.types import Page, PointId, build_page, check_order

T = TypeVar("T")

#: The name that a server gives to the snapshot of a shard: collection, shard, date.
_SERVER_NAME = re.compile(r"^(?P<collection>.+)-shard-(?P<shard>\d+)-[\d-]+\.snapshot$")


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
    size: int = 0

    @classmethod
    def pin_files(cls, uri: str) -> Archive:
        """Pin the present state of the files at a path or URI."""
        files = list_files(uri)
        stamps = [(file.name, file.size, file.modified) for file in files]
        return cls(
            uri,
            name=os.path.basename(uri.rstrip("/")),
            pin=hashlib.sha256(repr(stamps).encode()).hexdigest(),
            size=sum(file.size for file in files),
        )

    @property
    def collection(self) -> str:
        """Read the collection out of a name that a server gave; else give the name itself."""
        match = _SERVER_NAME.match(self.name)
        return match["collection"] if match else os.path.splitext(self.name)[0]

    @property
    def shard_number(self) -> str | None:
        """Read the shard's number out of a name that a server gave."""
        match = _SERVER_NAME.match(self.name)
        return match["shard"] if match else None

    def check_unchanged(self) -> None:
        """Compare the files with the pin.

        Raises:
            SourceError: the files changed.
        """
        if Archive.pin_files(self.uri).pin != self.pin:
            raise SourceError(
                f"{self.uri} changed since the plan was made",
                "restore it, or start anew with another target",
            )

    @contextmanager
    def load(self) -> Iterator[LoadedArchive]:
        """Unpack a copy and load it into the engine.

        Raises:
            SourceError: the files changed, or are no snapshot of a shard.
            SourceUnavailable: a remote filesystem did not deliver them.
        """
        engine = import_engine()
        self.check_unchanged()
        with tempfile.TemporaryDirectory(prefix="cfray-qdrant-") as folder:
            copy = self._unpack(engine, Path(folder))
            self.check_unchanged()
            shard = self.explain_engine_errors(lambda: engine.EdgeShard.load(str(copy)))
            try:
                yield LoadedArchive(self, shard, _read_config(copy))
            finally:
                shard.close()

    def explain_engine_errors(self, action: Callable[[], T]) -> T:
        """Run a call of the engine; its complaints about the files are terminal errors.

        Raises:
            SourceError: the files are damaged, or do not belong to a shard.
        """
        try:
            return action()
        except Exception as error:
            raise self._unreadable(str(error)) from error
        except BaseException as error:
            # a panic of the engine's Rust code, whose type no module exports
            if type(error).__name__ != "PanicException":
                raise
            raise self._unreadable(f"the engine gave up: {error}") from None

    def _unpack(self, engine: ModuleType, folder: Path) -> Path:
        """Unpack the archive into a folder, and check that its segments are complete."""
        copy = folder / "shard"
        system, path = filesystems.open_filesystem(self.uri)
        is_folder = system.get_file_info(path).type == pafs.FileType.Directory
        if is_folder:
            self._copy_to_disk(system, path, copy)
        else:
            if filesystems.is_uri(self.uri):
                self._copy_to_disk(system, path, folder / "archive")
                path = str(folder / "archive")
            self.explain_engine_errors(lambda: engine.EdgeShard.unpack_snapshot(path, str(copy)))
        segments = sorted(copy.glob("segments/*"))
        if not segments:
            raise self._unreadable("it holds no segments")
        for segment in segments:
            # the engine would leave such a segment out without an error
            if segment.is_dir() and not (segment / "version.info").exists():
                raise self._unreadable(f"its segment {segment.name} is incomplete")
        return copy

    def _copy_to_disk(self, system: pafs.FileSystem, path: str, copy: Path) -> None:
        local_disk = pafs.LocalFileSystem()
        try:
            pafs.copy_files(
                path, str(copy), source_filesystem=system, destination_filesystem=local_disk
            )
        except OSError as error:
            raise SourceUnavailable(
                f"{self.uri} cannot be copied: {error}",
                "check that its filesystem answers and the local disk has room",
            ) from error

    def _unreadable(self, reason: str) -> SourceError:
        return SourceError(
            f"{self.uri} cannot be read as the snapshot of a Qdrant shard: {reason}",
            "take a snapshot of each shard (POST /collections/NAME/shards/N/snapshots): "
            "the snapshot of a whole collection or node cannot be read",
        )


@dataclass(frozen=True, slots=True)
class LoadedArchive:
    """A copy of an archive, loaded into the engine.

    Attributes:
        archive: the original.
        engine_shard: the engine's shard.
        config: what the shard declares, as JSON.
    """

    archive: Archive
    engine_shard: Any
    config: dict[str, Json]

    def count(self) -> int:
        """Count the points."""
        return int(self.engine_shard.info().points_count)

    def scroll(
        self,
        vectors: Mapping[str, VectorConfig],
        page_size: PageSize,
        *,
        start: PointId | None = None,
        end: PointId | None = None,
    ) -> Iterator[Page]:
        """Scroll from ``start`` up to ``end``, with payloads and vectors."""
        return self._scroll(vectors, page_size, start=start, end=end, with_content=True)

    def scroll_ids(self, page_size: PageSize) -> Iterator[PointId]:
        """Scroll through all ids, without payloads and vectors."""
        for page in self._scroll({}, page_size, start=None, end=None, with_content=False):
            yield from page.ids

    def _scroll(
        self,
        vectors: Mapping[str, VectorConfig],
        page_size: PageSize,
        *,
        start: PointId | None,
        end: PointId | None,
        with_content: bool,
    ) -> Iterator[Page]:
        engine, next_id, last_id = import_engine(), start, None
        while True:
            request = engine.ScrollRequest(
                offset=next_id,
                limit=page_size.rows,
                with_payload=with_content,
                with_vector=with_content,
            )
            records, offset = self.archive.explain_engine_errors(
                partial(self.engine_shard.scroll, request)
            )
            next_id = offset if offset is None or isinstance(offset, int) else str(offset)
            page = build_page(map(decode_record, records), vectors, next_id=next_id)
            last_id = check_order(page, last_id, self.archive.uri)
            page = page.cut_at(end)
            if page.ids:
                yield page
            if page.next_id is None:
                return


def import_engine() -> ModuleType:
    """Import the vendor's engine.

    Raises:
        SourceError: the engine is not installed; the remedy names its package.
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


def _read_config(copy: Path) -> dict[str, Json]:
    """Read what an unpacked shard declares.

    The engine's own file says it, and so do the files of all segments together: a vector that the
    collection got later may be declared by some of them only.
    """
    if (copy / "edge_config.json").exists():
        config: dict[str, Json] = json.loads((copy / "edge_config.json").read_text())
        return config
    vectors: dict[str, Json] = {}
    sparse_vectors: dict[str, Json] = {}
    for segment in sorted(copy.glob("segments/*/segment.json")):
        segment_config = json.loads(segment.read_text())["config"]
        vectors = (segment_config.get("vector_data") or {}) | vectors
        sparse_vectors = (segment_config.get("sparse_vector_data") or {}) | sparse_vectors
    return {"vectors": vectors, "sparse_vectors": sparse_vectors}
