"""Name what a read of the target's own rows runs into: damage is a message, never a traceback.

``verify`` finds damage and names the files.  The steps before it read rows, too, and may
meet the same damage first.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa

from cfray.errors import TargetError
from cfray.runtime.error_text import describe_error


@contextmanager
def damage_named(uri: str) -> Iterator[None]:
    """Turn the errors of reading a target's files into an error that says so.

    Raises:
        TargetError: a file of the target is damaged or gone, or the storage does not give it.
    """
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        # the type of Lance's error depends on where in a file the damage is
        raise TargetError(
            f"rows of {uri} cannot be read: {describe_error(error)[:300]}",
            "check the storage, then run cfray verify, which names every damaged file; restore "
            "these from a backup, or migrate into a new target",
        ) from error
