"""A connection to PostgreSQL: one read-only transaction, under the run's snapshot where it has one.

psycopg opens the connection; statements go through its ``pq`` layer, whose waiting is ours, so
that a server that does not answer is given up after ``source.timeout``.  Parameters are not used:
COPY takes none.  Every statement goes by the extended protocol, which takes one statement and
refuses several: no text of a job file ends ours and begins another.

Source: https://www.postgresql.org/docs/current/sql-set-transaction.html;
https://www.postgresql.org/docs/current/protocol-flow.html, Extended Query
"""

from __future__ import annotations

import select
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from cfray.errors import SourceError
from cfray.runtime.sdk import import_sdk
from cfray.sources.base import Context
from cfray.sources.postgres.errors import ConnectionLostError, sqlstate
from cfray.sources.postgres.names import quote_text
from cfray.sources.postgres.settings import PostgresSettings

if TYPE_CHECKING:
    from psycopg import Connection as PsycopgConnection

Row = tuple[str | None, ...]

BEGIN = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
#: What texts look like does not depend on the user's or the server's settings, no limit of theirs
#: ends a read, and a policy that hides rows is an error instead of a loss.
_SETTINGS = {
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "iso_8601",
    "TimeZone": "UTC",
    "bytea_output": "hex",
    "extra_float_digits": "3",
    "xmlbinary": "base64",
    "standard_conforming_strings": "on",
    "quote_all_identifiers": "off",
    "row_security": "off",
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    # only PostgreSQL 17 and later have it
    "transaction_timeout": "0",
    # rows come in an order that a repetition repeats
    "synchronize_seqscans": "off",
    "max_parallel_workers_per_gather": "0",
}
#: Codes of a snapshot that is not there any more: unknown, invalid, its transaction has ended.
_LOST_SNAPSHOT_CODES = ("42704", "22023", "55000", "58P01")


class Connection:
    """An open connection; its statements are sent again by nobody but the caller."""

    def __init__(self, settings: PostgresSettings, context: Context) -> None:
        """Keep the settings; nothing is opened yet."""
        self.settings, self.context = settings, context
        self._connection: PsycopgConnection | None = None

    def open(self) -> None:
        """Connect."""
        psycopg = import_sdk("psycopg", "postgres")
        timeout = max(2, int(self.settings.timeout))
        options: dict[str, Any] = {"connect_timeout": timeout, "client_encoding": "UTF8"}
        if self.settings.ca_file:
            options |= {"sslmode": "verify-full", "sslrootcert": self.settings.ca_file}
        elif self.settings.insecure:
            options["sslmode"] = "require"
        secret = self.settings.read_secret()
        if secret is not None:
            options["password"] = secret
        try:
            self._connection = psycopg.connect(self.settings.url or "", autocommit=True, **options)
        except psycopg.ProgrammingError as error:
            raise SourceError(
                f"source.url cannot be read: {error}",
                "write postgresql://user@host:port/database",
            ) from None

    def close(self) -> None:
        """Close the connection, if it is open."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @property
    def _pq(self) -> Any:
        if self._connection is None:
            raise ConnectionLostError("the connection is closed")
        return self._connection.pgconn

    def begin(self) -> None:
        """Begin the transaction, under the run's snapshot where the context has one.

        Raises:
            SourceError: the snapshot is lost, or the server gives another view than the session's.
        """
        snapshot = self.context.session
        self.execute(BEGIN)
        if isinstance(snapshot, dict):
            self._import_snapshot(str(snapshot["snapshot"]))
        self.prepare()
        if isinstance(snapshot, dict):
            view = self.view()
            if view != snapshot["view"]:
                raise SourceError(
                    f"{self.settings.address} reads as of {view}, not as of the session's "
                    f"snapshot {snapshot['view']}",
                    "connect to the server itself, not to a pool of several servers",
                )

    def open_and_begin(self) -> None:
        """Connect anew, and begin the transaction."""
        self.close()
        self.open()
        self.begin()

    def ask(self, statement: str) -> list[Row]:
        """Run a query within the budget; after a transient error again, in a new transaction."""
        has_failed = False

        def attempt() -> list[Row]:
            nonlocal has_failed
            if has_failed:
                self.open_and_begin()
            has_failed = True
            return self.fetch(statement)

        return self.settings.send_request(attempt, self.context)

    def _import_snapshot(self, name: str) -> None:
        try:
            self.execute(f"SET TRANSACTION SNAPSHOT {quote_text(name)}")
        except Exception as error:
            if sqlstate(error) not in _LOST_SNAPSHOT_CODES:
                raise
            raise SourceError(
                f"the snapshot {name} of {self.settings.address} is lost: "
                f"{' '.join(str(error).split())}",
                "run the same command again: it keeps the committed shards and reads the others "
                "under another snapshot; the report then says of how many snapshots the records "
                "are",
            ) from None

    def prepare(self) -> None:
        """Set what texts look like; takes the transaction's snapshot, if it has none yet."""
        settings = _SETTINGS
        if self._pq.parameter_status(b"server_encoding") == b"SQL_ASCII":
            # the bytes as they are: the server would end the read at a text that is not UTF-8
            settings = _SETTINGS | {"client_encoding": "SQL_ASCII"}
        values = ", ".join(
            f"({quote_text(name)}, {quote_text(value)})" for name, value in settings.items()
        )
        self.fetch(
            f"SELECT set_config(n, v, true) FROM (VALUES {values}) AS s(n, v) "
            "WHERE current_setting(n, true) IS NOT NULL"
        )

    def view(self) -> str:
        """Give what the transaction sees: the ids of the transactions that it is between."""
        return str(self.fetch("SELECT pg_current_snapshot()::text")[0][0])

    def execute(self, statement: str) -> None:
        """Run a statement that gives no rows."""
        self._run(statement)

    def fetch(self, statement: str) -> list[Row]:
        """Run a query, and give its rows as texts."""
        result = self._run(statement)
        return [
            tuple(
                None if value is None else self._decode(value)
                for value in (result.get_value(row, column) for column in range(result.nfields))
            )
            for row in range(result.ntuples)
        ]

    def _decode(self, value: bytes) -> str:
        """Read a name or a key; a database in SQL_ASCII may hold any bytes."""
        try:
            return bytes(value).decode()
        except UnicodeDecodeError:
            raise SourceError(
                f"{self.settings.address} has a name, a comment or a key that is not UTF-8: "
                f"{bytes(value)[:80]!r}",
                "where it is a key, set source.partition: blocks; rename a table or column, or "
                "read it through a source.query that renames it",
            ) from None

    def columns(self, relation: str) -> list[tuple[str, int, int]]:
        """Give the columns of a table or query: name, number of the type, its modifier."""
        result = self._run(f"SELECT * FROM {relation} LIMIT 0")
        return [
            (self._decode(result.fname(column)), result.ftype(column), result.fmod(column))
            for column in range(result.nfields)
        ]

    def copy(self, query: str) -> Iterator[bytes]:
        """Give the rows of a query as COPY writes them in binary, one ``bytes`` a message.

        Raises:
            psycopg.Error: the server ended the copy.
            ConnectionLostError: the connection ended, or nothing came in time.
        """
        pq, result = self._pq, self._run(f"COPY ({query}) TO STDOUT (FORMAT binary)")
        copy_out = import_sdk("psycopg.pq", "postgres").ExecStatus.COPY_OUT
        if result.status != copy_out:
            raise AssertionError(f"COPY gave {result.status}")
        while True:
            size, message = pq.get_copy_data(1)
            if size > 0:
                yield bytes(message)
            elif size == 0:
                self._wait()
            else:
                self._finish()
                return

    def _run(self, statement: str) -> Any:
        """Send one statement, and wait for its result."""
        query = self.settings.bare_query
        if query and query in statement:
            # each time, for a query may change a setting by which the server reads texts
            self._check_query(query)
        return self._send(self._pq.send_query_params, statement.encode(), None)

    def _check_query(self, query: str) -> None:
        """Check that the job file's query is one query by itself, before it stands in another.

        What the server parses by itself closes no parenthesis that it did not open, so within the
        parentheses of our statements it stays a query.

        Raises:
            SourceError: it gives no rows, or wants parameters.
            psycopg.Error: it is no statement, or it is several.
        """
        pq = self._pq
        self._send(pq.send_prepare, b"", query.encode())
        described = self._send(pq.send_describe_prepared, b"")
        if described.nparams or not described.nfields:
            problem = "has parameters" if described.nparams else "gives no rows"
            raise SourceError(
                f"source.query {problem}: {query[:200]}",
                "give one SELECT without parameters in source.query",
            )

    def _send(self, send: Callable[..., None], *arguments: object) -> Any:
        """Send a request, and wait for its result."""
        pq = self._pq
        send(*arguments)
        while pq.flush():
            self._wait(for_writing=True)
        return self._finish()

    def _finish(self) -> Any:
        """Wait for the result of the statement that was sent; the last of several."""
        pq = self._pq
        status = import_sdk("psycopg.pq", "postgres").ExecStatus
        result = None
        while True:
            while pq.is_busy():
                self._wait()
            following = pq.get_result()
            if following is None:
                break
            result = following
            if result.status == status.COPY_OUT:
                return result
        if result is None:
            raise ConnectionLostError("the connection ended within an answer")
        if result.status not in (status.COMMAND_OK, status.TUPLES_OK):
            raise self._error(result)
        return result

    def _error(self, result: Any) -> Exception:
        errors = import_sdk("psycopg.errors", "postgres")
        fields = import_sdk("psycopg.pq", "postgres").DiagnosticField
        code = result.error_field(fields.SQLSTATE)
        message = result.error_message.decode(errors="replace").strip()
        if code is None:
            return ConnectionLostError(message or "the connection ended within an answer")
        try:
            error_class = errors.lookup(code.decode())
        except KeyError:
            error_class = import_sdk("psycopg", "postgres").DatabaseError
        error = error_class(message)
        error.sqlstate = code.decode()
        return cast("Exception", error)

    def _wait(self, *, for_writing: bool = False) -> None:
        """Wait until the socket is ready, and take in what has come."""
        pq = self._pq
        poller = select.poll()
        poller.register(pq.socket, select.POLLOUT if for_writing else select.POLLIN)
        if not poller.poll(self.settings.timeout * 1000):
            raise ConnectionLostError(f"nothing came within {self.settings.timeout:g} s")
        pq.consume_input()


@contextmanager
def open_connection(settings: PostgresSettings, context: Context) -> Iterator[Connection]:
    """Open a connection within a transaction, and close it at the end."""
    connection = Connection(settings, context)
    try:
        settings.send_request(connection.open_and_begin, context)
        yield connection
    finally:
        connection.close()
