"""What the errors of MongoDB's client mean: terminal or transient.

The server's errors have numbers that do not change between versions.

Source: https://github.com/mongodb/mongo/blob/master/src/mongo/base/error_codes.yml
"""

from __future__ import annotations

from cfray.errors import SourceError, SourceUnavailable

_CORRECT_KEY = (
    "correct source.username, source.auth_source and what source.api_key names: the user must be "
    "able to read these databases (role read or readAnyDatabase)"
)
_CHECK_SERVER = (
    "check that the deployment answers and that source.url is right, then run the same command "
    "again"
)
_NEW_SNAPSHOT = (
    "run the same command again: it keeps the committed shards and reads the others under another "
    "snapshot; let the deployment keep snapshots longer with the parameter "
    "minSnapshotHistoryWindowInSeconds, or read with source.consistency: live"
)
_NO_SNAPSHOT = (
    "set source.consistency: live, or read from a replica set or sharded cluster of version 5.0 "
    "or later"
)
#: Unauthorized, AuthenticationFailed, Atlas' own refusal.
_NO_ACCESS = frozenset({13, 18, 8000})
#: SnapshotTooOld.
_SNAPSHOT_TOO_OLD = 239
#: NotAReplicaSet, InvalidOptions, ReadConcernMajorityNotEnabled, SnapshotUnavailable where it is
#: not transient.
_NO_SNAPSHOT_CODES = frozenset({123, 72, 148})
#: Errors that another attempt may not meet: elections, shutdowns, timeouts, lost cursors, stale
#: routing, load shedding.
_TRANSIENT = frozenset(
    {6, 7, 24, 43, 50, 63, 89, 91, 112, 133, 134, 150, 175, 189, 234, 246, 251, 262, 290, 317, 384}
    | {409, 462, 463, 9001, 10107, 11600, 11601, 11602, 13388, 13435, 13436}
)


def classify_error(error: Exception, address: str) -> SourceError | None:
    """Say what an error of the client means.

    Args:
        error: as the client raised it.
        address: of the deployment, for the message.

    Returns:
        The error to raise instead, or None where the deployment did not cause it.
    """
    from bson.errors import InvalidBSON
    from pymongo import errors as mongo

    # the client adds the whole answer, or the state of all servers
    text = str(error).partition(", full error: ")[0].partition(", Timeout: ")[0]
    message = f"{address}: {text[:500]}"
    if isinstance(error, mongo.OperationFailure):
        return _classify_refusal(error.code, message)
    if isinstance(error, mongo.ConfigurationError | mongo.InvalidURI):
        return SourceError(
            message,
            "correct source.url: mongodb://host:port or mongodb+srv://host, and its options",
        )
    if isinstance(error, mongo.ConnectionFailure):
        if "CERTIFICATE_VERIFY_FAILED" in str(error).upper().replace(" ", "_"):
            return SourceError(
                message,
                "name the certificate to trust in source.ca_file, or set source.insecure: true",
            )
        return SourceUnavailable(message, _CHECK_SERVER)
    if isinstance(error, mongo.PyMongoError | InvalidBSON):
        return SourceUnavailable(message, _CHECK_SERVER)
    return None


def _classify_refusal(code: int | None, message: str) -> SourceError:
    """Say what an error that the server reports means."""
    if code in _NO_ACCESS:
        return SourceError(message, _CORRECT_KEY)
    if code == _SNAPSHOT_TOO_OLD:
        return SourceError(f"{message} (the snapshot of this run is lost)", _NEW_SNAPSHOT)
    if code in _NO_SNAPSHOT_CODES and "snapshot" in message.lower():
        return SourceError(message, _NO_SNAPSHOT)
    if code in _TRANSIENT:
        return SourceUnavailable(message, _CHECK_SERVER)
    return SourceError(
        message,
        "correct source.url and source.collections, and check that the deployment is MongoDB 4.4 "
        "or later",
    )


def no_snapshot(address: str) -> SourceError:
    """Say that a server did not give the snapshot that was asked for."""
    return SourceError(
        f"{address}: source.consistency asks for a snapshot, and the server's answer names no time "
        "of one",
        _NO_SNAPSHOT,
    )
