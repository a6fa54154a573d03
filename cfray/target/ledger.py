"""The ledger: what is committed, in the schema metadata of the target itself.

Under the key ``cfray.ledger`` it moves in the same Lance commit as the data, so the two
cannot disagree.  Everything else of a run (plan, job, receipts, quarantined rows, report)
is plain JSON in ``<target>.cfray/``, on the same filesystem as the target, and counts
only where the ledger names it.

The ledger names shards and pseudo-shards alike; ``cfray.target.books`` tells them apart.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from typing import Any

from cfray.errors import LedgerMismatch

LEDGER_KEY = "cfray.ledger"
#: The format of the ledger that this version writes, and the newest that it reads.
FORMAT = 1


@dataclass(frozen=True, slots=True)
class Entry:
    """A committed shard or pseudo-shard.

    Attributes:
        start: first stable row id of its rows.
        rows: how many it has; their ids are contiguous, whatever compaction does.
        nonce: of the receipt that was committed.
    """

    start: int
    rows: int
    nonce: str


@dataclass(frozen=True, slots=True)
class Ledger:
    """What the target itself says is in it.

    Attributes:
        epoch: rises with every holder of the lease; a commit under an older epoch is refused.
        version: the Lance version that this ledger was committed as.
        next_row: the next stable row id that Lance will assign.
        fingerprints: every job fingerprint that the target accepts, in the order of acceptance.
        entries: number of a shard, or name of a pseudo-shard -> its entry, in the order of the
            commits.
    """

    epoch: int
    version: int
    next_row: int
    fingerprints: tuple[str, ...]
    entries: dict[str, Entry] = field(default_factory=dict)

    def to_json(self) -> str:
        """Write the ledger compactly: every manifest of the dataset holds it."""
        body = {
            "v": FORMAT,
            "epoch": self.epoch,
            "version": self.version,
            "next_row": self.next_row,
            "fingerprints": list(self.fingerprints),
            "entries": self._entry_lists(),
        }
        return json.dumps(body, separators=(",", ":"))

    def _entry_lists(self) -> dict[str, list[int | str]]:
        return {
            name: [entry.start, entry.rows, entry.nonce] for name, entry in self.entries.items()
        }

    @classmethod
    def from_metadata(cls, metadata: dict[bytes, bytes] | None, uri: str) -> Ledger:
        """Read the ledger from a dataset's schema metadata.

        Raises:
            LedgerMismatch: the dataset was not made by cfray, or by a newer cfray, or its ledger
                is damaged.
        """
        text = (metadata or {}).get(LEDGER_KEY.encode())
        if text is None:
            raise LedgerMismatch(
                f"{uri} is a Lance dataset that cfray did not make",
                "give another target.uri; nothing was changed",
            )
        try:
            body = json.loads(text)
            written_format = int(body["v"])
            if written_format <= FORMAT:
                return cls._from_body(body)
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise LedgerMismatch(
                f"the ledger of {uri} (schema metadata key {LEDGER_KEY}) is damaged",
                "go back to an earlier version of the dataset with Lance's restore, or restore "
                "the dataset and the folder beside it from a backup",
            ) from error
        raise LedgerMismatch(
            f"the ledger of {uri} has format {written_format}; this cfray reads format {FORMAT}",
            "use the version of cfray that wrote the target, or a newer one; nothing was changed",
        )

    @classmethod
    def _from_body(cls, body: dict[str, Any]) -> Ledger:
        entries = {
            name: Entry(int(values[0]), int(values[1]), str(values[2]))
            for name, values in body["entries"].items()
        }
        epoch, version, next_row = (int(body[name]) for name in ("epoch", "version", "next_row"))
        fingerprints = tuple(str(fingerprint) for fingerprint in body["fingerprints"])
        if not fingerprints:
            raise ValueError("a ledger has at least one fingerprint")
        return cls(epoch, version, next_row, fingerprints, entries)

    def with_entry(self, name: str, rows: int, nonce: str) -> Ledger:
        """Add a shard whose rows come next; its row ids follow the last ones."""
        entries = {**self.entries, name: Entry(self.next_row, rows, nonce)}
        return replace(self, entries=entries, next_row=self.next_row + rows)

    @property
    def digest(self) -> str:
        """Name the rows that the ledger accounts for: one digest for one set of entries."""
        text = json.dumps(self._entry_lists(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]
