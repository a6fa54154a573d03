"""What Chroma's refusals and its HTTP client's errors mean.

A server and the copy of a persistent directory refuse in the same way, with a status and
Chroma's own words (``ErrorAnswer``).  Here both become terminal or transient, or "ask for
a smaller page".
"""

from __future__ import annotations

from cfray.errors import SourceError, SourceUnavailable
from cfray.runtime.sdk import import_sdk

#: Chroma 1.5.9 says this of a page that holds a record whose vector it lost
#: (chroma-core/chroma#2905): the whole page fails.
LOST_VECTOR = "Error finding id"
#: Chroma says this where a request names more records than SQLite takes variables
#: (chroma-core/chroma#1861).
TOO_MANY_VARIABLES = "too many SQL variables"
#: Chroma 1.5.9 says this of a collection whose log of recent writes holds NaN or Infinity among
#: its metadata, which versions before 1.0 wrote there.
UNREADABLE_LOG = "Failed to pull logs from the log store"


class ErrorAnswer(Exception):
    """An answer that is no success.

    Attributes:
        status: the HTTP status.
        words: Chroma's own words.
        retry_after: seconds that the server asks to be left alone; None where it names none.
    """

    def __init__(self, status: int, words: str, retry_after: float | None = None) -> None:
        """Keep all three in ``args``, so that the error can be pickled."""
        super().__init__(status, words, retry_after)
        self.status, self.words, self.retry_after = status, words, retry_after


class PageRefused(SourceError):
    """The store refuses this page and may give a smaller one."""


def classify_error(error: Exception, address: str) -> SourceError | None:
    """Say what an error means: terminal, transient, or that a smaller page may succeed.

    Args:
        error: an ErrorAnswer, or an error of httpx.
        address: of the store, for the message.

    Returns:
        The error to raise instead, or None where it is a fault of ours.
    """
    if isinstance(error, ErrorAnswer):
        return _classify_answer(error, address)
    httpx = import_sdk("httpx", "chroma")
    if isinstance(error, (httpx.InvalidURL, httpx.UnsupportedProtocol)):
        return SourceError(
            f"{address} is no address: {error}",
            "correct source.url: http://host:port or https://host:port",
        )
    if isinstance(error, httpx.TransportError):
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            return SourceError(
                f"the certificate of {address} is not trusted",
                "name the certificates to trust with source.ca_file",
            )
        return SourceUnavailable(
            f"{address} did not answer: {type(error).__name__}: {error}",
            "check that Chroma runs and is reachable, or raise source.timeout",
        )
    return None


def _classify_answer(answer: ErrorAnswer, address: str) -> SourceError:
    message = f"{address} answered {answer.status}: {answer.words or 'nothing'}"
    refuses_page = TOO_MANY_VARIABLES in answer.words or LOST_VECTOR in answer.words
    if answer.status == 413 or refuses_page:
        return PageRefused(message, "report this: cfray asked for a single record and got none")
    if answer.status in (401, 403):
        return SourceError(
            message,
            "let source.api_key name a credential that may read, "
            "and source.api_key_header the header it travels in",
        )
    if answer.status == 404:
        # an answer without Chroma's words comes from another server
        keys = (
            "source.collections (or source.tenant and source.database)"
            if answer.words
            else "source.url"
        )
        return SourceError(message, f"correct {keys} in the job file")
    if answer.status in (408, 429) or answer.status >= 500:
        return SourceUnavailable(
            message,
            "look into the server's log, then run the same command again",
            answer.retry_after,
        )
    if UNREADABLE_LOG in answer.words:
        return SourceError(
            message,
            "its log of recent writes holds NaN or Infinity in metadata, which Chroma 1 cannot "
            "read: write the collection to JSON Lines with the version of chromadb that wrote it "
            "(collection.get), and read that file",
        )
    return SourceError(
        message, "correct the job file; where it is right, Chroma's own data is damaged"
    )
