"""The folder of a comparison in the target's ``scratch/``, by which one that was killed goes on.

It holds the rows that the target has, how the source was divided, and what came of each shard.  It
counts only for the same version of the target, the same job and the same marks of the source.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.fs as pafs

from cfray.copying.uuid_search import Keys
from cfray.errors import TargetError
from cfray.runtime.filesystems import Folder, open_filesystem
from cfray.sources.base import Shard
from cfray.syncing.known import KnownPart, KnownRows
from cfray.syncing.shard import ShardOutcome, ids_of
from cfray.target.documents import dumps

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
        new: keys of documents that the target has not.
    """

    kept: RowIds
    changed: RowIds
    new: Keys


@dataclass(frozen=True, slots=True)
class ComparisonFolder:
    """The folder of one comparison."""

    folder: Folder

    def resume(self, basis: dict[str, Any]) -> Begun | None:
        """Go on with a comparison of the same basis; None where there is none."""
        data = self.folder.read(_BASIS)
        if data is None:
            return None
        try:
            body = json.loads(data)
            if body["basis"] != basis:
                return None
            parts = tuple(KnownPart(**part) for part in body["parts"])
            shards = [Shard(**shard) for shard in body["shards"]]
            names = [name for name in self.folder.list_names() if name.startswith(_OUTCOME)]
            outcomes = [ShardOutcome(**json.loads(self.folder.read(name) or b"")) for name in names]
        except (ValueError, TypeError, LookupError):
            return None  # a damaged file saves no work
        by_number = {outcome.number: outcome for outcome in outcomes}
        return Begun(KnownRows(self.folder, parts), shards, by_number)

    def begin(self, basis: dict[str, Any], known: KnownRows, shards: Sequence[Shard]) -> None:
        """Write down what a comparison is made of."""
        body = {
            "basis": basis,
            "parts": [asdict(part) for part in known.parts],
            "shards": [asdict(shard) for shard in shards],
        }
        self.folder.publish(_BASIS, dumps(body))

    def save(self, outcome: ShardOutcome) -> None:
        """Keep what came of a shard, in place of what came of it before."""
        self.folder.publish(f"{_OUTCOME}{outcome.number}.json", dumps(asdict(outcome)))

    def seen_by(self, outcome: ShardOutcome) -> Seen:
        """Read what a shard has seen."""
        kept, changed, new = (
            self._array(f"{outcome.nonce}.{name}") for name in ("kept", "changed", "new")
        )
        return Seen(ids_of(kept), changed, new)

    def rejected_by(self, outcome: ShardOutcome) -> bytes:
        """Read the lines of the quarantine that a shard wrote."""
        return self.folder.read(f"{outcome.nonce}.rejected") or b""

    def remove(self) -> None:
        """Remove the folder."""
        system, path = open_filesystem(self.folder.uri)
        if system.get_file_info(path).type == pafs.FileType.Directory:
            system.delete_dir(path)

    def _array(self, name: str) -> npt.NDArray[Any]:
        data = self.folder.read(name)
        if data is None:
            raise TargetError(f"{self.folder.uri}/{name} is gone", "run the same command again")
        array: npt.NDArray[Any] = np.load(io.BytesIO(data), allow_pickle=False)
        return array
