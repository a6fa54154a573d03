"""The run's snapshot: one transaction on the driver that exports it, and holds it until the end.

An exported snapshot lives exactly as long as the transaction that exported it.  The transaction
also locks the tables against TRUNCATE, DROP, ALTER and VACUUM FULL (``ACCESS SHARE``, as pg_dump
does): a snapshot does not protect from those, and a truncated table would read as empty.

Source: https://www.postgresql.org/docs/current/functions-admin.html, Snapshot Synchronization
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from cfray.errors import SourceError
from cfray.sources.base import Context, Session
from cfray.sources.postgres.client import Connection
from cfray.sources.postgres.settings import PostgresSettings

#: Seconds after which a holder that cannot be reached counts as lost.  The server itself lets a
#: snapshot go as soon as it sees the connection end.
_EXPIRES = 60.0

#: Session id -> the transaction that holds its snapshot, of the sessions open in this process.
_holders: dict[str, _Holder] = {}


class _Holder:
    """The open transaction of a session; two threads may ask it."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.lock = threading.Lock()


@contextmanager
def hold_snapshot(settings: PostgresSettings, relations: Sequence[str]) -> Iterator[Session]:
    """Export a snapshot, and hold it for the block.

    Args:
        settings: of the source.
        relations: the tables and views to lock, quoted.

    Raises:
        SourceError: the server refuses, or a lock was not to be had within ``source.timeout``.
    """
    context = Context()
    connection = Connection(settings, context)

    def begin() -> tuple[str, str]:
        connection.close()
        connection.open()
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        # before the first query, which takes the snapshot: no table changes its form in between
        # the server gives up before we do, and says why
        connection.execute(f"SET LOCAL lock_timeout = {max(1, int(settings.timeout * 500))}")
        if relations:
            connection.execute(f"LOCK TABLE {', '.join(relations)} IN ACCESS SHARE MODE")
        connection.prepare()
        name = str(connection.fetch("SELECT pg_export_snapshot()")[0][0])
        return name, connection.view()

    session_id = ""
    try:
        name, view = settings.send_request(begin, context)
        session_id = f"{name}.{uuid.uuid4().hex[:8]}"
        _holders[session_id] = _Holder(connection)
        yield Session(
            session_id,
            consistency="snapshot",
            expires=_EXPIRES,
            state={"snapshot": name, "view": view},
        )
    finally:
        _holders.pop(session_id, None)
        connection.close()


def check_snapshot(settings: PostgresSettings, session: Session) -> None:
    """Ask the transaction that holds a session's snapshot whether it lives.

    Raises:
        SourceError: it does not; its snapshot is lost.
    """
    holder = _holders.get(session.id)
    if holder is None:
        return
    with holder.lock:
        try:
            holder.connection.fetch("SELECT 1")
        except Exception as error:
            source_error = settings.classify_error(error)
            if source_error is None:
                raise
            # the transaction cannot be entered again: whatever ended it ended the snapshot
            raise SourceError(
                f"the transaction that holds the snapshot has ended: {source_error.what}",
                "see the server's log; idle_in_transaction_session_timeout, a restart, a pooler or "
                "a firewall may end it",
            ) from None
