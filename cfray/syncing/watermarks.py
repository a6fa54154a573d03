"""What the last sync has read of each shard, so that the next one need not read it again.

Beside the target lies, for each shard whose source can say that nothing was written to it, what
its records became: key and hash of each row.  A sync that finds the shard as it was compares the
target with that.  Nothing here is believed without its digest, and to lose it costs a read.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from cfray.runtime.filesystems import Folder
from cfray.sources.base import Shard
from cfray.syncing.files import WrittenFile, read_document, write_document

#: File that names what counts.
_INDEX = "watermarks.json"


@dataclass(frozen=True, slots=True)
class ReadShard:
    """A shard as a sync has read it.

    Attributes:
        watermark: of the shard, taken before it was read.
        rows: file with key and hash (``ROW_HASH``) of each row that its records became, in order.
        rejected: file with the lines of its quarantine; None where there are none.
        read, quarantined: records.
        rejects: sum of the hashes of the quarantined, modulo 2**64.
        counts: for the report.
    """

    watermark: str
    rows: WrittenFile
    rejected: WrittenFile | None
    read: int
    quarantined: int
    rejects: int
    counts: dict[str, int]


def read_shard_of(data: dict[str, Any]) -> ReadShard:
    """Make the value of parsed JSON (``asdict``)."""
    files = {name: data[name] and WrittenFile(**data[name]) for name in ("rows", "rejected")}
    return ReadShard(**data | files)


@dataclass(frozen=True, slots=True)
class Watermarks:
    """The shards of the last sync.

    Attributes:
        folder: of the files.
        division: id -> shard, of all shards that the source was divided into.
        shards: id -> the shard as it was read, of those that need not be read again.
    """

    folder: Folder
    division: dict[str, Shard] = field(default_factory=dict)
    shards: dict[str, ReadShard] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: Folder, basis: dict[str, Any]) -> Watermarks:
        """Read what the last sync left; nothing where it was another job, or another cfray."""
        body = read_document(folder, _INDEX)
        if body is None or body["basis"] != basis:
            return cls(folder)
        division = {data["id"]: Shard(**data) for data in body["division"]}
        return cls(
            folder, division, {name: read_shard_of(data) for name, data in body["shards"].items()}
        )

    def find(self, shard: Shard) -> ReadShard | None:
        """Find a shard that is cut as it was; None where there is none."""
        before = self.division.get(shard.id)
        return self.shards.get(shard.id) if before is not None and _same(before, shard) else None

    def replace(
        self, basis: dict[str, Any], division: Sequence[Shard], shards: Mapping[str, ReadShard]
    ) -> None:
        """Write down what this sync has read, and remove all that counts no more."""
        body = {
            "basis": basis,
            "division": [asdict(shard) for shard in division],
            "shards": {name: asdict(shard) for name, shard in shards.items()},
        }
        write_document(self.folder, _INDEX, body)
        _remove_others(self.folder, shards)

    def remove_leftovers(self) -> None:
        """Remove what syncs have left that did not end."""
        _remove_others(self.folder, self.shards)

    def read(self, file: WrittenFile) -> bytes | None:
        """Read a file; None where it is not what was written."""
        data = self.folder.read(file.name)
        return data if data is not None and file.is_of(data) else None


def _remove_others(folder: Folder, shards: Mapping[str, ReadShard]) -> None:
    """Remove the files that are of none of these shards."""
    counts = {_INDEX, *(shard.rows.name for shard in shards.values())}
    counts |= {shard.rejected.name for shard in shards.values() if shard.rejected is not None}
    for name in folder.list_names():
        if name not in counts:
            folder.remove(name)


def _same(one: Shard, other: Shard) -> bool:
    """Tell whether two shards are cut alike; their sizes are estimates."""
    mine, theirs = (
        json.dumps([shard.id, shard.collection, shard.where], sort_keys=True)
        for shard in (one, other)
    )
    return mine == theirs


def read_array(data: bytes) -> npt.NDArray[Any]:
    """Read an array from the bytes of a file of NumPy's."""
    array: npt.NDArray[Any] = np.load(io.BytesIO(data))
    return array
