"""The folder beside the target, ``<target>.cfray/``.

Plan, jobs, receipts, quarantine, scratch; plain JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cfray.embedders.recipe import Recipe
from cfray.errors import TargetError
from cfray.job.mapping import SourceShape
from cfray.runtime.filesystems import Folder
from cfray.sources.base import Shard
from cfray.target.ledger import Ledger
from cfray.target.receipts import Receipt, dumps


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
        facts: source collection -> what else the source says of it, kept in the collection's
            header.
        recipe: how the vectors will come to be.
        expected: what comparing the stored vectors with ``embedding.expect`` gave: ``sample``,
            ``median``, ``least`` (cosines), ``needed``.
    """

    shards: list[Shard]
    layout: SourceShape
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
        body["layout"] = SourceShape(**layout)
        body["notes"] = tuple(body["notes"])
        body["recipe"] = (
            Recipe.from_json(body["recipe"])
            if "recipe" in body
            else Recipe("keep", layout["dimension"])
        )
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
        """Move what the source wrote down for its shards from a local folder to ``scratch/``.

        Before the plan that refers to it.
        """
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
        """Read the receipts of every committed entry, several at once.

        On an object store each costs a round trip.
        """
        with ThreadPoolExecutor(_READERS) as readers:
            yield from readers.map(
                lambda item: self.receipt(item[0], item[1].nonce), ledger.entries.items()
            )
