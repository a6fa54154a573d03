"""Where bytes live: one way to open, list and publish files on any pyarrow filesystem.

Sources read through it, and the ledger keeps its state with it.  Credentials
come from the environment, as each filesystem's own library reads them; a URI
never carries any.
"""

from __future__ import annotations

import os
import re
import uuid
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlencode, urlsplit

import pyarrow as pa
import pyarrow.fs as pafs

from cfray.errors import ConfigError, TargetError, TargetUnavailable

_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+://")


def is_uri(text: str) -> bool:
    """Tell a URI from a plain path."""
    return bool(_SCHEME.match(text))


def keyless(text: str) -> str:
    """Refuse a location that holds a password or key.

    It would be written into plan, ledger and report.

    Raises:
        ValueError: names what to do instead, and not the secret.
    """
    if is_uri(text) and ":" in urlsplit(text).netloc.rpartition("@")[0]:
        raise ValueError(
            "the location holds a credential; set it in the environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for s3://)"
        )
    return text


def absolute(text: str, base: Path) -> str:
    """Resolve a path against ``base``; a URI stays as it is, ``file://`` becomes a path."""
    if text.startswith("file://"):
        return urlsplit(text).path
    return text if is_uri(text) else os.path.normpath(base / Path(text).expanduser())


def without_credentials(uri: str) -> str:
    """Write a location as a URI that names no user, password or query."""
    if not is_uri(uri):
        return "file://" + quote(uri)
    parts = urlsplit(uri)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder on some filesystem.

    Attributes:
        uri: absolute path or URI of the folder, without a trailing slash.
    """

    uri: str

    def _open(self) -> tuple[pafs.FileSystem, str]:
        return filesystem(self.uri)

    @property
    def is_local(self) -> bool:
        """Tell whether the folder is on this machine's disk (or a mounted one)."""
        return not is_uri(self.uri)

    def child(self, name: str) -> Folder:
        """Name a folder in this one."""
        return Folder(f"{self.uri}/{name}")

    def exists(self) -> bool:
        """Tell whether anything is there."""
        system, path = self._open()
        found: pafs.FileInfo = system.get_file_info(path)
        return bool(found.type != pafs.FileType.NotFound)

    def names(self) -> list[str]:
        """List the files directly in the folder, sorted; none if there is no folder."""
        system, path = self._open()
        infos: list[pafs.FileInfo] = system.get_file_info(
            pafs.FileSelector(path, allow_not_found=True)
        )
        return sorted(info.base_name for info in infos if info.type == pafs.FileType.File)

    def read(self, name: str) -> bytes | None:
        """Read a whole small file; None if there is none."""
        system, path = self._open()
        try:
            with system.open_input_file(f"{path}/{name}") as stream:
                return bytes(stream.read())
        except FileNotFoundError:
            return None

    def publish(self, name: str, data: bytes) -> None:
        """Write a file so that a reader sees the old one or the whole new one, never a part.

        On a local disk through a temporary name and a rename; an object store's put is atomic by
        itself.

        Raises:
            TargetUnavailable: the storage did not take it.
            TargetError: the disk is full or read-only.
        """
        system, path = self._open()
        try:
            if not isinstance(system, pafs.LocalFileSystem):
                with system.open_output_stream(f"{path}/{name}") as stream:
                    stream.write(data)
                return
            Path(path).mkdir(parents=True, exist_ok=True)
            part = Path(path, f".{name}.{uuid.uuid4().hex[:8]}.part")
            try:
                part.write_bytes(data)
                part.replace(Path(path, name))
            finally:
                part.unlink(missing_ok=True)
        except OSError as error:
            raise storage_error(error, f"could not write {self.uri}/{name}") from error

    def remove(self, name: str) -> None:
        """Delete a file; it is no error if there is none."""
        system, path = self._open()
        try:
            system.delete_file(f"{path}/{name}")
        except FileNotFoundError:
            return


def storage_error(error: OSError, what: str) -> TargetError:
    """Turn an operating system's error into ours.

    A full or read-only disk is terminal, the rest transient.
    """
    detail = f"{what}: {error}"
    if "os error 28" in str(error) or "No space left" in str(error):
        return TargetError(
            detail, "free disk space, then run the same command again: what is committed stays"
        )
    code = str(error).replace("_", "").lower()  # Lance writes NoSuchBucket, pyarrow NO_SUCH_BUCKET
    if "invalidaccesskeyid" in code or "signaturedoesnotmatch" in code:
        return TargetError(
            detail,
            "correct AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, then run the same command again",
        )
    if "nosuchbucket" in code:
        return TargetError(
            detail, "create the bucket or correct target.uri, then run the same command again"
        )
    if isinstance(error, PermissionError) or "read-only" in code or "accessdenied" in code:
        return TargetError(
            detail, "make the target writable for this user, then run the same command again"
        )
    return TargetUnavailable(detail, "check the storage, then run the same command again")


def filesystem(uri: str) -> tuple[pafs.FileSystem, str]:
    """Open the filesystem of a path or URI.

    Returns:
        the filesystem, and the path inside it.

    Raises:
        ConfigError: no such kind of filesystem.
    """
    if not is_uri(uri):
        return pafs.LocalFileSystem(), uri
    try:
        system, path = pafs.FileSystem.from_uri(_with_s3_settings(uri))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError, OSError) as error:
        place = re.sub(
            r"//.*@", "//", without_credentials(uri)
        )  # a secret with a slash in it passes for a host
        why = re.sub(
            r"['\"]?\w+://.*", "...", str(error), flags=re.DOTALL
        )  # Arrow quotes the whole URI, secrets included
        raise ConfigError(
            f"cannot open {place}: {why}",
            "use a local path or an s3://, gs://, abfs:// or hdfs:// URI, special characters as %XX",
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

    Empty to let each library find the bucket's, which it can at Amazon only.
    """
    return (
        os.environ.get("AWS_REGION")
        or os.environ.get("AWS_DEFAULT_REGION")
        or ("us-east-1" if s3_endpoint() else "")
    )


def _with_s3_settings(uri: str) -> str:
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


def storage_options(uri: str) -> dict[str, str]:
    """Give Lance the S3 endpoint and region that everything else uses.

    Credentials it reads from the environment itself.

    Explicit, because the libraries disagree: pyarrow ignores ``AWS_ENDPOINT``; where both region
    variables are set Lance takes ``AWS_REGION`` and pyarrow the other, and with neither they sign
    for different regions.  Plain http must be allowed.
    """
    endpoint = s3_endpoint()
    if not uri.startswith("s3://") or not endpoint:
        return {}
    return {
        "aws_endpoint": endpoint,
        "aws_region": s3_region(),
        "allow_http": str(endpoint.startswith("http://")).lower(),
    }
