"""The manifests of a DynamoDB export: which table it is of, its files, their items and checksums.

An export is a folder ``AWSDynamoDB/<export id>`` with ``manifest-summary.json`` and
``manifest-files.json``.  A full export has its files in its folder ``data``; incremental exports
share the folder ``AWSDynamoDB/data``.  Nothing is read that the manifests do not name, and nothing
they name may be missing.

Source: Amazon DynamoDB Developer Guide, "DynamoDB table export output format".
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cfray.errors import SourceError
from cfray.sources.base import Json
from cfray.sources.files.listing import PinnedFile, read_file
from cfray.sources.files.locations import list_files, locate

SUMMARY, FILES = "manifest-summary.json", "manifest-files.json"
_CHECKSUM_SUFFIXES = (".checksum", ".md5")
_FORMATS = ("DYNAMODB_JSON", "ION")
#: An MD5 in base64, as the manifests write it, or in hexadecimal digits.
_MD5 = re.compile(r"[A-Za-z0-9+/]{22}==|[0-9a-fA-F]{32}")
_EXPORT_AGAIN = "download the export again, whole, or export the table again"


@dataclass(frozen=True, slots=True)
class DataFile:
    """One file of items.

    Attributes:
        file: pinned.
        items: that the manifest counts in it.
        md5: of the file, in base64.
    """

    file: PinnedFile
    items: int
    md5: str

    def to_json(self) -> dict[str, Json]:
        """Write the file into a shard's ``where``."""
        return {"file": self.file.to_json(), "items": self.items, "md5": self.md5}

    @classmethod
    def from_json(cls, data: Json) -> DataFile:
        """Read the file from a shard's ``where``."""
        assert isinstance(data, dict)
        pin = data["file"]
        assert isinstance(pin, dict)
        return cls(PinnedFile.from_json(pin), int(str(data["items"])), str(data["md5"]))


@dataclass(frozen=True, slots=True)
class Export:
    """One export of a table.

    Attributes:
        folder: path or URI.
        table: name of the table.
        summary: what the summary says.
        files: of items.
        unlisted: files of the folder ``data`` that the manifest does not name.
    """

    folder: str
    table: str
    summary: Mapping[str, Any]
    files: tuple[DataFile, ...]
    unlisted: tuple[str, ...] = ()

    @property
    def format(self) -> str:
        """Give the format of the files."""
        return str(self.summary.get("outputFormat", _FORMATS[0]))

    @property
    def items(self) -> int:
        """Give the number of items, or of changes."""
        return sum(file.items for file in self.files)

    @property
    def identity(self) -> str:
        """Name the table beyond its name: a table that was made again has another id."""
        return f"{self.summary.get('tableArn')}, id {self.summary.get('tableId', 'unknown')}"

    @property
    def is_full(self) -> bool:
        """Tell whether the export holds the table; else it holds changes of a time."""
        return str(self.summary.get("exportType", "FULL_EXPORT")) == "FULL_EXPORT"

    @property
    def since(self) -> dt.datetime:
        """Give the time from which on an incremental export holds the changes."""
        return self._time("exportFromTime")

    @property
    def until(self) -> dt.datetime:
        """Give the time at which the table was as the export says."""
        return self._time("exportTime" if self.is_full else "exportToTime")

    def _time(self, key: str) -> dt.datetime:
        try:
            return dt.datetime.fromisoformat(str(self.summary[key]))
        except (KeyError, ValueError):
            raise SourceError(
                f"{self.folder}/{SUMMARY} has no {key} that is a time", _EXPORT_AGAIN
            ) from None


def find_exports(uri: str) -> list[Export]:
    """Find the exports at a location: an export's folder or its summary, or a folder of exports.

    Raises:
        SourceError: there is none, or its manifests are damaged or incomplete.
        SourceUnavailable: the filesystem did not answer.
    """
    location = uri.rstrip("/")
    if location.endswith(f"/{SUMMARY}"):
        location = location.removesuffix(f"/{SUMMARY}")
    files = {file.name: file for file in list_files(location)}
    summaries = [name for name in files if name.rpartition("/")[2] == SUMMARY]
    if not summaries:
        raise SourceError(
            f"{uri} holds no {SUMMARY}, and so no export of a DynamoDB table",
            "correct source.uri: the folder AWSDynamoDB/<export id> of an export to S3, or a copy",
        )
    return [_read_export(location, name, files) for name in sorted(summaries)]


def _read_export(location: str, summary_name: str, files: Mapping[str, PinnedFile]) -> Export:
    prefix = summary_name.removesuffix(SUMMARY)
    folder = locate(location, prefix.rstrip("/")) if prefix else location
    summary = _parse(_read_checked(location, summary_name, files), f"{folder}/{SUMMARY}")
    table = str(summary.get("tableArn", "")).rpartition("/")[2]
    _check_summary(summary, table, folder)
    manifest_name = f"{prefix}{FILES}"
    if manifest_name not in files:
        raise SourceError(f"{folder} has no {FILES}", _EXPORT_AGAIN)
    lines = _read_checked(location, manifest_name, files).splitlines()
    entries = [_parse(line, f"{folder}/{FILES}") for line in lines if line.strip()]
    data_files = tuple(_find_file(entry, prefix, folder, files) for entry in entries)
    export = Export(
        folder,
        table,
        summary,
        data_files,
        tuple(
            sorted(
                name
                for name in files
                if name.startswith(f"{prefix}data/")
                and name not in {data.file.name for data in data_files}
            )
        ),
    )
    total = summary.get("itemCount")
    if total is not None and int(total) != export.items:
        raise SourceError(
            f"{folder}: the summary counts {int(total):,} items, the list of its files "
            f"{export.items:,}",
            _EXPORT_AGAIN,
        )
    return export


def _check_summary(summary: Mapping[str, Any], table: str, folder: str) -> None:
    kind = summary.get("exportType", "FULL_EXPORT")
    if kind not in ("FULL_EXPORT", "INCREMENTAL_EXPORT"):
        raise SourceError(
            f"{folder} is an export of the type {kind}, which cfray does not know",
            "export the table in full (export type FULL_EXPORT), and name that in source.uri",
        )
    if str(summary.get("outputFormat", _FORMATS[0])) not in _FORMATS:
        raise SourceError(
            f"{folder} has the output format {summary.get('outputFormat')}, which cfray does not "
            "know",
            f"export the table in the format {_FORMATS[0]}",
        )
    if not table:
        raise SourceError(f"{folder}/{SUMMARY} names no table", _EXPORT_AGAIN)


def _find_file(
    entry: Mapping[str, Any], prefix: str, folder: str, files: Mapping[str, PinnedFile]
) -> DataFile:
    """Find a file that the manifest names by its key in S3.

    It is in the folder of the export, or in the folder that incremental exports share.
    """
    key = str(entry.get("dataFileS3Key", ""))
    shared_prefix = prefix.rstrip("/").rpartition("/")[0]
    folders = (prefix, f"{shared_prefix}/" if shared_prefix else "")
    names = [f"{above}data/{key.rpartition('/')[2]}" for above in folders]
    name = next((name for name in names if name in files), "")
    if not name:
        raise SourceError(f"{folder}: the file {key} is missing", _EXPORT_AGAIN)
    try:
        return DataFile(files[name], int(entry["itemCount"]), str(entry["md5Checksum"]))
    except (KeyError, ValueError) as error:
        raise SourceError(
            f"{folder}/{FILES} is damaged at {key}: {error!r}", _EXPORT_AGAIN
        ) from None


def _read_checked(location: str, name: str, files: Mapping[str, PinnedFile]) -> bytes:
    """Read a manifest, and compare it with its checksum where that lies beside it."""
    content = read_file(files[name].uri)
    for suffix in _CHECKSUM_SUFFIXES:
        checksum = files.get(name.removesuffix(".json") + suffix)
        if checksum is None:
            continue
        expected = read_file(checksum.uri).decode("utf-8", "replace").strip().strip('"')
        digest = hashlib.md5(content, usedforsecurity=False)
        if _MD5.fullmatch(expected) and expected not in (
            base64.b64encode(digest.digest()).decode(),
            digest.hexdigest(),
        ):
            raise SourceError(
                f"{locate(location, name)} does not have the checksum that lies beside it",
                _EXPORT_AGAIN,
            )
    return content


def _parse(text: bytes, what: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise SourceError(f"{what} is no JSON: {error}", _EXPORT_AGAIN) from None
    if not isinstance(value, dict):
        raise SourceError(f"{what} holds something else than objects", _EXPORT_AGAIN)
    return value
