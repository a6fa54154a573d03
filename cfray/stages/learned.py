"""What was learned for a target, read back: a fitted map or a projection, each a file named by its SHA-256."""

from __future__ import annotations

import hashlib

from cfray.embedders.maps import Map
from cfray.embedders.projection import Projection
from cfray.errors import TargetError
from cfray.ledger import State


def the_map(target: str, name: str) -> Map:
    """Read a fitted map.

    Raises:
        TargetError: it is gone, or is not what its name says.
    """
    return Map.from_bytes(_read(target, name))


def the_projection(target: str, name: str) -> Projection:
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
