"""A Chroma persistent directory: it is copied, and the copy is read.

Opening a directory may migrate it, so the original is only ever read.  A worker keeps one
copy for all its shards, in a process by itself (``copy_process.py``); the copy disappears
with the worker, however that ends.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from cfray.errors import SourceError
from cfray.runtime import filesystems
from cfray.sources.chroma.client import ChromaStore, Operation
from cfray.sources.chroma.copy import DATABASE_FILE, IN_USE_REMEDY, pin_directory
from cfray.sources.chroma.copy_process import CopyProcess
from cfray.sources.chroma.types import CollectionAddress, CollectionModel


class DirectoryCopy(ChromaStore):
    """A copy of a persistent directory, in the state in which it was pinned."""

    def __init__(self, uri: str, pin: str | None, timeout: float) -> None:
        """Copy the directory, or use the copy that this worker has already.

        Args:
            uri: of the directory.
            pin: digest of the planned state; None pins the present state.
            timeout: seconds that a request may take.

        Raises:
            SourceError: the directory is in use, no Chroma directory, or not the pinned one.
        """
        self.timeout = timeout
        pin = pin or pin_directory(uri)
        self.pin = {"pin": pin}
        self._key = uri, pin
        self.copy_process = _acquire_process(*self._key)

    def close(self) -> None:
        """Leave the copy to the next shard."""
        _release_process(self.copy_process)

    def send(
        self,
        address: CollectionAddress,
        operation: Operation,
        model: CollectionModel | None = None,
        body: Mapping[str, object] | None = None,
    ) -> bytes:
        """Ask the process that has the copy open; start it again if it has ended."""
        if not self.copy_process.is_running:
            _release_process(self.copy_process)
            self.copy_process = _acquire_process(*self._key)
        name = address.collection if model is None else str(model["name"])
        request = [address.tenant, address.database, name, operation, body]
        return self.copy_process.send(request, self.timeout)


_lock = threading.Lock()
#: The process whose copy the next shard will read; never more than one.
reusable_processes: list[CopyProcess] = []


def processes_that_hold(database: Path) -> Iterator[str]:
    """Name the processes of this machine that have the database open.

    Linux only, and only processes that this user may look into.
    """
    real_path = os.path.realpath(database)
    for process in Path("/proc").glob("[0-9]*"):
        # the process has ended, or belongs to another user
        with suppress(OSError):
            for descriptor in os.listdir(process / "fd"):
                # the file was closed meanwhile
                with suppress(OSError):
                    if os.readlink(process / "fd" / descriptor) == real_path:
                        yield process.name


def _acquire_process(uri: str, pin: str) -> CopyProcess:
    """Give the running process with a copy of this state, or start one."""
    with _lock:
        for process in reusable_processes:
            if process.key == (uri, pin) and process.is_running:
                process.users += 1
                return process
        forget_copies()
        if pin_directory(uri) != pin:
            raise SourceError(
                f"{uri} has changed since the plan was made",
                "restore it, or start anew with another target",
            )
        database = Path(filesystems.open_filesystem(uri)[1], DATABASE_FILE)
        if holder := next(processes_that_hold(database), None):
            raise SourceError(f"{uri} is in use by process {holder}", IN_USE_REMEDY)
        process = CopyProcess(uri, pin)
        process.users = 1
        reusable_processes.append(process)
        return process


def _release_process(process: CopyProcess) -> None:
    """Give a process back; end it if no other reader may still use it."""
    with _lock:
        process.users -= 1
        if process.users == 0 and process not in reusable_processes:
            process.end()


@atexit.register
def forget_copies() -> None:
    """End the processes that nobody uses, and offer no copy to the next reader."""
    for process in reusable_processes:
        if process.users == 0:
            process.end()
    reusable_processes.clear()
