"""What the last sync has read of each shard, so that the next one need not read it again.

Beside the target lies, for each shard whose source can say that nothing was written to it, what
its records became: key and hash of each row.  A sync that finds the shard as it was compares the
target with that.  Nothing here is believed without its digest, and to lose it costs a read.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
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
        shard: of the source.
        watermark: of the shard, taken before it was read.
        rows: file with key and hash (``ROW_HASH``) of each row that its records became, in order.
        rejected: file with the lines of its quarantine; None where there are none.
        read, quarantined: records.
        rejects: sum of the hashes of the quarantined, modulo 2**64.
        counts: for the report.
    """

    shard: Shard
    watermark: str
    rows: WrittenFile
    rejected: WrittenFile | None
    read: int
    quarantined: int
    rejects: int
    counts: dict[str, int]

    def is_of(self, shard: Shard) -> bool:
        """Tell whether a shard is cut as this one was."""
        mine, other = (
            json.dumps([cut.id, cut.collection, cut.where], sort_keys=True)
            for cut in (self.shard, shard)
        )
        return mine == other


def read_shard_of(data: dict[str, Any]) -> ReadShard:
    """Make the value of parsed JSON (``asdict``)."""
    files = {name: data[name] and WrittenFile(**data[name]) for name in ("rows", "rejected")}
    return ReadShard(**data | files | {"shard": Shard(**data["shard"])})


@dataclass(frozen=True, slots=True)
class Watermarks:
    """The shards of the last sync.

    Attributes:
        folder: of the files.
        shards: id -> the shard.
    """

    folder: Folder
    shards: dict[str, ReadShard] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: Folder, basis: dict[str, Any]) -> Watermarks:
        """Read what the last sync left; nothing where it was another job, or another cfray."""
        body = read_document(folder, _INDEX)
        if body is None or body["basis"] != basis:
            return cls(folder)
        shards = [read_shard_of(data) for data in body["shards"]]
        return cls(folder, {read.shard.id: read for read in shards})

    def find(self, shard: Shard) -> ReadShard | None:
        """Find a shard that is cut as it was; None where there is none."""
        found = self.shards.get(shard.id)
        return found if found is not None and found.is_of(shard) else None

    def replace(self, basis: dict[str, Any], shards: Sequence[ReadShard]) -> None:
        """Write down what this sync has read, and remove all that counts no more."""
        body = {"basis": basis, "shards": [asdict(shard) for shard in shards]}
        write_document(self.folder, _INDEX, body)
        counts = {_INDEX, *(shard.rows.name for shard in shards)}
        counts |= {shard.rejected.name for shard in shards if shard.rejected is not None}
        for name in self.folder.list_names():
            if name not in counts:
                self.folder.remove(name)

    def read(self, file: WrittenFile) -> bytes | None:
        """Read a file; None where it is not what was written."""
        data = self.folder.read(file.name)
        return data if data is not None and file.is_of(data) else None


def read_array(data: bytes) -> npt.NDArray[Any]:
    """Read an array from the bytes of a file of NumPy's."""
    array: npt.NDArray[Any] = np.load(io.BytesIO(data))
    return array
