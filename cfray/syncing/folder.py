"""The folder of a comparison in the target's ``scratch/``, by which one that was killed goes on.

It holds the rows that the target has, how the source was divided, and what came of each shard.  It
counts only for the same version of the target, the same job and the same marks of the source.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.fs as pafs

from cfray.runtime.filesystems import Folder, open_filesystem
from cfray.sources.base import Shard
from cfray.syncing.files import WrittenFile, damaged, read_document, write_document
from cfray.syncing.known import KnownPart, KnownRows
from cfray.syncing.shard import ShardOutcome, ids_of
from cfray.syncing.watermarks import read_shard_of

#: File that says what a comparison was made of; it is written when the source is divided.
_BASIS = "basis.json"
#: Beginning of the names of the files that say what came of a shard.
_OUTCOME = "outcome-"

RowIds = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Begun:
    """A comparison that was begun.

    Attributes:
        known: rows of the target.
        shards: of the source.
        outcomes: number of a shard -> what came of it.
    """

    known: KnownRows
    shards: list[Shard]
    outcomes: dict[int, ShardOutcome]


@dataclass(frozen=True, slots=True)
class Seen:
    """What a shard has seen of the target, and what is new in it.

    Attributes:
        kept: row ids of the target's rows that are the same, chunks included.
        changed: row ids of the target's documents in whose place others come.
        unfit: row ids of the target's documents whose records fit no longer.
        new: key and hash (``ROW_HASH``) of documents that the target has not.
    """

    kept: RowIds
    changed: RowIds
    unfit: RowIds
    new: npt.NDArray[np.void]


@dataclass(frozen=True, slots=True)
class ComparisonFolder:
    """The folder of one comparison."""

    folder: Folder

    def resume(self, basis: dict[str, Any]) -> Begun | None:
        """Go on with a comparison of the same basis; None where there is none."""
        body = read_document(self.folder, _BASIS)
        if body is None or body["basis"] != basis:
            return None
        parts = [
            KnownPart(WrittenFile(**part["keys"]), WrittenFile(**part["others"]), part["rows"])
            for part in body["parts"]
        ]
        files = [file for part in parts for file in (part.keys, part.others)]
        if not all(file.is_whole(self.folder) for file in files):
            return None
        shards = [Shard(**shard) for shard in body["shards"]]
        return Begun(KnownRows(self.folder, tuple(parts)), shards, self._outcomes())

    def _outcomes(self) -> dict[int, ShardOutcome]:
        """Read what came of each shard whose files are all as they were written."""
        outcomes: dict[int, ShardOutcome] = {}
        for name in self.folder.list_names():
            body = read_document(self.folder, name) if name.startswith(_OUTCOME) else None
            if body is None:
                continue
            body["files"] = {end: WrittenFile(**file) for end, file in body["files"].items()}
            before = body.pop("before")
            outcome = ShardOutcome(before=None if before is None else read_shard_of(before), **body)
            if all(file.is_whole(self.folder) for file in outcome.files.values()):
                outcomes[outcome.number] = outcome
        return outcomes

    def begin(self, basis: dict[str, Any], known: KnownRows, shards: Sequence[Shard]) -> None:
        """Write down what a comparison is made of; what came of another division counts no more."""
        for name in self.folder.list_names():
            if name.startswith(_OUTCOME):
                self.folder.remove(name)
        body = {
            "basis": basis,
            "parts": [asdict(part) for part in known.parts],
            "shards": [asdict(shard) for shard in shards],
        }
        write_document(self.folder, _BASIS, body)

    def save(self, outcome: ShardOutcome) -> None:
        """Keep what came of a shard, in place of what came of it before."""
        write_document(self.folder, f"{_OUTCOME}{outcome.number}.json", asdict(outcome))

    def seen_by(self, outcome: ShardOutcome) -> Seen:
        """Read what a shard has seen."""
        kept, changed, unfit, new = (
            self._array(outcome.files[name].name) for name in ("kept", "changed", "unfit", "new")
        )
        return Seen(ids_of(kept), changed, unfit, new)

    def rejected_by(self, outcome: ShardOutcome) -> bytes:
        """Read the lines of the quarantine that a shard wrote.

        Raises:
            ComparisonDamaged: they are not what was written.
        """
        if not outcome.quarantined:
            return b""
        file = outcome.files["rejected"]
        lines = self.folder.read(file.name)
        if lines is None or not file.is_whole(self.folder):
            raise damaged(self.folder, file.name)
        return lines

    def remove(self) -> None:
        """Remove the folder."""
        system, path = open_filesystem(self.folder.uri)
        if system.get_file_info(path).type == pafs.FileType.Directory:
            system.delete_dir(path)

    def _array(self, name: str) -> npt.NDArray[Any]:
        try:
            array: npt.NDArray[Any] = np.load(io.BytesIO(self.folder.read(name) or b""))
        except (ValueError, OSError, EOFError) as error:
            raise damaged(self.folder, name) from error
        return array
