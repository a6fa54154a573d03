"""The ledger: what is committed, in the schema metadata of the target itself.

Under the key ``cfray.ledger`` it moves in the same Lance commit as the data, so the two
cannot disagree.  Everything else of a run (plan, job, receipts, quarantined rows, report)
is plain JSON in ``<target>.cfray/``, on the same filesystem as the target, and counts
only where the ledger names it.

The ledger names shards and pseudo-shards alike, each with its kind.  Format 1 wrote no
kinds: it is read, and the next commit writes it as format 2.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from cfray.errors import LedgerMismatch

LEDGER_KEY = "cfray.ledger"
#: The format of the ledger that this version writes, and the newest that it reads.
FORMAT = 2

_NEWER_CFRAY = "use the version of cfray that wrote the target, or a newer one"


class EntryKind(StrEnum):
    """What an entry of the ledger stands for.

    The value is what the ledger and the receipt write down.  Of headers and the source count a
    ledger has at most one entry, whose name is the value; so has the first removal of duplicates.
    """

    #: A shard of the plan; its name is the shard's number.
    SHARD = "shard"
    #: The rows that describe the dataset and its collections.
    HEADERS = "headers"
    #: The removal of records that share their identity with an earlier record.
    DUPLICATES = "duplicates"
    #: What came of asking the source for its count when all of its records were read; no rows.
    SOURCE_COUNT = "source-count"
    #: Records that a replay brought in from quarantine.
    REPLAY = "replay"
    #: A rewriting of every vector.
    EMBED = "embed"
    #: Rows of a shard that were copied anew, in place of damaged rows.
    REPAIR = "repair"
    #: Records that the source has changed since they were copied.
    SYNC = "sync"


@dataclass(frozen=True, slots=True)
class Entry:
    """A committed shard or pseudo-shard.

    Attributes:
        kind: what the entry stands for.
        start: first stable row id of its rows.
        rows: how many it has; their ids are contiguous, whatever compaction does.
        nonce: of the receipt that was committed.
    """

    kind: EntryKind
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
            "entries": {
                name: [entry.kind, entry.start, entry.rows, entry.nonce]
                for name, entry in self.entries.items()
            },
        }
        return json.dumps(body, separators=(",", ":"))

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
                return cls._from_body(body, written_format)
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise LedgerMismatch(
                f"the ledger of {uri} (schema metadata key {LEDGER_KEY}) is damaged",
                "go back to an earlier version of the dataset with Lance's restore, or restore "
                "the dataset and the folder beside it from a backup",
            ) from error
        raise LedgerMismatch(
            f"the ledger of {uri} has format {written_format}; this cfray reads formats 1 to "
            f"{FORMAT}",
            f"{_NEWER_CFRAY}; nothing was changed",
        )

    @classmethod
    def _from_body(cls, body: dict[str, Any], written_format: int) -> Ledger:
        read_entry = {1: _entry_of_format_1, 2: _entry_of_format_2}[written_format]
        entries = {name: read_entry(name, values) for name, values in body["entries"].items()}
        epoch, version, next_row = (int(body[name]) for name in ("epoch", "version", "next_row"))
        fingerprints = tuple(str(fingerprint) for fingerprint in body["fingerprints"])
        if not fingerprints:
            raise ValueError("a ledger has at least one fingerprint")
        return cls(epoch, version, next_row, fingerprints, entries)

    def with_entry(self, kind: EntryKind, name: str, rows: int, nonce: str) -> Ledger:
        """Add an entry whose rows come next; its row ids follow the last ones."""
        entries = {**self.entries, name: Entry(kind, self.next_row, rows, nonce)}
        return replace(self, entries=entries, next_row=self.next_row + rows)

    def names(self, kind: EntryKind) -> list[str]:
        """Name the committed entries of a kind, in the order of their commits."""
        return [name for name, entry in self.entries.items() if entry.kind is kind]

    def next_name(self, kind: EntryKind) -> str:
        """Make the name of the next entry of a kind that may come often; numbers count from 1."""
        return f"{kind}-{len(self.names(kind)) + 1:04d}"

    @property
    def digest(self) -> str:
        """Name the rows that the ledger accounts for: one digest for one set of entries.

        The kinds are left out: the digest of a ledger is the same in both formats, and reports of
        earlier versions hold it.
        """
        rows = {
            name: [entry.start, entry.rows, entry.nonce] for name, entry in self.entries.items()
        }
        text = json.dumps(rows, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def _entry_of_format_1(name: str, values: list[Any]) -> Entry:
    start, rows, nonce = values
    return Entry(kind_of_format_1(name), int(start), int(rows), str(nonce))


def _entry_of_format_2(name: str, values: list[Any]) -> Entry:
    kind, start, rows, nonce = values
    if kind not in set(EntryKind):
        raise LedgerMismatch(
            f"the ledger has the entry {name!r} of the kind {kind!r}, which this cfray does not "
            "know",
            _NEWER_CFRAY,
        )
    return Entry(EntryKind(kind), int(start), int(rows), str(nonce))


def kind_of_format_1(name: str) -> EntryKind:
    """Tell the kind of an entry of format 1, where only the name said it.

    Nothing else may take a name apart: format 2 writes the kind down.

    Raises:
        LedgerMismatch: no version of cfray that wrote format 1 made such a name.
    """
    if name.isdigit():
        return EntryKind.SHARD
    if name in (EntryKind.HEADERS, EntryKind.DUPLICATES, EntryKind.SOURCE_COUNT):
        return EntryKind(name)
    for kind in (EntryKind.REPLAY, EntryKind.EMBED):
        if name.startswith(f"{kind}-"):
            return kind
    raise LedgerMismatch(
        f"this cfray does not know what the ledger entry {name!r} is", _NEWER_CFRAY
    )
