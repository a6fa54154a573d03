"""The versions of a target: what each commit did, and the way back to one of them.

An old version stays readable until ``cleanup --keep-versions`` retires it.  Going back makes a
further version, so nothing is lost by it: the way back leads forth again, too.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from lance import LanceDataset, LanceOperation
from lance.dataset import Transaction

from cfray.errors import ConfigError, TargetError
from cfray.runtime.plurals import counted
from cfray.target import commit
from cfray.target.commit import Target
from cfray.target.ledger import Entry, EntryKind, Ledger
from cfray.target.receipts import SyncReceipt
from cfray.target.state import Plan, State

_RESTORED = "an earlier version made the newest"
#: What Lance calls an operation that writes no ledger -> what it does.
_OPERATIONS = {
    "Rewrite": "fragments compacted",
    "CreateIndex": "an index built or completed",
    "UpdateConfig": "settings written",
    "Restore": _RESTORED,
    # what pylance calls each operation that it does not know
    "BaseOperation": "numbers reserved for a compaction, or an operation that pylance cannot name",
}


@dataclass(frozen=True, slots=True)
class Version:
    """A version of a target.

    Attributes:
        number: of the version.
        written: UTC, to the second.
        rows: headers included.
        what: the commit did, in words.
        tags: names that point to it.
    """

    number: int
    written: str
    rows: int
    what: str
    tags: list[str]

    def as_json(self) -> dict[str, Any]:
        """Give the version as parsed JSON."""
        return asdict(self)


def list_versions(target: Target, last: int) -> list[Version]:
    """List the newest versions, the newest first.

    Args:
        target: the dataset.
        last: versions at most.
    """
    dataset = target.open()
    listed = sorted(dataset.versions(), key=lambda item: item["version"])[-last - 1 :]
    tags: dict[int, list[str]] = {}
    for name, tag in dataset.tags.list().items():
        tags.setdefault(int(tag["version"]), []).append(name)
    versions: list[Version] = []
    before: Ledger | None = None
    for item in listed:
        number = int(item["version"])
        ledger = target.ledger_of(number)
        written = item["timestamp"].astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        rows = int(item["metadata"]["total_rows"])
        what = _what(target, dataset, number, before, ledger)
        versions.append(Version(number, written, rows, what, sorted(tags.get(number, []))))
        before = ledger
    return versions[::-1][:last]


def _what(
    target: Target, dataset: LanceDataset, number: int, before: Ledger | None, after: Ledger
) -> str:
    """Say what the commit of a version did."""
    entries = before.entries if before is not None else {}
    added = {
        name: entry
        for name, entry in after.entries.items()
        if name not in entries or entries[name].nonce != entry.nonce
    }
    new = Counter(entry.kind for entry in added.values())
    if before is None and number > 1:
        return "older versions are gone"
    if number == 1:
        return "created"
    try:
        name = type(dataset.read_transaction(number).operation).__name__
    except TypeError:  # pylance 14 cannot read the compaction of an indexed dataset back
        name = "Rewrite"
    # a rollback may lead forth again, to entries that the version before has not
    if name == "Merge" and new:
        words = [_words(kind, count) for kind, count in sorted(new.items())]
        return ", ".join([*words, *_changes(target, added)])
    if name == "Merge":
        return "taken by a run"
    return _OPERATIONS.get(name, f"{name} by another program")


def _words(kind: EntryKind, count: int) -> str:
    return {
        EntryKind.SHARD: counted(count, "shard") + " copied",
        EntryKind.HEADERS: "headers written",
        EntryKind.DUPLICATES: "duplicates removed",
        EntryKind.SOURCE_COUNT: "the source counted again",
        EntryKind.REPLAY: "records brought in from quarantine",
        EntryKind.EMBED: "vectors made",
        EntryKind.REPAIR: "damaged rows repaired",
        EntryKind.SYNC: "changes of the source brought in",
    }[kind]


def _changes(target: Target, added: Mapping[str, Entry]) -> Iterator[str]:
    """Say how many records a sync brought, changed and took out, where its receipt is there."""
    state = State(target.uri)
    for name, entry in added.items():
        if entry.kind is EntryKind.SYNC and state.staged.holds(f"{name}.{entry.nonce}.json"):
            receipt = state.receipt(name, entry.nonce)
            if isinstance(receipt, SyncReceipt):
                yield f"{receipt.added:,} new"
                yield f"{receipt.changed:,} changed"
                yield f"{receipt.gone:,} gone"


def roll_back(target: Target, version: int) -> None:
    """Make an earlier version the newest one.

    Args:
        target: held by this run.
        version: to go back to; ``check_rollback`` has approved of it.

    Raises:
        LeaseHeld: another run took the target.
        TargetUnavailable: another writer's commit was first.
    """
    dataset = target.open()
    before = commit.ledger_now(dataset, target.uri)
    target.check_held(before)
    with commit.guard_commit(target):
        LanceDataset.commit(
            dataset, Transaction(dataset.version, LanceOperation.Restore(version)), max_retries=0
        )
    commit.take_again(target, before.next_row)


def check_rollback(target: Target, state: State, plan: Plan, version: int) -> Ledger:
    """Refuse a version to which there is no way back; give its ledger.

    Raises:
        ConfigError: it is not there, it is the newest, the target was not finished then, or what
            belongs to it in the folder beside the target is gone.
    """
    newest = target.open().version
    numbers = [item["version"] for item in target.open().versions()]
    if version not in numbers or version == newest:
        raise ConfigError(
            f"{target.uri} has no earlier version {version} (it has {min(numbers)} to {newest})",
            "cfray versions lists them",
        )
    ledger = target.ledger_of(version)
    if (
        len(ledger.names(EntryKind.SHARD)) < len(plan.shards)
        or EntryKind.HEADERS not in ledger.entries
    ):
        raise ConfigError(
            f"version {version} of {target.uri} is not finished, or has not all that the plan has "
            "by now",
            "choose a later version, or restore a backup",
        )
    try:
        for _ in state.committed_receipts(ledger):
            pass
    except TargetError as error:
        raise ConfigError(
            f"there is no way back to version {version}: {error.what}", "restore a backup"
        ) from error
    return ledger


def named_by_old_versions(target: Target) -> Iterator[tuple[str, str]]:
    """Name the receipts of every version that is there: entry and nonce."""
    for item in target.open().versions():
        for name, entry in target.ledger_of(int(item["version"])).entries.items():
            yield name, entry.nonce
