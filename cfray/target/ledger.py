"""Ledger: the durable account of a run.

Two halves.  What is committed stands in the target's own schema metadata (key
``cfray.ledger``) and moves in the same Lance commit as the data, so the two
cannot disagree.  Everything else (plan, job, receipts of staged shards,
quarantined rows, report) is plain JSON in ``<target>.cfray/``, on the same
filesystem as the target.

A receipt is named by its shard and a nonce of its own; the ledger names the
nonce it committed.  So a slow worker of a run that lost its lease can publish
what it likes: nobody will mistake it for the committed one.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace

from cfray.errors import LedgerMismatch

LEDGER_KEY = "cfray.ledger"
#: Pseudo-shards.
HEADERS = "headers"
DUPLICATES = "duplicates"
REPLAY = "replay-"
EMBED = "embed-"


@dataclass(frozen=True, slots=True)
class Entry:
    """One committed shard.

    Attributes:
        start: first stable row id of its rows.
        rows: how many there are; their ids are contiguous, whatever compaction does.
        nonce: which of its receipts was committed.
    """

    start: int
    rows: int
    nonce: str


@dataclass(frozen=True, slots=True)
class Ledger:
    """What the target itself says is in it.

    Attributes:
        epoch: rises with every holder of the lease; a commit under an older one is refused.
        version: the Lance version this ledger was committed as.
        next_row: the next stable row id Lance will assign.
        fingerprints: every job fingerprint the target accepts, the first one first.
        entries: shard number (or name of a pseudo-shard) -> entry.
    """

    epoch: int
    version: int
    next_row: int
    fingerprints: tuple[str, ...]
    entries: dict[str, Entry] = field(default_factory=dict)

    def to_json(self) -> str:
        """Write the ledger compactly: it stands in every manifest."""
        entries = {
            name: [entry.start, entry.rows, entry.nonce] for name, entry in self.entries.items()
        }
        body = {"v": 1, "epoch": self.epoch, "version": self.version, "next_row": self.next_row}
        return json.dumps(
            {**body, "fingerprints": list(self.fingerprints), "entries": entries},
            separators=(",", ":"),
        )

    @classmethod
    def from_metadata(cls, metadata: dict[bytes, bytes] | None, uri: str) -> Ledger:
        """Read the ledger from a dataset's schema metadata.

        Raises:
            LedgerMismatch: the dataset was not made by cfray.
        """
        text = (metadata or {}).get(LEDGER_KEY.encode())
        if text is None:
            raise LedgerMismatch(
                f"{uri} is a Lance dataset that cfray did not make",
                "give another target.uri; nothing was changed",
            )
        data = json.loads(text)
        entries = {name: Entry(*values) for name, values in data["entries"].items()}
        return cls(
            data["epoch"], data["version"], data["next_row"], tuple(data["fingerprints"]), entries
        )

    def with_entry(self, name: str, rows: int, nonce: str) -> Ledger:
        """Add a shard whose rows come next; its row ids follow the last ones."""
        entries = {**self.entries, name: Entry(self.next_row, rows, nonce)}
        return replace(self, entries=entries, next_row=self.next_row + rows)

    @property
    def embeds(self) -> list[str]:
        """Name the committed rewritings of the vectors, in their order."""
        return sorted(name for name in self.entries if name.startswith(EMBED))

    @property
    def replays(self) -> list[str]:
        """Name the committed replays in their order."""
        return sorted(name for name in self.entries if name.startswith(REPLAY))
