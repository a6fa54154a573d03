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
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from cfray.embedders.recipe import Recipe
from cfray.errors import LedgerMismatch, TargetError
from cfray.filesystems import Folder
from cfray.mapping import Layout
from cfray.sources.base import Shard

LEDGER_KEY = "cfray.ledger"
#: Pseudo-shards.
HEADERS = "headers"
DUPLICATES = "duplicates"
REPLAY = "replay-"
EMBED = "embed-"


def dumps(value: object) -> bytes:
    """Write JSON for people and for us: sorted, indented, UTF-8."""
    return (json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False) + "\n").encode()


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
        entries = {name: [entry.start, entry.rows, entry.nonce] for name, entry in self.entries.items()}
        body = {"v": 1, "epoch": self.epoch, "version": self.version, "next_row": self.next_row}
        return json.dumps({**body, "fingerprints": list(self.fingerprints), "entries": entries}, separators=(",", ":"))

    @classmethod
    def from_metadata(cls, metadata: dict[bytes, bytes] | None, uri: str) -> Ledger:
        """Read the ledger from a dataset's schema metadata.

        Raises:
            LedgerMismatch: the dataset was not made by cfray.
        """
        text = (metadata or {}).get(LEDGER_KEY.encode())
        if text is None:
            raise LedgerMismatch(f"{uri} is a Lance dataset that cfray did not make", "give another target.uri; nothing was changed")
        data = json.loads(text)
        entries = {name: Entry(*values) for name, values in data["entries"].items()}
        return cls(data["epoch"], data["version"], data["next_row"], tuple(data["fingerprints"]), entries)

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
        resolved: quarantined rows a replay brought in (``file:line``), removed rows of duplicates by shard, or the sums of the
            vectors that an embed wrote, by shard.
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


@dataclass(frozen=True, slots=True)
class Plan:
    """How a source was divided, saved once and reused on resume.

    Attributes:
        shards: sorted by id; a shard's number is its place here.
        layout: what every worker needs to agree on.
        consistency: what a read of this source guarantees.
        rows: records, exact or estimated as ``exact`` says; None where unknown.
        size: bytes at the source.
        metric: distance of the primary vector at the source; None where it has none.
        notes: facts for the operator.
        facts: source collection -> what else the source says of it, kept in the collection's header.
        recipe: how the vectors will come to be.
        expected: what comparing the stored vectors with ``embedding.expect`` gave: ``sample``, ``median``, ``least`` (cosines), ``needed``.
    """

    shards: list[Shard]
    layout: Layout
    consistency: str
    rows: int | None
    exact: bool
    size: int
    metric: str | None = None
    notes: tuple[str, ...] = ()
    facts: dict[str, dict[str, str]] = field(default_factory=dict)
    recipe: Recipe = field(default_factory=lambda: Recipe("keep", 0))
    expected: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> bytes:
        """Write the plan."""
        return dumps(asdict(self))

    @classmethod
    def from_json(cls, data: bytes) -> Plan:
        """Read a plan."""
        body = json.loads(data)
        body["shards"] = [Shard(**item) for item in body["shards"]]
        layout = body["layout"]
        layout["vectors"] = {name: tuple(path) for name, path in layout["vectors"].items()}
        layout["vector"] = tuple(layout["vector"])
        body["layout"] = Layout(**layout)
        body["notes"] = tuple(body["notes"])
        body["recipe"] = Recipe.from_json(body["recipe"]) if "recipe" in body else Recipe("keep", layout["dimension"])
        return cls(**body)


#: Receipts read so far, by target, name and nonce: one never changes once it is published.
_receipts: dict[tuple[str, str, str], Receipt] = {}
#: Receipts read at once.
_READERS = 16


class State:
    """The folder beside the target: ``<target>.cfray/``."""

    def __init__(self, target: str) -> None:
        """Name the folder; nothing is created before something is published."""
        self.target = target
        self.folder = Folder(f"{target}.cfray")
        self.staged = self.folder.child("staged")
        self.quarantine = self.folder.child("quarantine")
        self.scratch = self.folder.child("scratch")
        self.maps = self.folder.child("maps")

    def save_plan(self, plan: Plan) -> None:
        """Save the plan, once a run."""
        self.folder.publish("plan.json", plan.to_json())

    def keep(self, desk: str) -> None:
        """Move what the source wrote down for its shards from a local folder to ``scratch/``; before the plan that refers to it."""
        for path in sorted(Path(desk).iterdir()):
            self.scratch.publish(path.name, path.read_bytes())
            path.unlink()

    def plan(self) -> Plan | None:
        """Read the saved plan; None before the first run saved one."""
        data = self.folder.read("plan.json")
        return None if data is None else Plan.from_json(data)

    def save_jobs(self, jobs: list[dict[str, Any]]) -> None:
        """Save what each accepted fingerprint was made of."""
        self.folder.publish("job.json", dumps(jobs))

    def jobs(self) -> list[dict[str, Any]]:
        """Read what each accepted fingerprint was made of."""
        data = self.folder.read("job.json")
        return [] if data is None else list(json.loads(data))

    def publish_receipt(self, receipt: Receipt) -> None:
        """Make a staged shard known, atomically; a crash before this leaves only orphan files."""
        self.staged.publish(f"{receipt.name}.{receipt.nonce}.json", receipt.to_json())

    def staged_names(self) -> dict[str, list[str]]:
        """List the staged receipts: shard -> nonces."""
        found: dict[str, list[str]] = {}
        for file in self.staged.names():
            name, _, nonce = file.removesuffix(".json").rpartition(".")
            if file.endswith(".json") and not file.startswith("."):
                found.setdefault(name, []).append(nonce)
        return found

    def receipt(self, name: str, nonce: str) -> Receipt:
        """Read one receipt.

        Raises:
            TargetError: it is gone.
        """
        known = _receipts.get((self.target, name, nonce))
        if known is not None:
            return known
        data = self.staged.read(f"{name}.{nonce}.json")
        if data is None:
            raise TargetError(
                f"{self.staged.uri}/{name}.{nonce}.json is missing",
                "restore the folder beside the target from a backup; without it verify cannot run",
            )
        receipt = Receipt.from_json(data)
        _receipts[self.target, name, nonce] = receipt
        return receipt

    def committed(self, ledger: Ledger) -> Iterator[Receipt]:
        """Read the receipts of every committed entry, several at once: on an object store each costs a round trip."""
        with ThreadPoolExecutor(_READERS) as readers:
            yield from readers.map(lambda item: self.receipt(item[0], item[1].nonce), ledger.entries.items())
