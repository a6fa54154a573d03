"""Where bytes live: one way to open, list and publish files on any pyarrow filesystem.

Sources read through it, and the ledger keeps its state with it.  Credentials come from
the environment, as each filesystem's library reads them; a URI never carries any.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urlencode, urlsplit

import pyarrow as pa
import pyarrow.fs as pafs

from cfray.errors import ConfigError, TargetError
from cfray.runtime import azure, gcs
from cfray.runtime.credentials import check_no_secret_in_url, name_variables
from cfray.runtime.error_text import describe_error
from cfray.runtime.storage_errors import classify_write_error, is_refused_access

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
        location, f"set it in the environment ({name_variables(location)})"
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

    @contextmanager
    def _opened_to_read(self) -> Iterator[tuple[pafs.FileSystem, str]]:
        """Open the filesystem, and say so where it refuses this user.

        Raises:
            TargetError: it does.
        """
        try:
            yield self._open()
        except OSError as error:
            if is_uri(self.uri) and is_refused_access(error):
                raise TargetError(
                    f"no permission to read {self.uri}: {describe_error(error)}",
                    f"correct {name_variables(self.uri)}, then run the same command again",
                ) from error
            raise

    def exists(self) -> bool:
        """Tell whether there is a file or a folder of this name."""
        with self._opened_to_read() as (system, path):
            info: pafs.FileInfo = system.get_file_info(path)
        return bool(info.type != pafs.FileType.NotFound)

    def holds(self, name: str) -> bool:
        """Tell whether there is a file of this name in the folder."""
        return self.child(name).exists()

    def list_names(self) -> list[str]:
        """List the names of the files directly in the folder, sorted; none if it is missing."""
        with self._opened_to_read() as (system, path):
            selector = pafs.FileSelector(path, allow_not_found=True)
            infos: list[pafs.FileInfo] = system.get_file_info(selector)
        return sorted(info.base_name for info in infos if info.type == pafs.FileType.File)

    def read(self, name: str) -> bytes | None:
        """Read a small file at once; None if it is missing."""
        try:
            with (
                self._opened_to_read() as (system, path),
                system.open_input_file(f"{path}/{name}") as stream,
            ):
                return bytes(stream.read())
        except FileNotFoundError:
            return None

    def publish(self, name: str, data: bytes) -> None:
        """Write a file so that a reader sees the old content or the new, never a part of it.

        On a local disk through a temporary name and a rename; an object store shows a file when
        it is whole.

        Raises:
            ConfigError: the address is one under which Arrow writes to Azure: abfs://.
            TargetUnavailable: the storage did not take the file.
            TargetError: the disk is full or read-only, or this user may not write there.
        """
        _check_shows_whole_files(self.uri)
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
    if location.startswith("az://"):
        return azure.open_azure(location)
    open_uri = gcs.open_gcs if location.startswith("gs://") else _open_uri
    try:
        system, path = open_uri(location)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError, OSError) as error:
        # A secret with a slash in it passes for a host.
        address = re.sub(r"//.*@", "//", strip_credentials(location))
        # Arrow quotes the URI in full, secrets included.
        reason = re.sub(r"['\"]?\w+://.*", "...", describe_error(error), flags=re.DOTALL)
        raise ConfigError(
            f"cannot open {address}: {reason}",
            "use a local path or an s3://, gs://, az:// or hdfs:// URI, special characters as %XX",
        ) from None
    return system, path


def _open_uri(uri: str) -> tuple[pafs.FileSystem, str]:
    system, path = pafs.FileSystem.from_uri(_add_s3_settings(uri))
    return system, path


def _check_shows_whole_files(location: str) -> None:
    """Refuse to write through Arrow's own stream to Azure, which begins with an empty blob.

    Raises:
        ConfigError: names the address to use instead.
    """
    if location.lower().startswith(("abfs://", "abfss://")):
        raise ConfigError(
            f"{location} can be read and not be written to: a run that is killed there leaves "
            "empty files",
            "write az://CONTAINER/PATH, with the account in the environment",
        )


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
    """Give Lance the endpoint, and for S3 the region, that Arrow uses.

    Explicit, because the libraries disagree: pyarrow ignores ``AWS_ENDPOINT``; where both region
    variables are set Lance takes ``AWS_REGION`` and pyarrow the other, and with neither they sign
    for different regions.  Plain http must be allowed.  Lance reads credentials from the
    environment itself.
    """
    if uri.startswith("az://"):
        return azure.lance_options()
    if uri.startswith("gs://"):
        return gcs.lance_options()
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
