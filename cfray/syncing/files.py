"""Files of a comparison, each with its digest: what a kill or a disk has done to them is noticed.

They are not synced to the disk one by one, so that a machine that loses its power may leave one
empty or cut although another one names it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import xxhash

from cfray.copying.write import digest_file
from cfray.errors import TargetError
from cfray.runtime.filesystems import Folder, open_filesystem


class ComparisonDamaged(TargetError):
    """A file of a comparison is not what was written; without it the source is read again."""


def damaged(folder: Folder, name: str) -> ComparisonDamaged:
    """Say that a file is not what was written."""
    return ComparisonDamaged(
        f"{folder.uri}/{name} is not as it was written",
        "run the same command again: it reads the source from the start",
    )


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """A file as it was written: its name, bytes, XXH3-128 as hex."""

    name: str
    size: int
    digest: str

    def is_of(self, data: bytes) -> bool:
        """Tell whether these bytes are what was written."""
        return (len(data), xxhash.xxh3_128_hexdigest(data)) == (self.size, self.digest)

    def is_whole(self, folder: Folder) -> bool:
        """Tell whether the file is what was written."""
        system, path = open_filesystem(folder.uri)
        try:
            return digest_file(system, f"{path}/{self.name}") == (self.size, self.digest)
        except OSError:
            return False


def write_file(folder: Folder, name: str, data: bytes) -> WrittenFile:
    """Write a file at once."""
    folder.publish(name, data)
    return WrittenFile(name, len(data), xxhash.xxh3_128_hexdigest(data))


def write_document(folder: Folder, name: str, body: Any) -> None:
    """Write parsed JSON, with its digest in it.

    The keys keep their order: that of the keys of a file's folders is the order of its fields.
    """
    text = json.dumps(body, sort_keys=True)
    digest = xxhash.xxh3_128_hexdigest(text.encode())
    folder.publish(name, json.dumps({"digest": digest, "body": body}).encode())


def read_document(folder: Folder, name: str) -> Any:
    """Read parsed JSON; None where there is none, or it is not what was written."""
    try:
        whole = json.loads(folder.read(name) or b"null")
        text = json.dumps(whole["body"], sort_keys=True)
        is_whole = xxhash.xxh3_128_hexdigest(text.encode()) == whole["digest"]
    except (ValueError, TypeError, LookupError):
        return None
    return whole["body"] if is_whole else None


class HashedStream:
    """A stream into a file, which is hashed on its way; for Arrow's writers."""

    def __init__(self, folder: Folder, name: str) -> None:
        """Open the file."""
        system, path = open_filesystem(folder.uri)
        system.create_dir(path, recursive=True)
        self._name, self._digest, self._size = name, xxhash.xxh3_128(), 0
        self._stream = system.open_output_stream(f"{path}/{name}")
        self.closed = False

    def write(self, data: pa.Buffer | bytes) -> int:
        """Write bytes."""
        view = memoryview(data)
        self._digest.update(view)
        self._size += view.nbytes
        self._stream.write(view)
        return view.nbytes

    def flush(self) -> None:
        """Do nothing: closing writes everything."""

    def close(self) -> None:
        """Close the file."""
        if not self.closed:
            self._stream.close()
            self.closed = True

    def file(self) -> WrittenFile:
        """Give the file as it was written."""
        return WrittenFile(self._name, self._size, self._digest.hexdigest())
