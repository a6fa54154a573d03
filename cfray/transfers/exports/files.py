"""Files that an export writes: each appears under its name when it is whole."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs

from cfray.copying.write import digest_file
from cfray.runtime.filesystems import open_filesystem
from cfray.runtime.storage_errors import classify_write_error
from cfray.transfers.files import HashedFile


class OutputFile:
    """A file that is being written.

    On a local disk it has another name until it is whole; an object store shows it when it is
    closed.
    """

    def __init__(self, folder: str, path: str) -> None:
        """Open a file below a folder, which is made if it is missing.

        Raises:
            TargetError: it cannot be written.
        """
        self.folder, self.path = folder, path
        self._system, root = open_filesystem(folder)
        self._name = f"{root}/{path}"
        is_local = isinstance(self._system, pafs.LocalFileSystem)
        self._begun = f"{self._name}.{uuid.uuid4().hex[:8]}.part" if is_local else self._name
        if is_local:
            self._call(lambda: os.makedirs(os.path.dirname(self._name), exist_ok=True))
        self.stream: pa.NativeFile = self._call(
            lambda: self._system.open_output_stream(self._begun)
        )

    def write(self, data: bytes | memoryview | pa.Buffer) -> None:
        """Write bytes behind those that are there."""
        self._call(lambda: self.stream.write(data))

    def finish(self) -> HashedFile:
        """Close the file, and read it again for its hash."""
        self._call(self.stream.close)
        if self._begun != self._name:
            self._call(lambda: os.replace(self._begun, self._name))
        size, digest = self._call(lambda: digest_file(self._system, self._name))
        return HashedFile(self.path, size, digest)

    def discard(self) -> None:
        """Give up a file that did not become whole."""
        with suppress(OSError):
            self.stream.close()
        with suppress(OSError):
            self._system.delete_file(self._begun)

    def _call(self, work: Callable[[], Any]) -> Any:
        try:
            return work()
        except OSError as error:
            raise classify_write_error(
                error, f"could not write {self.folder}/{self.path}"
            ) from error
