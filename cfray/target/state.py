"""The folder beside the target, ``<target>.cfray/``: everything of a run but its rows.

Plan, jobs, receipts, sessions, quarantined rows, scratch files and maps, all of them plain
files that people can read.  What is committed is not decided here but by the ledger in
the dataset: a file in this folder that no ledger entry names counts for nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_args

from cfray.embedders.recipe import Recipe
from cfray.errors import TargetError
from cfray.job.mapping import SourceShape
from cfray.runtime.filesystems import Folder
from cfray.sources.base import Consistency, Session, Shard
from cfray.target.documents import RESTORE, dumps, parse_document
from cfray.target.ledger import Ledger
from cfray.target.receipt_files import read_receipt, write_receipt
from cfray.target.receipts import AnyReceipt, Receipt, ShardReceipt

#: Receipts read at the same time: on an object store each costs a round trip.
_READERS = 16


@dataclass(frozen=True, slots=True)
class Extension:
    """What ``migrate --extend`` added to a plan, and what the plan said before.

    Attributes:
        epoch: of the run that extended it; older receipts of its shards are never adopted.
        first: number of its first shard.
        files: that it added.
        rows, exact, size: of the plan before.
        notes: notes that the plan had before.
    """

    epoch: int
    first: int
    files: list[str]
    rows: int | None
    exact: bool
    size: int
    notes: int


@dataclass(frozen=True, slots=True)
class Plan:
    """How a source was divided, saved once and reused on resume.

    Attributes:
        shards: sorted by id; the number of a shard is its index in this list.
        shape: of the source, on which every worker must agree; ``layout`` in ``plan.json``.
        consistency: what a read of this source guarantees.
        rows: records, exact or estimated as ``exact`` says; None where unknown.
        exact: whether the source counted its records.
        size: bytes at the source.
        metric: distance of the primary vector at the source; None where it has none.
        notes: facts for the operator.
        facts: source collection -> what else the source says of it, kept in the collection's
            header.
        recipe: how the vectors will come to be; it holds until they are made.
        fingerprint: of the job that ``recipe`` was planned for; empty in plans of earlier versions.
        tokenizer: SHA-256 of the tokenizer that cuts chunks; empty where none is needed.
        epoch: of the run that planned, and the lowest of this target's receipts: a receipt of a
            lower epoch is of a target that ``--restart`` removed; 0 in plans of earlier versions.
        marks: file or source collection -> a mark of its state (``Source.marks``); empty where the
            source has none, and in plans of earlier versions.
        extensions: how the plan was extended, the oldest first; none in plans of earlier versions.
        expected: what comparing the stored vectors with ``embedding.expect`` gave: ``sample``,
            ``median``, ``least`` (cosines), ``needed``.
    """

    shards: list[Shard]
    shape: SourceShape
    consistency: str
    rows: int | None
    exact: bool
    size: int
    metric: str | None = None
    notes: tuple[str, ...] = ()
    facts: dict[str, dict[str, str]] = field(default_factory=dict)
    recipe: Recipe = field(default_factory=lambda: Recipe("keep", 0))
    expected: dict[str, float] = field(default_factory=dict)
    fingerprint: str = ""
    tokenizer: str = ""
    epoch: int = 0
    extensions: tuple[Extension, ...] = ()
    marks: dict[str, str] = field(default_factory=dict)

    def adopts(self, name: str, epoch: int) -> bool:
        """Tell whether a staged receipt of a shard is of this plan.

        Args:
            name: number of the shard.
            epoch: of the run that read it.
        """
        extensions = [item.epoch for item in self.extensions if int(name) >= item.first]
        return epoch >= max([self.epoch, *extensions])

    def to_json(self) -> bytes:
        """Write the plan; the order of its vectors is that of the target's columns."""
        body = asdict(self)
        body["layout"] = body.pop("shape")
        return dumps(body, sort_keys=False)

    @classmethod
    def from_json(cls, data: bytes) -> Plan:
        """Read a plan."""
        body = json.loads(data)
        body["shards"] = [Shard(**item) for item in body["shards"]]
        shape = body.pop("layout")
        shape["vectors"] = {name: tuple(path) for name, path in shape["vectors"].items()}
        shape["vector"] = tuple(shape["vector"])
        # A plan of an earlier version has no such key: only CSV took an empty text for null.
        shape.setdefault("blank_is_null", shape["kind"] == "csv")
        body["shape"] = SourceShape(**shape)
        body["notes"] = tuple(body["notes"])
        body["extensions"] = tuple(Extension(**item) for item in body.get("extensions", ()))
        body["recipe"] = (
            Recipe.from_json(body["recipe"])
            if "recipe" in body
            else Recipe("keep", shape["dimension"])
        )
        return cls(**body)


@dataclass(frozen=True, slots=True)
class SavedSession:
    """What is known of a source's session after it has ended.

    Attributes:
        id, began, consistency: as in ``Session``.
        lost: whether a run ended because the session was lost.
    """

    id: str
    began: str
    consistency: Consistency | None
    lost: bool

    @classmethod
    def from_json(cls, data: bytes) -> SavedSession:
        """Read a saved session.

        Raises:
            ValueError, TypeError, LookupError: it was not written by this version of cfray.
        """
        body = json.loads(data)
        consistency = body["consistency"]
        if consistency not in (None, *get_args(Consistency)):
            raise ValueError(f"unknown consistency {consistency!r}")
        return cls(str(body["id"]), str(body["began"]), consistency, bool(body["lost"]))


class State:
    """The folder beside the target: ``<target>.cfray/``.

    A State remembers the receipts it has read, for a receipt never changes once it is
    published.  So one command uses one State, and a process that works on many targets
    keeps none of their receipts.
    """

    def __init__(self, target: str) -> None:
        """Name the folder; nothing is created before something is published."""
        self.target = target
        self.folder = Folder(f"{target}.cfray")
        self.staged = self.folder.child("staged")
        self.quarantine = self.folder.child("quarantine")
        self.scratch = self.folder.child("scratch")
        self.maps = self.folder.child("maps")
        self.sessions = self.folder.child("sessions")
        self._receipts: dict[tuple[str, str], AnyReceipt] = {}

    def save_plan(self, plan: Plan) -> None:
        """Save the plan, once a run."""
        self.folder.publish("plan.json", plan.to_json())

    def save_scratch_files(self, local_folder: str) -> None:
        """Move what the source wrote down for its shards from a local folder to ``scratch/``.

        To be called before the plan that refers to these files is saved.
        """
        for path in sorted(Path(local_folder).iterdir()):
            self.scratch.publish(path.name, path.read_bytes())
            path.unlink()

    def plan(self) -> Plan | None:
        """Read the saved plan; None before the first run saved one.

        Raises:
            TargetError: the file is damaged.
        """
        data = self.folder.read("plan.json")
        if data is None:
            return None
        return parse_document(data, f"{self.folder.uri}/plan.json", Plan.from_json)

    def save_jobs(self, jobs: list[dict[str, Any]]) -> None:
        """Save what each accepted fingerprint was made of."""
        self.folder.publish("job.json", dumps(jobs))

    def jobs(self) -> list[dict[str, Any]]:
        """Read what each accepted fingerprint was made of: ``fingerprint`` and ``agreed``.

        Raises:
            TargetError: the file is damaged.
        """
        data = self.folder.read("job.json")
        return [] if data is None else parse_document(data, f"{self.folder.uri}/job.json", _jobs)

    def remember_job(self, fingerprint: str, agreed: dict[str, Any]) -> None:
        """Save what a job is made of beside the jobs that the target has accepted before.

        To be called right before the commit that makes the ledger accept the fingerprint: a
        command that is refused changes no state.
        """
        jobs = self.jobs()
        if fingerprint not in {job["fingerprint"] for job in jobs}:
            self.save_jobs([*jobs, {"fingerprint": fingerprint, "agreed": agreed}])

    def save_session(self, session: Session, *, lost: bool = False) -> None:
        """Save a session of the source before shards are read under it, or that it is lost.

        What the session holds at the store (``Session.state``) is left out.
        """
        saved = SavedSession(session.id, session.began, session.consistency, lost)
        if lost or f"{session.id}.json" not in self.sessions.list_names():
            self.sessions.publish(f"{session.id}.json", dumps(asdict(saved)))

    def session(self, session_id: str) -> SavedSession:
        """Read a session that shards were read under.

        Raises:
            TargetError: the file is missing or damaged.
        """
        location = f"{self.sessions.uri}/{session_id}.json"
        data = self.sessions.read(f"{session_id}.json")
        if data is None:
            raise TargetError(f"{location} is missing", RESTORE)
        return parse_document(data, location, SavedSession.from_json)

    def publish_receipt(self, receipt: Receipt) -> None:
        """Make a staged shard known, atomically; a crash before this leaves only orphan files."""
        self.staged.publish(f"{receipt.name}.{receipt.nonce}.json", write_receipt(receipt))

    def staged_nonces(self) -> dict[str, list[str]]:
        """List the published receipts, committed or not: name of the entry -> nonces."""
        nonces: dict[str, list[str]] = {}
        for file in self.staged.list_names():
            name, _, nonce = file.removesuffix(".json").rpartition(".")
            if file.endswith(".json") and name and not file.startswith("."):
                nonces.setdefault(name, []).append(nonce)
        return nonces

    def receipt(self, name: str, nonce: str, *, remedy: str = RESTORE) -> AnyReceipt:
        """Read a receipt.

        Args:
            name: of the entry.
            nonce: of the receipt.
            remedy: what the operator can do if the file is missing or damaged.

        Raises:
            TargetError: the file is missing or damaged.
            LedgerMismatch: a newer cfray wrote it.
        """
        if (name, nonce) not in self._receipts:
            location = f"{self.staged.uri}/{name}.{nonce}.json"
            data = self.staged.read(f"{name}.{nonce}.json")
            if data is None:
                raise TargetError(f"{location} is missing", remedy)
            receipt = parse_document(data, location, read_receipt, remedy=remedy)
            if (receipt.name, receipt.nonce) != (name, nonce):
                raise TargetError(
                    f"{location} is the receipt {receipt.name}.{receipt.nonce}", remedy
                )
            self._receipts[name, nonce] = receipt
        return self._receipts[name, nonce]

    def shard_receipt(self, name: str, nonce: str, *, remedy: str = RESTORE) -> ShardReceipt:
        """Read the receipt of a shard; arguments and errors as of ``receipt``."""
        receipt = self.receipt(name, nonce, remedy=remedy)
        if not isinstance(receipt, ShardReceipt):
            location = f"{self.staged.uri}/{name}.{nonce}.json"
            raise TargetError(f"{location} is of the kind {receipt.kind}, not of a shard", remedy)
        return receipt

    def committed_receipts(self, ledger: Ledger) -> Iterator[AnyReceipt]:
        """Read the receipts of every committed entry in the order of the ledger.

        Raises:
            TargetError: a file is missing or damaged, or of another kind than its entry.
            LedgerMismatch: a newer cfray wrote it.
        """
        nonces = [(name, entry.nonce) for name, entry in ledger.entries.items()]
        for receipt in self._read_receipts(nonces):
            kind = ledger.entries[receipt.name].kind
            if receipt.kind != kind:
                location = f"{self.staged.uri}/{receipt.name}.{receipt.nonce}.json"
                raise TargetError(
                    f"{location} is of the kind {receipt.kind}, its entry of the kind {kind}",
                    RESTORE,
                )
            yield receipt

    def published_receipts(self) -> Iterator[AnyReceipt]:
        """Read every receipt, committed or only staged.

        Raises:
            TargetError: a file is damaged.
            LedgerMismatch: a newer cfray wrote it.
        """
        yield from self._read_receipts(
            [(name, nonce) for name, nonces in self.staged_nonces().items() for nonce in nonces]
        )

    def _read_receipts(self, nonces: Sequence[tuple[str, str]]) -> Iterator[AnyReceipt]:
        """Read some receipts at the same time, and yield them in their order."""
        with ThreadPoolExecutor(_READERS) as readers:
            yield from readers.map(lambda item: self.receipt(*item), nonces)


def _jobs(data: bytes) -> list[dict[str, Any]]:
    return [
        {"fingerprint": job["fingerprint"], "agreed": dict(job["agreed"])}
        for job in json.loads(data)
    ]
