"""Receipts: what a worker wrote for one shard, and everything that commit and verify need of it.

A receipt is published beside the target after its files are written and before the
commit that takes them in.  Its name has two halves: the shard, and a nonce that no other
writing of the shard has; the ledger states the nonce it committed.  So a slow worker of
a run that lost its lease can publish what it likes: no reader takes it for the committed
receipt.

Receipts of earlier versions must stay readable: a field is added with a default, and
none is renamed.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import PurePosixPath
from typing import Any


@dataclass(frozen=True, slots=True)
class StagedFile:
    """A data or blob file as written: path below the dataset, bytes, XXH3-128 as hex."""

    path: str
    size: int
    digest: str


def data_file_of(path: str) -> str:
    """Name the data file that a path below the dataset belongs to.

    Lance keeps the blobs of ``data/x.lance`` as files in the folder ``data/x``: both
    belong to the data file ``x``.
    """
    return PurePosixPath(path).parts[1].removesuffix(".lance")


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a worker wrote for one shard, or the driver for one pseudo-shard.

    Attributes:
        name: the number of the shard in the plan, or the name of a pseudo-shard.
        shard: the shard's id.
        nonce: no other writing of the shard has it.
        read, staged, quarantined: records; read is the sum of the other two.
        frames: rows in ``fragments`` (records staged and the frames derived from them).
        fragments: Lance's metadata of the fragments (parsed JSON).
        files: every file of the fragments.
        sums: column group -> sum of row hashes modulo 2**64.
        centroids: collection -> (vectors summed, uuid of the header row, base64 of the float64
            sums).
        counts: counts of the report, by their name in the report.
        seconds: stage -> seconds of the worker.
        size: bytes of Arrow data handed to ``write``.
        resolved: what the entry changes of earlier entries; its shape depends on the kind of the
            entry, and ``cfray.target.books`` has a typed view for each kind.
    """

    name: str
    shard: str
    nonce: str
    read: int = 0
    staged: int = 0
    quarantined: int = 0
    frames: int = 0
    fragments: list[dict[str, Any]] = field(default_factory=list)
    files: list[StagedFile] = field(default_factory=list)
    sums: dict[str, int] = field(default_factory=dict)
    centroids: dict[str, tuple[int, str, str]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    size: int = 0
    resolved: dict[str, Any] = field(default_factory=dict)

    @property
    def quarantine_file(self) -> str:
        """Name the file in ``quarantine/`` that holds the rows this writing refused."""
        return f"{self.name}.{self.nonce}.jsonl"

    def to_json(self) -> bytes:
        """Write the receipt."""
        return json.dumps(asdict(self), separators=(",", ":")).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Receipt:
        """Read a receipt."""
        body = json.loads(data)
        body["files"] = [StagedFile(**item) for item in body["files"]]
        body["centroids"] = {name: tuple(item) for name, item in body["centroids"].items()}
        return cls(**body)
