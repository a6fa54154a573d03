"""What an error of PostgreSQL or of its client means, and how to remedy it.

A server's error has a code (SQLSTATE); an error without one is of the connection.

Source: https://www.postgresql.org/docs/current/errcodes-appendix.html
"""

from __future__ import annotations

from cfray.errors import SourceError, SourceUnavailable
from cfray.runtime.sdk import import_sdk

#: Classes of codes that may pass: connection, resources, intervention of an operator, the system.
_TRANSIENT_CLASSES = ("08", "53", "57", "58")
#: Single codes that may pass: a conflict with the recovery of a standby or a deadlock; a lock that
#: was not to be had in time.
_TRANSIENT_CODES = ("40001", "40P01", "55P03")
#: Codes of those classes that another attempt meets again: a statement that was cancelled because
#: of a limit, a database that was dropped.
_TERMINAL_CODES = ("57014", "57P04", "58P01")
#: Texts in which libpq says that the server does not let us in, though there is no code.
_LOGIN_TEXTS = (
    "password authentication failed",
    "no password supplied",
    "authentication failed",
    "no pg_hba.conf entry",
)
#: Texts in which the server refuses a setting of the connection (PostgreSQL,
#: src/backend/utils/misc/guc.c; PgBouncer).
_OPTION_TEXTS = (
    "unrecognized configuration parameter",
    "invalid value for parameter",
    "permission denied to set parameter",
    "invalid configuration parameter name",
    "cannot be changed",
    "invalid command-line argument",
    "unsupported startup parameter",
)
_ABSENT_DATABASE = "does not exist"
#: Start of a code -> what the operator can do.
_REMEDIES = {
    "28": "set source.api_key to the password of source.url's user, and check that user",
    "3D": "correct the database in source.url",
    "42501": (
        "GRANT SELECT on the tables (and USAGE on their schema) to source.url's user, with "
        "BYPASSRLS where row-level security would hide rows; or name other tables in "
        "source.collections"
    ),
    "42P01": "correct source.collections or source.query in the job file",
    "42703": "correct source.key or source.query in the job file",
    "42601": "correct source.query in the job file: it is one SELECT",
    "25006": "give a SELECT in source.query that writes nothing",
    "57014": "raise the limit that cancels statements of source.url's user",
}


class ConnectionLostError(Exception):
    """The server did not answer in time, or its connection ended within an answer."""


def sqlstate(error: BaseException) -> str:
    """Give the server's code of an error; empty where it has none."""
    return str(getattr(error, "sqlstate", None) or "")


def classify_error(error: Exception, address: str) -> SourceError | None:
    """Say what an error means; None for an error that is neither the server's nor the client's."""
    psycopg = import_sdk("psycopg", "postgres")
    if isinstance(error, ConnectionLostError):
        return _unavailable(address, str(error))
    if not isinstance(error, psycopg.Error):
        return None
    text = " ".join(str(error).split())
    code = sqlstate(error)
    if not code:
        return _classify_connection(text, address)
    if code not in _TERMINAL_CODES and (
        code in _TRANSIENT_CODES or code.startswith(_TRANSIENT_CLASSES)
    ):
        return _unavailable(address, f"{text} ({code})")
    remedy = next(
        (remedy for start, remedy in _REMEDIES.items() if code.startswith(start)),
        "correct source.query, if the message is about it; else see the server's log, and report "
        "it with the server's version",
    )
    return SourceError(f"{address}: {text} ({code})", remedy)


def _classify_connection(text: str, address: str) -> SourceError:
    if any(phrase in text for phrase in _LOGIN_TEXTS):
        return SourceError(f"{address} does not let us in: {text}", _REMEDIES["28"])
    if _ABSENT_DATABASE in text and "database" in text:
        return SourceError(f"{address}: {text}", _REMEDIES["3D"])
    if any(phrase in text for phrase in _OPTION_TEXTS):
        return SourceError(f"{address}: {text}", "correct the options in source.url")
    if "certificate" in text or "SSL" in text:
        return SourceError(
            f"{address}: {text}",
            "name the certificate of the server's authority with source.ca_file",
        )
    return _unavailable(address, text)


def _unavailable(address: str, text: str) -> SourceUnavailable:
    return SourceUnavailable(
        f"{address} did not answer: {text}",
        "check that the server runs and that source.url and source.timeout fit it",
    )
