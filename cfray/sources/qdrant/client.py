"""Open Qdrant's own client for one task, and close it after the task.

Nothing else is decided here: requests, retries and the budget are the caller's matter.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cfray.errors import SourceError
from cfray.runtime.sdk import import_sdk
from cfray.sources.qdrant.settings import QdrantSettings

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

#: The first version whose filters know slices (pull request qdrant/qdrant#9899).
_SLICES_SINCE = (1, 19)


@contextmanager
def open_client(settings: QdrantSettings) -> Iterator[QdrantClient]:
    """Open a client, and close it at the end."""
    sdk = import_sdk("qdrant_client", "qdrant")
    certificates = _certificate_options(settings)
    with warnings.catch_warnings():
        # the plan says so in a note, once
        warnings.filterwarnings("ignore", message="Api key is used with an insecure connection")
        try:
            client = sdk.QdrantClient(
                url=settings.url,
                api_key=settings.read_secret(),
                timeout=settings.timeout,
                grpc_port=settings.grpc_port,
                pool_size=1,
                check_compatibility=False,
                **certificates,
            )
        except (ValueError, OSError) as error:
            raise SourceError(
                f"cannot open a client for {settings.url}: {error}",
                "correct source.url: http(s)://host:port of Qdrant's REST API",
            ) from None
    try:
        yield client
    finally:
        client.close()


def _certificate_options(settings: QdrantSettings) -> dict[str, Any]:
    if not settings.ca_file:
        return {"verify": False} if settings.insecure else {}
    try:
        root_certificates = Path(settings.ca_file).read_bytes()
    except OSError as error:
        raise SourceError(
            f"cannot read the certificates {settings.ca_file}: {type(error).__name__}",
            "correct source.ca_file",
        ) from None
    return {
        "verify": settings.ca_file,
        "grpc_options": {"root_certificates": root_certificates},
    }


def server_knows_slices(version: str) -> bool:
    """Tell whether a server of this version can cut a scroll into slices.

    Of a server whose version cannot be read it says no.
    """
    numbers = version.split(".")[:2]
    return all(number.isdigit() for number in numbers) and (
        tuple(map(int, numbers)) >= _SLICES_SINCE
    )
