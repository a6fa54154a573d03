"""Where bytes live: one way to open, list and publish files on any pyarrow filesystem.

Sources read through it, and the ledger keeps its state with it.  Credentials come from
the environment, as each filesystem's library reads them; a URI never carries any.
"""

from __future__ import annotations

import os
import re
import uuid
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urlencode, urlsplit

import pyarrow as pa
import pyarrow.fs as pafs

from cfray.errors import ConfigError
from cfray.runtime.credentials import check_no_secret_in_url
from cfray.runtime.error_text import describe_error
from cfray.runtime.storage_errors import classify_write_error

_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+://")


def is_uri(location: str) -> bool:
    """Tell a URI from a plain path."""
    return bool(_SCHEME.match(location))


def check_location(location: str) -> str:
    """Refuse a path or URI of storage that holds a secret.

    It would be written into the plan, the ledger and the report.

    Raises:
        ValueError: names what to do instead, and never quotes the location.
    """
    if not is_uri(location):
        return location
    return check_no_secret_in_url(
        location,
        "set it in the environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for s3://)",
    )


def resolve_path(location: str, base: Path) -> str:
    """Resolve a path against ``base``; ``file://`` becomes a path, any other URI stays as it is.

    Special characters of a ``file://`` URI stand as %XX, unless a file has that very name.
    """
    if location.startswith("file://"):
        path = "/" + location.removeprefix("file://").partition("/")[2]
        return path if os.path.exists(path) else unquote(path)
    return location if is_uri(location) else os.path.normpath(base / Path(location).expanduser())


def strip_credentials(location: str) -> str:
    """Write a path or URI as a URI that names no user, password or query."""
    if not is_uri(location):
        return "file://" + quote(location)
    parts = urlsplit(location)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"


def path_below(location: str, folder: str) -> str | None:
    """Give the path of a location below a folder, empty for the folder itself; else None.

    Links on a local disk are followed.  Nothing needs to exist.
    """
    if is_uri(location) != is_uri(folder):
        return None
    if is_uri(location):
        path, above = (
            unquote("{0.scheme}://{0.netloc}{0.path}".format(urlsplit(uri)))
            for uri in (location, folder)
        )
    else:
        path, above = os.path.realpath(location), os.path.realpath(folder)
    path, above = f"{path.rstrip('/')}/", f"{above.rstrip('/')}/"
    return path.removeprefix(above).rstrip("/") if path.startswith(above) else None


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder on some filesystem.

    Attributes:
        uri: absolute path or URI of the folder, without a trailing slash.
    """

    uri: str

    def _open(self) -> tuple[pafs.FileSystem, str]:
        return open_filesystem(self.uri)

    def child(self, name: str) -> Folder:
        """Name a folder in this folder."""
        return Folder(f"{self.uri}/{name}")

    def exists(self) -> bool:
        """Tell whether there is a file or a folder of this name."""
        system, path = self._open()
        info: pafs.FileInfo = system.get_file_info(path)
        return bool(info.type != pafs.FileType.NotFound)

    def holds(self, name: str) -> bool:
        """Tell whether there is a file of this name in the folder."""
        return self.child(name).exists()

    def list_names(self) -> list[str]:
        """List the names of the files directly in the folder, sorted; none if it is missing."""
        system, path = self._open()
        selector = pafs.FileSelector(path, allow_not_found=True)
        infos: list[pafs.FileInfo] = system.get_file_info(selector)
        return sorted(info.base_name for info in infos if info.type == pafs.FileType.File)

    def read(self, name: str) -> bytes | None:
        """Read a small file at once; None if it is missing."""
        system, path = self._open()
        try:
            with system.open_input_file(f"{path}/{name}") as stream:
                return bytes(stream.read())
        except FileNotFoundError:
            return None

    def publish(self, name: str, data: bytes) -> None:
        """Write a file so that a reader sees the old content or the new, never a part of it.

        On a local disk through a temporary name and a rename; an object store's put is atomic by
        itself.

        Raises:
            TargetUnavailable: the storage did not take the file.
            TargetError: the disk is full or read-only, or this user may not write there.
        """
        system, path = self._open()
        try:
            if not isinstance(system, pafs.LocalFileSystem):
                with system.open_output_stream(f"{path}/{name}") as stream:
                    stream.write(data)
                return
            Path(path).mkdir(parents=True, exist_ok=True)
            temporary = Path(path, f".{name}.{uuid.uuid4().hex[:8]}.part")
            try:
                temporary.write_bytes(data)
                temporary.replace(Path(path, name))
            finally:
                temporary.unlink(missing_ok=True)
        except OSError as error:
            raise classify_write_error(error, f"could not write {self.uri}/{name}") from error

    def remove(self, name: str) -> None:
        """Delete a file; a missing file is no error."""
        system, path = self._open()
        try:
            system.delete_file(f"{path}/{name}")
        except FileNotFoundError:
            return


def open_filesystem(location: str) -> tuple[pafs.FileSystem, str]:
    """Open the filesystem of a path or URI.

    Returns:
        The filesystem, and the path inside it.

    Raises:
        ConfigError: the URI names no filesystem that Arrow knows, or is malformed.
    """
    if not is_uri(location):
        return pafs.LocalFileSystem(), location
    try:
        system, path = pafs.FileSystem.from_uri(_add_s3_settings(location))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError, OSError) as error:
        # A secret with a slash in it passes for a host.
        address = re.sub(r"//.*@", "//", strip_credentials(location))
        # Arrow quotes the URI in full, secrets included.
        reason = re.sub(r"['\"]?\w+://.*", "...", describe_error(error), flags=re.DOTALL)
        raise ConfigError(
            f"cannot open {address}: {reason}",
            "use a local path or an s3://, gs://, abfs:// or hdfs:// URI, special characters as "
            "%XX",
        ) from None
    return system, path


def s3_endpoint() -> str:
    """Name the S3 endpoint that the environment sets; empty for Amazon's own."""
    return (
        os.environ.get("AWS_ENDPOINT_URL_S3")
        or os.environ.get("AWS_ENDPOINT_URL")
        or os.environ.get("AWS_ENDPOINT", "")
    )


def s3_region() -> str:
    """Name the S3 region that the environment sets.

    Empty to let each library find the bucket's region, which it can at Amazon only.
    """
    return (
        os.environ.get("AWS_REGION")
        or os.environ.get("AWS_DEFAULT_REGION")
        or ("us-east-1" if s3_endpoint() else "")
    )


def storage_options(uri: str) -> dict[str, str]:
    """Give Lance the S3 endpoint and region that Arrow uses.

    Explicit, because the libraries disagree: pyarrow ignores ``AWS_ENDPOINT``; where both region
    variables are set Lance takes ``AWS_REGION`` and pyarrow the other, and with neither they sign
    for different regions.  Plain http must be allowed.  Lance reads credentials from the
    environment itself.
    """
    endpoint = s3_endpoint()
    if not uri.startswith("s3://") or not endpoint:
        return {}
    return {
        "aws_endpoint": endpoint,
        "aws_region": s3_region(),
        "allow_http": str(endpoint.startswith("http://")).lower(),
    }


def _add_s3_settings(uri: str) -> str:
    """Put the endpoint and its region into an S3 URI, for pyarrow.

    ``allow_delayed_open`` makes a small file one PUT instead of a multipart upload, which a killed
    process would leave open.
    """
    if not uri.startswith("s3://") or "?" in uri:
        return uri
    settings = {"allow_delayed_open": "true"}
    if endpoint := s3_endpoint():
        settings |= {"endpoint_override": endpoint, "region": s3_region()}
    return f"{uri}?{urlencode(settings)}"
