"""Bring replicas of a finished target in step: to each only new files travel, the manifest last.

A replica is the dataset with the folder beside it, at another address, in another region or at
another provider.  Nobody else writes to it: what was written there by others makes it diverge, and
is never overwritten.  A replica that cannot be reached does not stop the others.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import lance

from cfray.engine import failpoint
from cfray.errors import CfrayError, ConfigError, Interrupted, ProofFailed
from cfray.runtime.clock import utc_now
from cfray.runtime.error_text import describe_error
from cfray.runtime.filesystems import open_filesystem, storage_options, strip_credentials
from cfray.runtime.plurals import counted
from cfray.target.commit import Target
from cfray.target.documents import dumps, parse_document
from cfray.target.ledger import Ledger
from cfray.target.state import State
from cfray.transfers.dataset_files import files_of_state, files_of_version
from cfray.transfers.files import (
    Copied,
    HashedFile,
    Wanted,
    check_path,
    copy_files,
    hash_file,
    list_sizes,
)
from cfray.transfers.finished import identity_of, open_finished, pinned
from cfray.transfers.places import check_apart, check_held, held, read_file
from cfray.transfers.points import folder_beside

#: File beside a replica: of which dataset it is, and what it holds.
RECORD = "replica.json"
_REMEDY = "give another address, or remove the replica to have it made anew"

Status = Literal["in step", "failed", "diverged"]


@dataclass(frozen=True, slots=True)
class Record:
    """What a replica is of, and what it holds.

    Attributes:
        dataset: identity of the dataset.
        source: its address.
        version: of the dataset that the replica holds; 0 before the first one is whole.
        taken: when it was brought in step, UTC to the second.
        files: of that version; the manifest is the last.
        state: of the folder beside it.
        before: paths of the version that it held before, for readers that still have it open.
    """

    dataset: str
    source: str
    version: int
    taken: str
    files: list[HashedFile]
    state: list[HashedFile]
    before: list[str]

    @classmethod
    def from_json(cls, data: bytes) -> Record:
        """Read a record.

        Raises:
            ValueError, TypeError, LookupError: it was not written by this version of cfray.
        """
        body: dict[str, Any] = json.loads(data)
        for name in ("files", "state"):
            body[name] = [HashedFile.from_json(file) for file in body[name]]
        body["before"] = [check_path(path) for path in body["before"]]
        return cls(**body)


@dataclass(frozen=True, slots=True)
class Replica:
    """What became of a replica.

    Attributes:
        address: of the replica.
        status: whether it is in step now.
        version: that it holds; 0 where none is known.
        behind: versions that it was behind before; None where that is not known.
        copied_files, copied_bytes: that travelled.
        error: why it is not in step, and what to do.
        exit_code: of the error; 0 where it is in step.
    """

    address: str
    status: Status
    version: int = 0
    behind: int | None = None
    copied_files: int = 0
    copied_bytes: int = 0
    error: str = ""
    exit_code: int = 0

    def sentence(self) -> str:
        """Say what became of it."""
        if self.status != "in step":
            return f"{self.address}: {self.status}: {self.error}"
        was = "made" if self.behind is None else f"was {counted(self.behind, 'version')} behind"
        return (
            f"{self.address}: in step at version {self.version}; {was}; "
            f"{counted(self.copied_files, 'file')} ({self.copied_bytes:,} bytes) copied, each read "
            "again and compared"
        )


class _Diverged(Exception):
    """Somebody else wrote to the replica; the text says how that shows."""


def replicate(uri: str, addresses: list[str]) -> list[Replica]:
    """Bring replicas in step with the newest version of a target.

    Args:
        uri: of the target.
        addresses: of the replicas.

    Returns:
        what became of each, in their order.

    Raises:
        ConfigError: there is no finished target, or addresses are the same or lie in one another.
        LeaseHeld: a run is at work on the target.
    """
    target, state = open_finished(uri)
    for number, address in enumerate(addresses):
        check_apart(address, [uri, *addresses[:number]])
    version = target.open().version
    replicas: list[Replica] = []
    for address in addresses:
        try:
            replicas.append(_bring_in_step(target, state, version, address))
        except _Diverged as error:
            told = f"{error}; nothing was changed there; {_REMEDY}"
            replicas.append(Replica(address, "diverged", error=told, exit_code=4))
        except Interrupted:
            raise
        except CfrayError as error:
            told = f"{error.what}; {error.remedy}"
            replicas.append(Replica(address, "failed", error=told, exit_code=error.exit_code))
        except OSError as error:
            told = f"it cannot be reached: {describe_error(error)[:200]}"
            replicas.append(Replica(address, "failed", error=told, exit_code=1))
    return replicas


def _bring_in_step(target: Target, state: State, version: int, address: str) -> Replica:
    """Copy what a replica lacks, and check what came of it.

    Raises:
        _Diverged: somebody else wrote to it.
        CfrayError: it cannot be reached or written, or a copy is not what was read.
    """
    record = _read_record(target, state, version, address)
    if record.version == version:
        return Replica(address, "in step", version, behind=0)
    with held(address) as holding, pinned(target, version, address):
        # another run may have written to it until now
        record = _read_record(target, state, version, address)
        copied, files, beside = _copy(target, state, version, address, record)
        _check_copy(target, version, address)
        check_held(holding, address)
        return _conclude(version, address, record, copied, (files, beside))


def _read_record(target: Target, state: State, version: int, address: str) -> Record:
    """Take an address for a replica, or read what the replica there holds.

    Raises:
        _Diverged: somebody else wrote to it, or it holds what the target has no longer.
        ConfigError: something else stands there.
    """
    record = _claim(target, state, address)
    _check_not_diverged(address, record)
    _check_not_overtaken(target, version, address, record)
    return record


def _conclude(
    version: int,
    address: str,
    record: Record,
    copied: Copied,
    held_files: tuple[list[HashedFile], list[HashedFile]],
) -> Replica:
    """Write what a replica holds now, and remove what it no longer needs."""
    files, beside = held_files
    before = [file.path for file in record.files]
    replaced = Record(
        *(record.dataset, record.source, version, utc_now(), files, beside),
        before=sorted(set(before) - {file.path for file in files}),
    )
    folder_beside(address).publish(RECORD, dumps(asdict(replaced)))
    _remove_files(address, set(record.before) - {file.path for file in files} - set(before))
    behind = version - record.version if record.version else None
    return Replica(address, "in step", version, behind, copied.new_files, copied.new_bytes)


def _claim(target: Target, state: State, address: str) -> Record:
    """Take an address for a replica of this dataset, or find that it is one.

    Raises:
        ConfigError: something else stands there.
    """
    folder = folder_beside(address)
    identity = identity_of(state, target.ledger())
    data = read_file(folder, RECORD)
    if data is None:
        if folder.exists() or list_sizes(address):
            raise ConfigError(
                f"{address} is there already, and is no replica of cfray's", "give another address"
            )
        record = Record(identity, strip_credentials(target.uri), 0, utc_now(), [], [], [])
        folder.publish(RECORD, dumps(asdict(record)))
        return record
    record = parse_document(data, f"{folder.uri}/{RECORD}", Record.from_json, remedy=_REMEDY)
    if record.dataset != identity:
        raise ConfigError(f"{address} is a replica of another dataset ({record.source})", _REMEDY)
    return record


def _check_not_diverged(address: str, record: Record) -> None:
    """Find that nobody has written to a replica since it was brought in step.

    Raises:
        _Diverged: its newest version, or a file of it, is not what was copied.
    """
    present = list_sizes(address)
    manifests = {path for path in present if path.startswith("_versions/")}
    known = {*record.before, *(file.path for file in record.files)}
    unknown = sorted(path for path in manifests - known if path.endswith(".manifest"))
    if unknown:
        raise _Diverged(f"{address} has a version that was not copied ({unknown[0]})")
    if not record.files:
        return
    for file in record.files:
        if present.get(file.path) != file.size:
            raise _Diverged(f"{address}/{file.path} is missing, or has another size than copied")
    manifest = record.files[-1]
    if hash_file(address, manifest.path) != manifest:
        raise _Diverged(f"{address}/{manifest.path} is not what was copied")


def _check_not_overtaken(target: Target, version: int, address: str, record: Record) -> None:
    """Find that the target has not gone back behind what the replica holds.

    A target that was restored to an earlier point makes the version numbers behind it again.

    Raises:
        _Diverged: the replica holds a later version, or another one of the same number.
    """
    if version > record.version:
        return
    manifest = record.files[-1]
    if version < record.version or hash_file(target.uri, manifest.path) != manifest:
        raise _Diverged(
            f"{address} holds version {record.version} from before {target.uri} was restored to "
            f"an earlier one (it is at version {version} now)"
        )


def _copy(
    target: Target, state: State, version: int, address: str, record: Record
) -> tuple[Copied, list[HashedFile], list[HashedFile]]:
    """Copy the files of a version, then the folder beside it, then the manifest.

    Returns:
        what travelled, and every file of the dataset and of the folder beside it.
    """
    files, manifest = files_of_version(target, state, version)
    trusted = {file.path: file for file in record.files}
    present = list_sizes(address)
    copied = copy_files(target.uri, address, files, present=present, trusted=trusted)
    beside = folder_beside(address).uri
    of_state = [item.path for item in files_of_state(state, "")]
    lasting = [Wanted(path, path) for path in of_state if "/" in path]
    # plan, jobs and reports are written again and again
    changing = [Wanted(path, path) for path in of_state if "/" not in path]
    copied_state = copy_files(
        *(state.folder.uri, beside, lasting),
        present=list_sizes(beside),
        trusted={file.path: file for file in record.state},
    )
    copied_state.add(copy_files(state.folder.uri, beside, changing, present={}, trusted={}))
    # a run that is killed behind the manifest must not look like another writer
    announced = replace(record, before=[*record.before, manifest.to])
    folder_beside(address).publish(RECORD, dumps(asdict(announced)))
    copied.add(copy_files(target.uri, address, [manifest], present=present, trusted=trusted))
    failpoint.reach("replicated")
    held = list(copied.files)
    copied.add(copied_state)
    return copied, held, copied_state.files


def _check_copy(target: Target, version: int, address: str) -> None:
    """Open a replica, and compare its ledger and its rows with the target's.

    Raises:
        ProofFailed: they differ.
    """
    dataset = lance.dataset(address, storage_options=storage_options(address))
    ours = target.open(version)
    is_same = (
        dataset.version == version
        and dataset.count_rows() == ours.count_rows()
        and Ledger.from_metadata(dataset.schema.metadata, address).digest
        == target.ledger_of(version).digest
    )
    if not is_same:
        raise ProofFailed(f"{address} does not open as version {version} of {target.uri}", _REMEDY)


def _remove_files(folder: str, paths: set[str]) -> None:
    """Remove what neither this version nor the one before needs."""
    system, root = open_filesystem(folder)
    for path in sorted(paths):
        with suppress(FileNotFoundError):  # an earlier removal was interrupted
            system.delete_file(f"{root}/{path}")
