"""Receipts: what became of one shard.

Published beside the target before the commit that takes it in.

A receipt is named by its shard and a nonce of its own; the ledger names the
nonce it committed.  So a slow worker of a run that lost its lease can publish
what it likes: nobody will mistake it for the committed one.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any


def dumps(value: object) -> bytes:
    """Write JSON for people and for us: sorted, indented, UTF-8."""
    return (json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False) + "\n").encode()


@dataclass(frozen=True, slots=True)
class StagedFile:
    """A data or blob file as written: path below the dataset, bytes, XXH3-128 as hex."""

    path: str
    size: int
    digest: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """What ``write`` returns for one shard: everything that commit and verify need to know.

    Attributes:
        name: shard number in the plan, or a pseudo-shard's name.
        shard: the shard's id.
        nonce: makes this writing of the shard unlike any other.
        read, staged, quarantined: records; read is the sum of the other two.
        frames: rows in ``fragments`` (records staged and frames derived from them).
        fragments: Lance fragment metadata (parsed JSON).
        files: every file of the fragments.
        sums: column group -> sum of row hashes modulo 2**64.
        centroids: collection -> [vectors summed, base64 of float64 sums].
        counts: what the report tells.
        seconds: stage -> seconds of the worker.
        size: bytes of Arrow data handed to ``write``.
        resolved: quarantined rows a replay brought in (``file:line``), removed rows of duplicates
            by shard, or the sums of the vectors that an embed wrote, by shard.
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
