"""The process that owns the copy of a Chroma directory: ``python -m cfray.sources.chroma.copy``.

It makes the copy, opens it with chromadb's documented client and answers the requests that
a server would answer, line by line, until its input ends or no request comes any more.
Opening may migrate a directory, so the original is only ever read.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import json
import math
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

DATABASE_FILE = "chroma.sqlite3"
#: What a directory holds that was written before Chroma 0.4.
_OLD_FILE = "chroma-collections.parquet"
#: What a server would answer for an error of the engine.  A panic may pass: chromadb 1.5.9 panicked
#: once on a directory that it had just migrated, and read it the next time.
_STATUS = {"NotFoundError": 404, "PanicException": 500}
#: Seconds without a request after which the copy is given up; the next request makes another.
_IDLE_SECONDS = 300.0
IN_USE_REMEDY = (
    "stop what writes to it (or copy the directory yourself), or read the server with source.url"
)


def pin_directory(uri: str) -> str:
    """Compute a digest of the names, sizes and times of a directory's files.

    Raises:
        SourceError: the directory is no persistent directory of Chroma.
        SourceUnavailable: the filesystem did not answer.
    """
    system, root = filesystems.open_filesystem(uri)
    try:
        if system.get_file_info(root).type == pafs.FileType.File:
            raise SourceError(
                f"{uri} is a file, not a directory of Chroma",
                f"let source.uri name the directory that holds {DATABASE_FILE}",
            )
        infos = system.get_file_info(pafs.FileSelector(root, recursive=True, allow_not_found=True))
    except OSError as error:
        raise SourceUnavailable(
            f"cannot list {uri}: {error}",
            "check that the filesystem answers and that this user may read it",
        ) from error
    files = sorted(
        (os.path.relpath(info.path, root), info.size, info.mtime_ns)
        for info in infos
        if info.type == pafs.FileType.File
    )
    names = [name for name, _, _ in files]
    if DATABASE_FILE not in names:
        is_old = _OLD_FILE in names
        raise SourceError(
            f"{uri} is no Chroma directory: it holds no {DATABASE_FILE}",
            "it was written before Chroma 0.4: the package chroma-migrate brings it up to date"
            if is_old
            else "let source.uri name the directory that Chroma persisted to",
        )
    return hashlib.sha256(json.dumps(files).encode()).hexdigest()


class _OpenedCopy:
    """The copy, opened with chromadb's documented client."""

    def __init__(self, folder: str) -> None:
        chromadb: ModuleType = import_sdk("chromadb", "chroma")
        settings = import_sdk("chromadb.config", "chroma").Settings(
            anonymized_telemetry=False, is_persistent=True, persist_directory=folder
        )
        self.admin_client = chromadb.AdminClient(settings)
        self.client_of = functools.cache(
            functools.partial(chromadb.PersistentClient, folder, settings)
        )

    def answer(
        self,
        tenant: str,
        database: str,
        name: str,
        operation: str,
        body: dict[str, object] | None,
    ) -> object:
        """Answer a request as the server would."""
        options = body or {}
        if operation == "databases":
            return list(self.admin_client.list_databases(tenant=tenant, **options))
        client = self.client_of(tenant, database)
        if operation == "collections":
            return [_model(collection) for collection in client.list_collections(**options)]
        collection = client.get_collection(name, embedding_function=None)
        if operation == "collection":
            return _model(collection)
        answer = getattr(collection, operation)(**options)
        if operation == "get" and answer["embeddings"] is not None:
            answer["embeddings"] = answer["embeddings"].astype("float32")
        return answer


def _model(collection: object) -> dict[str, object]:
    model = collection.get_model()  # type: ignore[attr-defined]  # chromadb is not typed here
    return {
        key: model[key] for key in ("id", "name", "configuration_json", "metadata", "dimension")
    }


def _copy_directory(uri: str, pin: str, folder: str) -> None:
    """Copy the directory, and make sure that nobody wrote to it meanwhile."""
    system, root = filesystems.open_filesystem(uri)
    try:
        pafs.copy_files(
            root, folder, source_filesystem=system, destination_filesystem=pafs.LocalFileSystem()
        )
    except OSError as error:
        is_disk_full = error.errno == errno.ENOSPC or "No space left" in str(error)
        remedy = (
            "free disk space, or let TMPDIR name a larger disk, on every worker"
            if is_disk_full
            else "give this user read access to the directory"
        )
        raise SourceError(f"cannot copy {uri}: {error}", remedy) from error
    if pin_directory(uri) != pin:
        raise SourceError(f"{uri} changed while it was copied", IN_USE_REMEDY)


def _write_answer(stream: BinaryIO, body: str | bytes, **header: object) -> None:
    """Write one answer: a line of JSON with its status and size, then the body."""
    body = body.encode() if isinstance(body, str) else body
    stream.write(json.dumps({**header, "size": len(body)}).encode() + b"\n" + body)
    stream.flush()


def main(uri: str, pin: str, folder: str) -> None:
    """Copy a directory, and answer requests about the copy until the input ends."""
    answers = os.fdopen(os.dup(1), "wb")
    # what chromadb prints must not stand among the answers
    os.dup2(2, 1)
    try:
        _copy_directory(uri, pin, folder)
        copy = _OpenedCopy(folder)
        _write_answer(answers, b"", status=200)
        _serve(copy, answers)
    except SourceError as error:
        _write_answer(answers, error.what, status=0, remedy=error.remedy)
    except BaseException as error:  # noqa: BLE001  # a panic of the engine is no Exception
        _write_answer(
            answers,
            f"chromadb cannot open the copy of {uri}: {type(error).__name__}: {error}",
            status=0,
            remedy="read it with the version of chromadb that wrote it",
        )


def _holds_infinity(answer: object) -> bool:
    """Tell whether records hold Infinity or NaN, which orjson would write as null.

    Chroma before 1.5 took such numbers into vectors and metadata.
    """
    if not isinstance(answer, dict) or "metadatas" not in answer:
        return False
    if any(
        isinstance(value, float) and not math.isfinite(value)
        for metadata in answer["metadatas"] or ()
        for value in (metadata or {}).values()
    ):
        return True
    embeddings = answer["embeddings"]
    return hasattr(embeddings, "sum") and not math.isfinite(embeddings.sum())


def _as_list(array: object) -> object:
    return array.tolist()  # type: ignore[attr-defined]  # numpy's arrays are all that is left


def _serve(copy: _OpenedCopy, answers: BinaryIO) -> None:
    orjson = import_sdk("orjson", "chroma")
    while select.select([sys.stdin], [], [], _IDLE_SECONDS)[0] and (line := sys.stdin.readline()):
        timeout, request = json.loads(line)
        # the alarm ends this process if the engine hangs, even where the worker has gone
        signal.setitimer(signal.ITIMER_REAL, timeout + 1)
        try:
            answer = copy.answer(*request)
            body = (
                json.dumps(answer, default=_as_list).encode()
                if _holds_infinity(answer)
                else orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)
            )
        except BaseException as error:  # noqa: BLE001  # a panic of the engine is no Exception
            status = _STATUS.get(type(error).__name__, 400)
            _write_answer(answers, f"{type(error).__name__}: {error}", status=status)
        else:
            _write_answer(answers, body, status=200)
        signal.setitimer(signal.ITIMER_REAL, 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
