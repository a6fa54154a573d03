"""What an answer that is no success means: wait and try again, ask for less, or give up.

The two clients raise errors of their own; a product's folder makes a ``Failure`` of each, and
here it is judged, so that both products are treated alike.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from cfray.errors import SourceError, SourceUnavailable

#: What an error's text holds when a point in time or a scroll is gone.
_LOST_VIEW = ("search_context_missing", "No search context found")
#: What a 429 says when an index is asked for more slices than it allows: asking again is in vain.
_TOO_MANY_SLICES = ("number of slices", "max_slices_per")
_RUN_AGAIN = (
    "run the same command again: it keeps the committed shards and reads the others at another "
    "point in time"
)
_CHECK_SERVER = "check that the server runs and is reachable, then run the same command again"
_TERMINAL_REMEDIES = {
    400: "correct source in the job file; the documentation of the store names what it may say",
    401: "correct source.api_key, or source.username where the secret is a password",
    403: "let source.api_key name a credential with the permissions that the store's page lists",
    404: "correct source.collections or source.url in the job file",
    405: "correct source.url in the job file",
    406: "correct source.kind: the server does not speak the protocol of this client",
    413: "raise http.max_content_length at the server, or lower source.shard_bytes",
}


class NoPermission(SourceError):
    """The credential does not permit a request."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A request that failed.

    Attributes:
        status: of HTTP; None where no answer came.
        text: what the server or the client said.
        is_timeout: whether the answer took too long.
        retry_after: seconds that the server asked for.
    """

    status: int | None
    text: str
    is_timeout: bool = False
    retry_after: float | None = None

    @property
    def is_lost_view(self) -> bool:
        """Tell whether the point in time or the scroll is gone."""
        return any(words in self.text for words in _LOST_VIEW)

    @property
    def is_page_too_large(self) -> bool:
        """Tell whether fewer records might be given."""
        return (
            self.status == 413
            or (self.status == 400 and "Result window is too large" in self.text)
            or (self.status == 429 and "circuit_breaking_exception" in self.text)
        )

    def to_error(self, address: str) -> SourceError:
        """Give the error that a source raises in place of the client's."""
        status = "no answer" if self.status is None else f"HTTP {self.status}"
        message = f"{address}: {status}: {self.text[:500]}"
        if self.is_lost_view:
            return SourceError(
                f"{address} let a point in time or a scroll go while it was read "
                f"({self.text[:200]})",
                _RUN_AGAIN,
            )
        if self.status == 429 and any(words in self.text for words in _TOO_MANY_SLICES):
            return SourceError(
                message,
                "lower source.slices, or raise index.max_slices_per_scroll and "
                "index.max_slices_per_pit of the index, and start anew with another target",
            )
        if "CERTIFICATE_VERIFY_FAILED" in self.text:
            return SourceError(
                message,
                "name the certificate to trust in source.ca_file, or set source.insecure: true",
            )
        if self.status in _TERMINAL_REMEDIES:
            kind = NoPermission if self.status == 403 else SourceError
            return kind(message, _TERMINAL_REMEDIES[self.status])
        remedy = "lower source.requests_per_second" if self.status == 429 else _CHECK_SERVER
        return SourceUnavailable(message, remedy, self.retry_after)


def body_text(body: object) -> str:
    """Write the body of an error's answer on one line: types and reasons of its causes."""
    if not isinstance(body, dict):
        return str(body)
    error = body.get("error", body)
    causes = error.get("root_cause") if isinstance(error, dict) else None
    if isinstance(causes, list) and causes:
        texts = [f"{cause.get('type')}: {cause.get('reason')}" for cause in causes]
        return "; ".join(dict.fromkeys(texts))
    return error if isinstance(error, str) else json.dumps(error)


def lost_view(address: str, index: str) -> SourceError:
    """Say that the session has no point in time of an index that the plan reads."""
    return SourceError(
        f"{address} gave no point in time of the index {index}, which the plan reads: "
        "source.collections named it when the plan was made, and an alias or data stream may "
        "have changed since",
        "name the index itself in source.collections and start anew with another target, or let "
        "the alias name it again",
    )


class InexactAnswer(Exception):
    """An answer is JSON whose meaning cannot be kept; ``data`` is the answer."""

    def __init__(self, reason: str, data: bytes) -> None:
        """Keep both in ``args``."""
        super().__init__(reason, data)
        self.reason = reason
        self.data = data


class InvalidAnswer(Exception):
    """An answer is no JSON: it was cut on its way, or something else answered."""
