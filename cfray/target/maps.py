"""What was learned for a target, read back.

A fitted map or a projection, each a file named by its SHA-256.
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
        TargetError: it is gone, or is not what its name says.
    """
    return Map.from_bytes(_read(target, name))


def load_projection(target: str, name: str) -> Projection:
    """Read a projection.

    Raises:
        TargetError: it is gone, or is not what its name says.
    """
    return Projection.from_bytes(_read(target, name))


def _read(target: str, name: str) -> bytes:
    folder = State(target).maps
    data = folder.read(f"{name}.safetensors")
    if data is None or hashlib.sha256(data).hexdigest() != name:
        raise TargetError(
            f"{folder.uri}/{name}.safetensors is {'missing' if data is None else 'damaged'}",
            "restore the folder beside the target from a backup: the dataset's vectors were made with it",
        )
    return data
