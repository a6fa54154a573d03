"""Start over: say what a target and the folder beside it hold, and remove both.

A restart that is killed leaves a mark beside the target; every later command
refuses the target by name until a restart has come to its end.  A dataset that
cfray did not make is never removed.

Workers of a run that only sleeps may write behind the removal.  A second mark stands from
the removal until the new target is planned: what lies at the address meanwhile and is no
dataset is such a leftover.  It stands in nobody's way, and the first cleanup removes it;
``Plan.epoch`` keeps its receipts from being adopted.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import pyarrow.fs as pafs

from cfray.engine import failpoint
from cfray.errors import CfrayError, LedgerMismatch
from cfray.runtime import retry
from cfray.runtime.filesystems import Folder, open_filesystem
from cfray.runtime.plurals import counted
from cfray.runtime.storage_errors import classify_write_error
from cfray.target.commit import Target, take_over
from cfray.target.creation import find_target
from cfray.target.lease import FILE as LEASE_FILE
from cfray.target.lease import Lease
from cfray.target.ledger import Ledger
from cfray.target.state import State

#: File beside the target that stands there while a restart removes it.
MARK = "restarting.json"
#: File beside the target that stands there from the removal until the new target is planned.
REMOVED_MARK = "removed.json"
#: What Lance keeps at the top of a dataset's folder: a restart that was killed leaves nothing else.
_LANCE_FOLDERS = frozenset(
    {"data", "_versions", "_transactions", "_indices", "_deletions", "_refs", "_latest.manifest"}
)


@dataclass(frozen=True, slots=True)
class Inventory:
    """What a restart would remove.

    Attributes:
        rows: in the latest version of the dataset; None where there is no dataset that opens.
        versions: of the dataset that can still be opened.
        state_files: in the folder beside the target.
        state_bytes: their size together.
        job_names: names of the jobs that made the target; none where job.json does not tell.
    """

    rows: int | None
    versions: int
    state_files: int
    state_bytes: int
    job_names: tuple[str, ...]

    @property
    def is_empty(self) -> bool:
        """Tell whether nothing is to be removed."""
        return self.rows is None and not self.state_files

    def sentence(self, uri: str) -> str:
        """Say what a restart of this target removes."""
        state = (
            f"{uri}.cfray ({counted(self.state_files, 'file')}, "
            f"{counted(self.state_bytes, 'byte')}: plan, receipts, quarantined rows, reports)"
        )
        jobs = f" of job {', '.join(self.job_names)}" if self.job_names else ""
        if self.rows is None:
            return f"--restart removes {state}{jobs}; there is no dataset at {uri}"
        return (
            f"--restart removes the dataset {uri}{jobs} ({counted(self.rows, 'row')} in its latest "
            f"version, {counted(self.versions, 'version')}) and {state}"
        )


def is_interrupted(state: State) -> bool:
    """Tell whether a restart was killed before it came to its end."""
    return state.folder.read(MARK) is not None


def find_remaining(uri: str) -> Ledger | None:
    """Read a target's ledger; None also where there is only what was written behind a restart.

    Raises:
        LedgerMismatch: something that cfray did not make stands at the address.
    """
    try:
        return find_target(uri)
    except LedgerMismatch:
        was_removed = State(uri).folder.read(REMOVED_MARK) is not None
        if not (was_removed and _is_half_removed(uri)):
            raise
        return None


def forget_removal(state: State) -> None:
    """End the time after a restart: the new target is created and planned."""
    state.folder.remove(REMOVED_MARK)


def take_inventory(uri: str) -> Inventory:
    """Look at what a restart would remove.

    Raises:
        LedgerMismatch: the dataset was not made by cfray, or its address holds something else than
            what an interrupted restart leaves of a dataset.
    """
    state = State(uri)
    rows, versions = None, 0
    try:
        if find_remaining(uri) is not None:
            dataset = Target(uri).open()
            rows, versions = dataset.count_rows(), len(dataset.versions())
    except LedgerMismatch:
        if not (is_interrupted(state) and _is_half_removed(uri)):
            raise
    files = _files(f"{uri}.cfray")
    job_names: set[str] = set()
    with suppress(CfrayError):  # a damaged job.json is a reason to start over, not to refuse it
        job_names = {str(job["agreed"].get("name")) for job in state.jobs()}
    size = sum(info.size for info in files)
    return Inventory(rows, versions, len(files), size, tuple(sorted(job_names)))


def _is_half_removed(uri: str) -> bool:
    """Tell what may be left behind a restart from what others put there since."""
    system, path = open_filesystem(uri)
    infos: list[pafs.FileInfo] = system.get_file_info(pafs.FileSelector(path, recursive=True))
    names = {info.path[len(path) + 1 :].split("/")[0] for info in infos}
    has_manifest = any(info.path.endswith(".manifest") for info in infos)
    # with a manifest and the data it names, the dataset opens: then it is judged by its ledger
    return names <= _LANCE_FOLDERS and not (has_manifest and _opens(uri))


def _opens(uri: str) -> bool:
    try:
        Target(uri).open()
    except (ValueError, OSError):
        return False
    return True


def remove(uri: str, *, has_ledger: bool) -> None:
    """Remove the dataset and the folder beside it under the lease; ``REMOVED_MARK`` stays.

    Args:
        uri: of the target; the caller has waited until it is free.
        has_ledger: whether there is a dataset of cfray's, whose epoch is raised first: a holder
            that was only silent can commit nothing more.

    Raises:
        LeaseHeld: another run took the target at the same moment.
        TargetError: the storage refused.
    """
    state = State(uri)
    if has_ledger:
        take_over(uri)
    lease = Lease(state.folder)
    lease.start(lambda: False)
    failpoint.reach("restarting")
    try:
        state.folder.publish(MARK, b"{}\n")
        _delete(uri)
        for name in ("staged", "sessions", "quarantine", "scratch", "maps", "reports"):
            _delete(f"{uri}.cfray/{name}")
        failpoint.reach("removed")
        for name in state.folder.list_names():
            if name not in (MARK, LEASE_FILE):
                state.folder.remove(name)
        state.folder.publish(REMOVED_MARK, b"{}\n")
        state.folder.remove(MARK)
    finally:
        lease.release()
    failpoint.reach("restarted")


def _files(uri: str) -> list[pafs.FileInfo]:
    if not Folder(uri).exists():
        return []
    system, path = open_filesystem(uri)
    infos: list[pafs.FileInfo] = system.get_file_info(pafs.FileSelector(path, recursive=True))
    return [info for info in infos if info.type == pafs.FileType.File]


def _delete(uri: str) -> None:
    """Delete a folder; again, if a worker that slept through the restart writes into it."""
    retry.run_with_retries(lambda: _delete_once(uri))


def _delete_once(uri: str) -> None:
    if not Folder(uri).exists():
        return
    system, path = open_filesystem(uri)
    try:
        system.delete_dir(path)
    except OSError as error:
        raise classify_write_error(error, f"could not remove {uri}") from error
