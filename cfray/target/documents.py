"""The JSON files beside the target: how each is written, and how a damaged one is refused.

A disk that was full, a copy that was cut or another program may have changed any of
them.  No command may end in a traceback for that, and none may guess what a damaged
file said: the error names the file and what the operator can do about it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TypeVar

from cfray.errors import TargetError

T = TypeVar("T")

#: What to do about a file without which the target's state is not known.
RESTORE = (
    "restore the folder beside the target from a backup, or clear the target with "
    "`cfray migrate JOB --restart`, which says what it removes"
)


def dumps(value: object, *, sort_keys: bool = True) -> bytes:
    """Write JSON that people read, too: indented, UTF-8, sorted where the order means nothing."""
    return (json.dumps(value, sort_keys=sort_keys, indent=1, ensure_ascii=False) + "\n").encode()


def parse_document(
    data: bytes, location: str, parse: Callable[[bytes], T], *, remedy: str = RESTORE
) -> T:
    """Parse the content of a file.

    Args:
        data: the file's bytes.
        location: its path or URI, for the error.
        parse: makes the value, without reading any file; a ValueError, TypeError, LookupError,
            AttributeError or OSError (pyarrow's) means that the content is not what cfray writes.
        remedy: what the operator can do about a damaged file.

    Raises:
        TargetError: the file is empty, cut, not JSON, or another program's.
    """
    try:
        return parse(data)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, OSError) as error:
        state = (
            "is damaged, or was written by another program or by a newer cfray"
            if data.strip()
            else "is empty"
        )
        raise TargetError(f"{location} {state}", remedy) from error
