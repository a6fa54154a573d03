"""The place of an export: taken before anything is written, and cleared of what kills left.

Beside the folder stands another with the claim (which export it is) and the receipts of the parts
that are there.  It goes once the manifest is written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from cfray.errors import ConfigError
from cfray.runtime.filesystems import Folder, open_filesystem
from cfray.sources.files.frames import MANIFEST
from cfray.target.documents import dumps, parse_document
from cfray.transfers.exports.manifest import Manifest, PartReceipt
from cfray.transfers.exports.part import Part
from cfray.transfers.exports.settings import ExportSettings
from cfray.transfers.files import list_sizes
from cfray.transfers.places import read_file
from cfray.transfers.points import folder_beside

_CLAIM = "export.json"
_PARTS = "parts"
#: Names of files of a part, and of files that are not whole.
_OF_PART = re.compile(r"part-\d{5}-\d+-[0-9a-f]{8}\.\w+")
_UNFINISHED = re.compile(r".*\.[0-9a-f]{8}\.part")


@dataclass(frozen=True, slots=True)
class Claim:
    """Which export it is.

    Attributes:
        settings: of the export.
        dataset: its identity.
        version: that is exported.
        written: when that version was written; a dataset that was restored to an earlier point
            makes version numbers again.
        parts: of the export.
    """

    settings: ExportSettings
    dataset: str
    version: int
    written: str
    parts: tuple[Part, ...]

    def is_of(self, other: Claim) -> bool:
        """Tell whether another export is of the same dataset, with the same settings."""
        return (self.settings, self.dataset) == (other.settings, other.dataset)


def receipts_folder(address: str) -> str:
    """Name the folder of the receipts of an export's parts."""
    return folder_beside(address).child(_PARTS).uri


def read_claim(address: str) -> Claim | None:
    """Read which export was begun at an address; None where none was.

    Raises:
        TargetError: the storage cannot be read, or the file is damaged.
    """
    folder = folder_beside(address)
    data = read_file(folder, _CLAIM)
    if data is None:
        return None
    return parse_document(data, f"{folder.uri}/{_CLAIM}", _claim, remedy="give another address")


def _claim(data: bytes) -> Claim:
    body: dict[str, Any] = json.loads(data)
    settings = {**body["settings"], "columns": tuple(body["settings"]["columns"])}
    parts = tuple(Part(item["number"], tuple(item["fragments"])) for item in body["parts"])
    return Claim(
        ExportSettings(**settings), body["dataset"], body["version"], body["written"], parts
    )


def take(address: str, claim: Claim) -> None:
    """Take an address where nothing is, or that has this claim.

    Raises:
        ConfigError: something else stands there.
    """
    if not check_free(address, claim):
        folder_beside(address).publish(_CLAIM, dumps(asdict(claim)))


def check_free(address: str, claim: Claim) -> bool:
    """Find that nothing else stands at an address; tell whether it has this claim already.

    Raises:
        ConfigError: something else does.
    """
    folder = folder_beside(address)
    begun = read_claim(address)
    if begun == claim:
        return True
    if begun is not None:
        raise ConfigError(
            f"another export to {address} was interrupted",
            f"finish it, give another address, or remove {address} and {folder.uri}",
        )
    if folder.exists() or list_sizes(address):
        raise ConfigError(
            f"something is at {address} already; nothing was changed", "give another address"
        )
    return False


def read_manifest(address: str) -> Manifest | None:
    """Read the manifest of a finished export; None where there is none.

    Raises:
        TargetError: the storage cannot be read, or the file is damaged.
    """
    data = read_file(Folder(address), MANIFEST)
    if data is None:
        return None
    return parse_document(
        data, f"{address}/{MANIFEST}", Manifest.from_json, remedy="give another address"
    )


def read_receipts(address: str) -> Iterator[PartReceipt]:
    """Read the receipts of parts whose files are there.

    Raises:
        TargetError: one is damaged.
    """
    folder = Folder(receipts_folder(address))
    names = [name for name in folder.list_names() if re.fullmatch(r"\d+\.json", name)]
    sizes = list_sizes(address) if names else {}
    for name in names:
        data = folder.read(name)
        assert data is not None
        receipt = parse_document(data, f"{folder.uri}/{name}", PartReceipt.from_json)
        if all(sizes.get(item.file.path) == item.file.size for item in receipt.files):
            yield receipt


def remove_left_over(address: str, manifest: Manifest) -> None:
    """Remove what killed attempts left: only files with names that an export gives."""
    system, root = open_filesystem(address)
    known = {item.file.path for item in manifest.files}
    for path in sorted(list_sizes(address).keys() - known):
        name = path.rpartition("/")[2]
        if _OF_PART.fullmatch(name) or _UNFINISHED.fullmatch(name):
            system.delete_file(f"{root}/{path}")


def forget(address: str) -> None:
    """Remove the folder beside a finished export."""
    system, path = open_filesystem(folder_beside(address).uri)
    with suppress(FileNotFoundError):
        system.delete_dir(path)
