"""The first version of a target: whether it exists, and its creation with an empty ledger.

A dataset, a file or a folder that cfray did not make is refused and stays untouched.
"""

from __future__ import annotations

import time

import lance
import pyarrow as pa
import pyarrow.fs as pafs

from cfray.errors import LeaseHeld, LedgerMismatch
from cfray.runtime import filesystems, storage_errors
from cfray.runtime.error_text import describe_error
from cfray.runtime.filesystems import Folder, storage_options
from cfray.target.commit import Target
from cfray.target.ledger import LEDGER_KEY, Ledger

#: Version of Lance's file format.
STORAGE_VERSION = "2.2"


def find_target(uri: str) -> Ledger | None:
    """Read a target's ledger; None if the target does not exist yet.

    Raises:
        LedgerMismatch: something that cfray did not make stands at the address; it stays untouched.
    """
    folder = Folder(uri)
    if not folder.exists():
        return None
    try:
        dataset = Target(uri).open()
    except (ValueError, OSError) as error:
        system, path = filesystems.open_filesystem(uri)
        info: pafs.FileInfo = system.get_file_info(path)
        if info.type == pafs.FileType.Directory and _is_unborn(system, path):
            return None
        raise LedgerMismatch(
            f"{uri} exists and is no Lance dataset ({describe_error(error)[:120]})",
            "give another target.uri; nothing was changed",
        ) from error
    return Ledger.from_metadata(dataset.schema.metadata, uri)


def _is_unborn(system: pafs.FileSystem, path: str) -> bool:
    """Tell whether a folder is empty, or holds only what a killed run wrote before the manifest.

    Lance writes the manifest last.
    """
    names = [
        info.path[len(path) + 1 :]
        for info in system.get_file_info(pafs.FileSelector(path, recursive=True))
    ]
    return all(
        name.split("/")[0] in ("_transactions", "_versions") and not name.endswith(".manifest")
        for name in names
    )


def create_target(
    uri: str, schema: pa.Schema, metadata: dict[str, str], fingerprint: str
) -> Target:
    """Create the empty target with its first ledger.

    Its first epoch is the time in seconds: above every epoch of a target that a ``--restart``
    removed from this address, so that a holder which slept through that can commit nothing here.

    Args:
        uri: path or URI of the new dataset.
        schema: of its rows.
        metadata: further schema metadata: the types of its fields, the recipe of its vectors.
        fingerprint: of the job.

    Raises:
        LeaseHeld: another run created it at the same moment.
        TargetError: the storage refused.
    """
    ledger = Ledger(int(time.time()), version=1, next_row=0, fingerprints=(fingerprint,))
    empty = schema.with_metadata({LEDGER_KEY: ledger.to_json(), **metadata}).empty_table()
    try:
        lance.write_dataset(
            empty,
            uri,
            mode="create",
            enable_stable_row_ids=True,
            data_storage_version=STORAGE_VERSION,
            storage_options=storage_options(uri),
        )
    except OSError as error:
        if "already exists" in str(error) or "onflict" in str(error):
            raise LeaseHeld(
                f"another run created {uri} at the same moment",
                "run the same command again when it has ended",
            ) from error
        raise storage_errors.classify_write_error(error, f"could not create {uri}") from error
    return Target(uri, ledger.epoch)
