"""Tables kept as files: folders whose log says which of their files count.

A Delta, Iceberg or Hudi table keeps the files of deleted and outdated rows beside the live ones.
Read as plain files they would bring those rows back, so such a folder is refused by its name.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import partial
from urllib.parse import unquote

import pyarrow.fs as pafs

from cfray.errors import SourceError
from cfray.runtime import filesystems
from cfray.sources.files import kinds
from cfray.sources.files.listing import PinnedFile, read_file
from cfray.sources.files.locations import Listing, folder_above
from cfray.sources.files.marks import is_iceberg_metadata

_DELTA, _HUDI, _ICEBERG = "a Delta table", "an Apache Hudi table", "an Apache Iceberg table"
_ICEBERG_FOLDER = "metadata"
#: Where a stream of Spark keeps the names of the files that it committed.
_SPARK_LOG = "_spark_metadata"
_FOLDERS = {"_delta_log": _DELTA, ".hoodie": _HUDI, _ICEBERG_FOLDER: _ICEBERG}


def refuse_tables(listing: Listing, files: Sequence[PinnedFile], kind: str) -> None:
    """Refuse files that lie in a table, be it below the location or around it.

    Tables keep their rows in Parquet: a text file in the folder of a table is none of its files.

    Raises:
        SourceError: names the table and the way to read it; or a file that a stream of Spark wrote
            and never committed.
        SourceUnavailable: the filesystem did not answer.
    """
    may_be_table = not files or kind not in kinds.SUFFIXES or kind == "parquet"
    folders = {os.path.dirname(file.name) for file in files}
    for folder in sorted({above for inner in folders for above in _with_parents(inner)} | {""}):
        names = _names_in(listing, folder)
        table = _table_of(names, partial(_metadata_below, listing, folder)) if folder else ""
        if table and may_be_table:
            raise _refusal(table, listing.locate(folder))
        if _SPARK_LOG in names:
            _check_spark_sink(listing, folder, files)
    if listing.entries and may_be_table and (table_and_root := find_table(listing.root)):
        raise _refusal(*table_and_root)


def find_table(location: str) -> tuple[str, str] | None:
    """Find the table that a folder is, or lies in.

    Returns:
        what the table is, and its path or URI; None where the folder lies in no table.
    """
    system, path = filesystems.open_filesystem(location)
    path, levels = path.rstrip("/"), 0
    while path:
        if table := _table_at(system, path):
            return table, folder_above(location, levels)
        path, levels = os.path.dirname(path).rstrip("/"), levels + 1
    return None


def _with_parents(folder: str) -> Iterator[str]:
    """Give a folder and those above it, by their paths below the root; the root itself is none."""
    while folder:
        yield folder
        folder = os.path.dirname(folder)


def _table_of(names: Collection[str], list_metadata: Callable[[], Collection[str]]) -> str:
    """Say what table a folder with these names in it is; empty for none."""
    for name, table in _FOLDERS.items():
        if name in names and (
            name != _ICEBERG_FOLDER or is_iceberg_metadata(_ICEBERG_FOLDER, list_metadata())
        ):
            return table
    return ""


def _names_in(listing: Listing, folder: str) -> Collection[str]:
    path = folder and f"{folder}/"
    return {name.rstrip("/") for name in listing.tree.list_names(path)}


def _metadata_below(listing: Listing, folder: str) -> Collection[str]:
    return _names_in(listing, f"{folder}/{_ICEBERG_FOLDER}")


def _check_spark_sink(listing: Listing, folder: str, files: Iterable[PinnedFile]) -> None:
    """Refuse files that the log of a stream of Spark does not hold: their rows come twice.

    A batch is a file of the log, named by its number; every tenth, ``9.compact``, has all before
    it, too.

    Raises:
        SourceError: names the first such file.
    """
    path = f"{folder}/{_SPARK_LOG}" if folder else _SPARK_LOG
    committed: set[str] = set()
    for name in _names_in(listing, path):
        if name.removesuffix(".compact").isdigit():
            for line in read_file(listing.locate(f"{path}/{name}")).splitlines()[1:]:
                committed.add(os.path.basename(unquote(str(json.loads(line)["path"]))))
    prefix = folder and f"{folder}/"
    for file in files:
        if file.name.startswith(prefix) and os.path.basename(file.name) not in committed:
            raise SourceError(
                f"{file.uri} is not in the log of the stream that wrote its folder ({path}): a "
                "batch that failed and was written again has its rows in other files, too",
                "move the file away, or remove the log if the file is no part of the stream",
            )


def _table_at(system: pafs.FileSystem, path: str) -> str:
    """Say what table a folder is; empty for none, and for a folder that may not be looked into."""

    def list_metadata() -> Collection[str]:
        selector = pafs.FileSelector(f"{path}/{_ICEBERG_FOLDER}")
        return {info.base_name for info in system.get_file_info(selector)}

    try:
        infos = system.get_file_info([f"{path}/{name}" for name in _FOLDERS])
        names = {info.base_name for info in infos if info.type == pafs.FileType.Directory}
        return _table_of(names, list_metadata)
    except OSError:
        return ""


def _refusal(table: str, location: str) -> SourceError:
    remedy = (
        f"write source.kind: delta and source.uri: {location} in the job file"
        if table == _DELTA
        else "read the table with an engine that knows it (Spark, DuckDB, Trino), write what it "
        "gives as plain Parquet, and name that folder"
    )
    return SourceError(
        f"{location} is {table}: its folder holds files of deleted and outdated rows beside the "
        "live ones, and only its log tells them apart",
        remedy,
    )
