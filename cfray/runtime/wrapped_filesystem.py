"""A filesystem of Arrow's, behind which single operations are done otherwise.

Arrow's filesystems of Azure and Google Cloud Storage differ from a folder on a disk in a few
operations: each has a subclass here that does these, and everything else is Arrow's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs


class WrappedFileSystem(pafs.FileSystemHandler):  # type: ignore[misc]  # pyarrow ships no types
    """Passes every operation on."""

    def __init__(self, system: pafs.FileSystem) -> None:
        self.system = system

    def get_type_name(self) -> str:
        return str(self.system.type_name)

    def normalize_path(self, path: str) -> str:
        return str(self.system.normalize_path(path))

    def get_file_info(self, paths: Sequence[str]) -> list[pafs.FileInfo]:
        return list(self.system.get_file_info(paths))

    def get_file_info_selector(self, selector: pafs.FileSelector) -> list[pafs.FileInfo]:
        return list(self.system.get_file_info(selector))

    def create_dir(self, path: str, recursive: bool) -> None:
        self.system.create_dir(path, recursive=recursive)

    def delete_dir(self, path: str) -> None:
        self.system.delete_dir(path)

    def delete_dir_contents(self, path: str, missing_dir_ok: bool = False) -> None:
        self.system.delete_dir_contents(path, missing_dir_ok=missing_dir_ok)

    def delete_root_dir_contents(self) -> None:
        raise NotImplementedError("cfray never empties a whole storage")

    def delete_file(self, path: str) -> None:
        self.system.delete_file(path)

    def move(self, src: str, dest: str) -> None:
        self.system.move(src, dest)

    def copy_file(self, src: str, dest: str) -> None:
        self.system.copy_file(src, dest)

    def open_input_stream(self, path: str) -> pa.NativeFile:
        return self.system.open_input_stream(path)

    def open_input_file(self, path: str) -> pa.NativeFile:
        return self.system.open_input_file(path)

    def open_output_stream(self, path: str, metadata: Any) -> pa.NativeFile:
        return self.system.open_output_stream(path, metadata=metadata)

    def open_append_stream(self, path: str, metadata: Any) -> pa.NativeFile:
        return self.system.open_append_stream(path, metadata=metadata)
