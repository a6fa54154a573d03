"""cfray moves a whole corpus out of the store it lives in and into one proven Lance dataset.

On Ray.

``pipeline.py`` is the program from top to bottom, ``api.py`` what Python code calls.  This module
only names what others may rely on, and imports no SDK, no torch, no lance and no ray: a name of
``api.py`` is imported when it is first used.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from cfray.errors import (
    CfrayError,
    ConfigError,
    EmbeddingError,
    EmbeddingUnavailable,
    EngineError,
    Interrupted,
    LeaseHeld,
    LedgerMismatch,
    LimitReached,
    ProofFailed,
    SourceError,
    SourceUnavailable,
    TargetError,
    TargetUnavailable,
)

if TYPE_CHECKING:
    from cfray.api import (
        Answer,
        Job,
        Preview,
        Report,
        Source,
        close,
        migrate,
        plan,
        query,
        read,
        sync,
        verify,
    )

__all__ = [
    "Answer",
    "CfrayError",
    "ConfigError",
    "EmbeddingError",
    "EmbeddingUnavailable",
    "EngineError",
    "Interrupted",
    "Job",
    "LeaseHeld",
    "LedgerMismatch",
    "LimitReached",
    "Preview",
    "ProofFailed",
    "Report",
    "Source",
    "SourceError",
    "SourceUnavailable",
    "TargetError",
    "TargetUnavailable",
    "__version__",
    "close",
    "migrate",
    "plan",
    "query",
    "read",
    "sync",
    "verify",
]

try:
    __version__ = version("cfray")
except PackageNotFoundError:  # a source tree on the path, not installed
    __version__ = "0+unknown"


def __getattr__(name: str) -> object:
    """Import a name of ``api.py`` when it is first used."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from cfray import api

    value: object = getattr(api, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
