"""Google Cloud Storage: where it is for Arrow and for Lance, and what a folder is there.

Arrow's output stream is a resumable upload: the object appears when the stream is closed, and a
killed process leaves none.  Google's libraries look for an emulator at ``STORAGE_EMULATOR_HOST``;
Arrow and Lance do not, so they are told.

Source: Google Cloud Storage documentation, "Resumable uploads".
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from urllib.parse import urlencode, urlsplit

import pyarrow.fs as pafs

from cfray.runtime.wrapped_filesystem import WrappedFileSystem

#: Environment variables of Google's own libraries.
CREDENTIALS, EMULATOR = "GOOGLE_APPLICATION_CREDENTIALS", "STORAGE_EMULATOR_HOST"
#: Where the service is that no variable replaces.
PUBLIC = "https://storage.googleapis.com"
#: Seconds for which Arrow sends a request again; it has 15 minutes.
_PATIENCE = 30


def read_endpoint() -> str:
    """Give the URL of the service, which has no slash at its end."""
    host = os.environ.get(EMULATOR, "").rstrip("/")
    if not host:
        return PUBLIC
    return host if "://" in host else f"http://{host}"


def has_emulator() -> bool:
    """Tell whether an emulator stands in for the service: it gets no credential."""
    return read_endpoint() != PUBLIC


def lance_options() -> dict[str, str]:
    """Give Lance the emulator; of the service it knows all by itself.

    Lance signs nothing for a service account that says so, and has no other way to learn that.
    """
    if not has_emulator():
        return {}
    endpoint = read_endpoint()
    account = {"gcs_base_url": endpoint, "disable_oauth": True}
    empty = dict.fromkeys(("client_email", "private_key", "private_key_id"), "")
    return {
        "google_service_account_key": json.dumps(account | empty),
        "allow_http": str(endpoint.startswith("http://")).lower(),
    }


def open_gcs(uri: str) -> tuple[pafs.FileSystem, str]:
    """Open the filesystem of a ``gs://`` URI.

    Returns:
        The filesystem, and the path inside it.

    Raises:
        ArrowInvalid, ValueError, OSError: as Arrow refuses a URI.
    """
    system, path = pafs.FileSystem.from_uri(_add_settings(uri))
    return pafs.PyFileSystem(_Buckets(system)), path


def _add_settings(uri: str) -> str:
    """Put patience and the emulator into a URI, for Arrow."""
    if "?" in uri:
        return uri
    settings = {"retry_limit_seconds": str(_PATIENCE)}
    if has_emulator():
        parts = urlsplit(read_endpoint())
        settings |= {"scheme": parts.scheme, "endpoint_override": parts.netloc}
        if "@" not in urlsplit(uri).netloc:
            uri = uri.replace("://", "://anonymous@", 1)
    return f"{uri}?{urlencode(settings)}"


class _Buckets(WrappedFileSystem):
    """Buckets in which a folder is there as long as a file is in it.

    Arrow 26 takes an object that ends with a slash for the folder, and Lance writes none.
    """

    def get_file_info_selector(self, selector: pafs.FileSelector) -> list[pafs.FileInfo]:
        """List a folder; Arrow leaves out the folders in it."""
        infos = super().get_file_info_selector(
            pafs.FileSelector(
                selector.base_dir, allow_not_found=selector.allow_not_found, recursive=True
            )
        )
        if selector.recursive:
            return infos
        start = len(selector.base_dir.rstrip("/")) + 1
        listed: dict[str, pafs.FileInfo] = {}
        for info in infos:
            name, is_below, _ = info.path[start:].partition("/")
            path = info.path[:start] + name
            if is_below:
                listed.setdefault(path, pafs.FileInfo(path, pafs.FileType.Directory))
            else:
                listed[path] = info
        return list(listed.values())

    def delete_dir(self, path: str) -> None:
        """Delete what is in a folder; then Arrow misses the folder's own object."""
        with suppress(FileNotFoundError):
            super().delete_dir(path)
