"""The process that owns the copy of one Chroma directory: ``python -m cfray.sources.chroma.copy``.

It makes the copy, opens it with chromadb's documented client and answers what a
server would, line by line, until its input ends or nobody asks any more.
Opening may migrate a directory, so the original is only ever read.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import json
import os
import select
import signal
import sys
from types import ModuleType
from typing import BinaryIO

import pyarrow.fs as pafs

from cfray.errors import SourceError, SourceUnavailable
from cfray.runtime import filesystems
from cfray.runtime.sdk import import_sdk

DATABASE = "chroma.sqlite3"
#: Seconds without a request after which the copy is given up; the next request makes another.
_IDLE = 300.0
STOP = "stop what writes to it (or copy the directory yourself), or read the server with source.url"


def pin_of(uri: str) -> str:
    """Digest names, sizes and times of a directory's files.

    Raises:
        SourceError: it is no persistent directory.
        SourceUnavailable: the filesystem did not answer.
    """
    system, root = filesystems.filesystem(uri)
    try:
        found = system.get_file_info(pafs.FileSelector(root, recursive=True, allow_not_found=True))
    except OSError as error:
        raise SourceUnavailable(
            f"cannot list {uri}: {error}",
            "check that the filesystem answers and that this user may read it",
        ) from error
    files = sorted(
        (os.path.relpath(one.path, root), one.size, one.mtime_ns)
        for one in found
        if one.type == pafs.FileType.File
    )
    if DATABASE not in [name for name, _, _ in files]:
        raise SourceError(
            f"{uri} is no Chroma directory: it holds no {DATABASE}",
            "let source.uri name the directory that Chroma persisted to",
        )
    return hashlib.sha256(json.dumps(files).encode()).hexdigest()


class _Copy:
    """The copy, through chromadb's documented client."""

    def __init__(self, folder: str) -> None:
        self.chroma: ModuleType = import_sdk("chromadb", "chroma")
        settings = import_sdk("chromadb.config", "chroma").Settings
        self.settings = settings(
            anonymized_telemetry=False, is_persistent=True, persist_directory=folder
        )
        self.admin = self.chroma.AdminClient(self.settings)
        self.client = functools.cache(
            functools.partial(self.chroma.PersistentClient, folder, self.settings)
        )

    def answer(
        self, tenant: str, database: str, name: str, what: str, body: dict[str, object] | None
    ) -> object:
        """Answer as the server would."""
        if what == "databases":
            return list(self.admin.list_databases(tenant=tenant, **(body or {})))
        client = self.client(tenant, database)
        if what == "collections":
            return [_model(one) for one in client.list_collections(**(body or {}))]
        collection = client.get_collection(name, embedding_function=None)
        if what == "collection":
            return _model(collection)
        found = getattr(collection, what)(**(body or {}))
        if what == "get" and found["embeddings"] is not None:
            found["embeddings"] = found["embeddings"].astype("float32")
        return found


def _model(collection: object) -> dict[str, object]:
    model = collection.get_model()  # type: ignore[attr-defined]  # chromadb is not typed here
    return {
        key: model[key] for key in ("id", "name", "configuration_json", "metadata", "dimension")
    }


def _copy(uri: str, pin: str, folder: str) -> None:
    """Copy the directory, and be sure that nobody wrote meanwhile."""
    system, root = filesystems.filesystem(uri)
    try:
        pafs.copy_files(
            root, folder, source_filesystem=system, destination_filesystem=pafs.LocalFileSystem()
        )
    except OSError as error:
        full = error.errno == errno.ENOSPC or "No space left" in str(error)
        remedy = (
            "free disk space, or let TMPDIR name a larger disk, on every worker"
            if full
            else "give this user read access to the directory"
        )
        raise SourceError(f"cannot copy {uri}: {error}", remedy) from error
    if pin_of(uri) != pin:
        raise SourceError(f"{uri} changed while it was copied", STOP)


def _send(stream: BinaryIO, body: str | bytes, **head: object) -> None:
    body = body.encode() if isinstance(body, str) else body
    stream.write(json.dumps({**head, "size": len(body)}).encode() + b"\n" + body)
    stream.flush()


def main(uri: str, pin: str, folder: str) -> None:
    """Copy a directory and answer requests about it until there is no more to come."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints must not stand among the answers
    try:
        _copy(uri, pin, folder)
        copy = _Copy(folder)
        _send(out, b"", status=200)
        _serve(copy, out)
    except SourceError as error:
        _send(out, error.what, status=0, remedy=error.remedy)
    except BaseException as error:  # noqa: BLE001  # a panic of the engine is no Exception
        remedy = "read it with the version of chromadb that wrote it"
        _send(
            out,
            f"chromadb cannot open the copy of {uri}: {type(error).__name__}: {error}",
            status=0,
            remedy=remedy,
        )


def _serve(copy: _Copy, out: BinaryIO) -> None:
    dumps, numpy = (
        import_sdk("orjson", "chroma").dumps,
        import_sdk("orjson", "chroma").OPT_SERIALIZE_NUMPY,
    )
    while select.select([sys.stdin], [], [], _IDLE)[0] and (line := sys.stdin.readline()):
        timeout, request = json.loads(line)
        signal.setitimer(
            signal.ITIMER_REAL, timeout + 1
        )  # ends a process that hangs, even if nobody is left to do it
        try:
            answer = dumps(copy.answer(*request), option=numpy)
        except BaseException as error:  # noqa: BLE001  # a panic of the engine is no Exception
            _send(
                out,
                f"{type(error).__name__}: {error}",
                status=404 if type(error).__name__ == "NotFoundError" else 400,
            )
        else:
            _send(out, answer, status=200)
        signal.setitimer(signal.ITIMER_REAL, 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
