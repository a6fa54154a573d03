"""What an export says of itself: which rows of which dataset it holds, with each file's hash."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from cfray.transfers.exports.settings import ExportSettings
from cfray.transfers.files import HashedFile

#: Version of the manifest, which ``cfray.sources.files.frames`` reads, too.
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class ExportedFile:
    """A file of an export.

    Attributes:
        file: its path, size and hash.
        rows: that it holds.
        collection: that its rows are of; empty where it holds rows of several.
    """

    file: HashedFile
    rows: int
    collection: str = ""


@dataclass(frozen=True, slots=True)
class PartReceipt:
    """What came of a part: some fragments of the dataset.

    Attributes:
        number: of the part.
        rows: that were written.
        files: that hold them.
        fragments: Lance's metadata of the fragments (parsed JSON), in the format ``lance``.
        lost: field -> what the layout of a vector database does not say of it.
    """

    number: int
    rows: int
    files: list[ExportedFile]
    fragments: list[dict[str, Any]] = field(default_factory=list)
    lost: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def from_json(cls, data: bytes) -> PartReceipt:
        """Read a receipt.

        Raises:
            ValueError, TypeError, LookupError: it was not written by this version of cfray.
        """
        body = json.loads(data)
        body["files"] = [_file(item) for item in body["files"]]
        return cls(**body)


def _file(body: dict[str, Any]) -> ExportedFile:
    return ExportedFile(HashedFile(**body["file"]), body["rows"], body["collection"])


@dataclass(frozen=True, slots=True)
class Manifest:
    """An export.

    Attributes:
        settings: that were asked for.
        source: address of the dataset.
        dataset: its identity.
        version: that was exported.
        written: when that version was written.
        name: of the job that made the dataset.
        rows: that were exported.
        dimension: of the column ``vector``.
        fields: of the rows, with their types: name, type and, where the format does not carry all
            of a field, what is lost; empty in formats without columns.  In the layout of a vector
            database the type is the store's; it is empty for a field of which only a loss is told.
        types: of the keys of ``custom_metadata``, as the dataset records them.
        files: of the export.
    """

    settings: ExportSettings
    source: str
    dataset: str
    version: int
    written: str
    name: str
    rows: int
    dimension: int
    fields: list[dict[str, str]]
    types: dict[str, str]
    files: list[ExportedFile]

    def to_json(self) -> dict[str, Any]:
        """Give the manifest as JSON."""
        return {"format": _FORMAT, **asdict(self)}

    @classmethod
    def from_json(cls, data: bytes) -> Manifest:
        """Read a manifest.

        Raises:
            ValueError, TypeError, LookupError: it was not written by this version of cfray.
        """
        body = json.loads(data)
        if body.pop("format") != _FORMAT:
            raise ValueError("of another format")
        settings = body.pop("settings")
        settings["columns"] = tuple(settings["columns"])
        body["files"] = [_file(item) for item in body["files"]]
        return cls(settings=ExportSettings(**settings), **body)
