"""What was learned for a target, read back: a fitted map or a projection.

Each is a file named by its SHA-256, so a damaged file is never used.
"""

from __future__ import annotations

import hashlib

from cfray.errors import TargetError
from cfray.remap.maps import Map
from cfray.remap.projection import Projection
from cfray.target.state import State


def load_map(target: str, name: str) -> Map:
    """Read a fitted map.

    Raises:
        TargetError: the file is missing, or its content is not what its name says.
    """
    return Map.from_bytes(_read(target, name))


def load_projection(target: str, name: str) -> Projection:
    """Read a projection.

    Raises:
        TargetError: the file is missing, or its content is not what its name says.
    """
    return Projection.from_bytes(_read(target, name))


def _read(target: str, name: str) -> bytes:
    folder = State(target).maps
    data = folder.read(f"{name}.safetensors")
    if data is None or hashlib.sha256(data).hexdigest() != name:
        state = "missing" if data is None else "damaged"
        raise TargetError(
            f"{folder.uri}/{name}.safetensors is {state}",
            "restore the folder beside the target from a backup: the dataset's vectors were made "
            "with this file",
        )
    return data
