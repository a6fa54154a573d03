"""The places that a dataset is copied to: apart from one another, and written by one run at a time.

A place is a dataset and the folder beside it.  What is copied into a place of another dataset would
go with that one when it is removed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from cfray.errors import ConfigError, LeaseHeld, TargetError
from cfray.runtime.error_text import describe_error
from cfray.runtime.filesystems import Folder, path_below
from cfray.target import lease
from cfray.transfers.points import folder_beside


def check_apart(address: str, others: Iterable[str]) -> None:
    """Refuse an address in the place of another dataset, or around it; links are followed.

    Raises:
        ConfigError: names the two.
    """
    for other in others:
        for here in (address, f"{address}.cfray"):
            for there in (other, f"{other}.cfray"):
                if path_below(here, there) is not None or path_below(there, here) is not None:
                    raise ConfigError(
                        f"{address} and {other} are the same, or lie in one another",
                        "give another address",
                    )


@contextmanager
def held(address: str) -> Iterator[lease.Lease]:
    """Hold a place while it is written to, as a run holds its target.

    Raises:
        LeaseHeld: another run writes to it.
    """
    folder = folder_beside(address)
    lease.wait_until_free(folder)
    holding = lease.Lease(folder)
    holding.start(lambda: False)
    try:
        yield holding
    finally:
        holding.release()


def check_held(holding: lease.Lease, address: str) -> None:
    """Find that a place is still held, before what was copied to it is made to count.

    Raises:
        LeaseHeld: another run took it, which may have removed what this one copied.
    """
    holder = lease.read(holding.folder)
    if holder is None or holder.nonce != holding.holder.nonce:
        raise LeaseHeld(
            f"another run took {address} meanwhile", "run the same command again when it has ended"
        )


def read_file(folder: Folder, name: str) -> bytes | None:
    """Read a file beside a dataset; None if it is missing.

    Raises:
        TargetError: the storage cannot be read.
    """
    try:
        return folder.read(name)
    except NotADirectoryError:
        return None
    except OSError as error:
        raise TargetError(
            f"cannot read {folder.uri}/{name}: {describe_error(error)}",
            "check the storage and its credential",
        ) from error
