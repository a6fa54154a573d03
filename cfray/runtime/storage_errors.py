"""What an error of the storage means: no permission, no space, no answer, or damage.

Files are read and written through Arrow and through Lance, which report one cause with
different types and words.  Each function here turns such an error into an error of ours
that names the remedy and says whether another attempt may succeed.
"""

from __future__ import annotations

import errno
import re

import pyarrow as pa

from cfray.errors import SourceError, SourceUnavailable, TargetError, TargetUnavailable
from cfray.runtime.credentials import name_variables
from cfray.runtime.error_text import describe_error

_AGAIN = "then run the same command again"

#: Words of the object stores, in lower case without "_" and spaces: Lance writes NoSuchBucket,
#: Arrow NO_SUCH_BUCKET.
_REFUSED_KEY = (
    *("invalidaccesskeyid", "signaturedoesnotmatch", "expiredtoken", "invalidtoken"),
    *("authenticationfailed", "noauthenticationinformation", "status(unauthenticated"),
    "failedtoauthenticate",
)
_REFUSED_ACCESS = (
    *("accessdenied", "permissiondenied", "403forbidden", "401unauthorized"),
    *("authorizationfailure", "authorizationpermissionmismatch"),
)
_NO_BUCKET = ("nosuchbucket", "containernotfound", "status(notfound")
#: Words of Lance and Arrow where an object store could not be reached or gave up.
_NO_ANSWER = (
    "errorsendingrequest",
    "networkconnection",
    "connectionrefused",
    "timedout",
    "slowdown",
    "serviceunavailable",
    "internalfailure",
    "500internalservererror",
    "maxretries",
)
#: Arrow's words for a gzip or zstd stream that is cut or corrupt.
_BROKEN_COMPRESSION = ("compressedstream", "inflate", "decompress")


def classify_write_error(error: OSError, what: str) -> TargetError:
    """Turn an error of writing to the target's storage into an error of ours.

    Args:
        error: as Arrow, Lance or the operating system raised it.
        what: what failed, and where.

    Returns:
        A terminal error for a full or read-only disk and for refused access, a transient error
        for everything else.
    """
    detail = f"{what}: {describe_error(error)}"
    if _error_number(error) == errno.ENOSPC or "No space left" in str(error):
        return TargetError(detail, f"free disk space, {_AGAIN}: what is committed stays")
    if _says(error, _REFUSED_KEY):
        return TargetError(detail, f"correct {name_variables(what)}, {_AGAIN}")
    if _says(error, _NO_BUCKET):
        return TargetError(
            detail, f"create the bucket (Azure: the container) or correct target.uri, {_AGAIN}"
        )
    read_only = _error_number(error) == errno.EROFS or "read-only" in str(error).lower()
    if is_refused_access(error) and "://" in what:
        return TargetError(
            detail, f"give credentials that may write there ({name_variables(what)}), {_AGAIN}"
        )
    if read_only or is_refused_access(error):
        return TargetError(detail, f"make the target writable for this user, {_AGAIN}")
    return TargetUnavailable(detail, f"check the storage, {_AGAIN}")


def classify_read_error(error: Exception, location: str) -> SourceError:
    """Turn an error of reading a source's file into an error of ours.

    Args:
        error: as Arrow, Lance or the operating system raised it.
        location: path or URI of the file.

    Returns:
        A terminal error for refused access, a missing file and bytes that are not the format; a
        transient error where the operating system or a remote filesystem did not deliver.
    """
    detail = describe_error(error)
    if unreachable := _explain_unreachable(error, location, detail):
        return unreachable
    if _says(error, _BROKEN_COMPRESSION):
        return SourceError(
            f"{location} cannot be decompressed: {detail}",
            "export or copy the file again, then start anew with another target",
        )
    if is_unanswered(error) or (isinstance(error, OSError) and "://" in location):
        return SourceUnavailable(
            f"{location} cannot be read: {detail}",
            f"check that the filesystem answers, {_AGAIN}",
        )
    if isinstance(error, pa.ArrowNotImplementedError):
        return SourceError(
            f"{location} cannot be read: {detail}",
            "Arrow does not read a type that it has, such as integers of 128 bits: cast the "
            "column, to text or a decimal, and export it again",
        )
    return SourceError(
        f"{location} cannot be read: {detail}",
        "the file is damaged, cut short or of another format: export it again, or correct "
        "source.kind",
    )


def _explain_unreachable(error: Exception, location: str, detail: str) -> SourceError | None:
    """Say why there is no way to a file; None where the error is another one."""
    if is_refused_access(error):
        return SourceError(f"no permission to read {location}: {detail}", _access_remedy(location))
    if is_missing(error):
        return SourceError(f"{location} is gone: {detail}", f"restore the file, {_AGAIN}")
    if _error_number(error) == errno.ENAMETOOLONG:
        return SourceError(
            f"{location} cannot be read: {detail}",
            "shorten the names of its folders, or name a folder further down in source.uri",
        )
    return None


def is_refused_access(error: Exception) -> bool:
    """Tell whether the storage refused access: permission bits, credentials, policies."""
    return (
        isinstance(error, PermissionError)
        or _error_number(error) in {errno.EACCES, errno.EPERM}
        or _says(error, (*_REFUSED_KEY, *_REFUSED_ACCESS))
    )


def is_missing(error: Exception) -> bool:
    """Tell whether the storage has no such file."""
    return isinstance(error, FileNotFoundError) or _error_number(error) == errno.ENOENT


def is_unanswered(error: Exception) -> bool:
    """Tell whether the operating system or a network failed, which says nothing of the bytes."""
    return _error_number(error) is not None or _says(error, _NO_ANSWER)


def _access_remedy(location: str) -> str:
    if "://" in location:
        return (
            "give credentials that may list and read it in the environment "
            f"({name_variables(location)}), {_AGAIN}"
        )
    return (
        "give this user read permission (chmod a+r, and chmod a+x for the folders above it), "
        f"{_AGAIN}"
    )


def _error_number(error: Exception) -> int | None:
    """Find the operating system's error number: Lance writes it into the text only."""
    if isinstance(error, OSError) and error.errno:
        return error.errno
    written = re.search(r"\bos error (\d+)\b", str(error))
    return int(written[1]) if written else None


def _says(error: Exception, words: tuple[str, ...]) -> bool:
    text = re.sub(r"[\s_]", "", str(error)).lower()
    return any(word in text for word in words)
