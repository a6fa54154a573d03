"""A source's session, held open by the driver from its first use until it is closed.

One command has one session at a time, whoever asks for it first.  Where the store lets a
session go that it does not hear of, a thread keeps it alive.  A session that is lost all the
same ends the run; it is never replaced in silence, for the shards would then be of two
states of the source.
"""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from types import TracebackType

from cfray.errors import CfrayError, SourceError, SourceUnavailable
from cfray.sources.base import Session, Source

#: A session is kept alive each third of the time in which it expires: two attempts may fail.
_INTERVALS = 3
#: While the store does not answer it is asked so many times in that time.
_ATTEMPTS = 30
#: Seconds that closing waits for an answer of the store to the thread: Ctrl-C stops a run within
#: two seconds.  The thread ends with that answer, and asks nothing more.
_PATIENCE = 1.0


class SourceSession:
    """The session of a command; as a context it is open for the block."""

    def __init__(self, source: Source) -> None:
        """Open nothing yet."""
        self._source = source
        self._session: Session | None = None
        self._keeper: _Keeper | None = None
        self._held = ExitStack()

    def open(self) -> Session:
        """Enter the source's session, or give the one that is open.

        Raises:
            SourceError: the store refused it, or the one that is open is lost.
            SourceUnavailable: the store did not answer.
        """
        self.check()
        if self._session is None:
            with ExitStack() as held:
                session = held.enter_context(self._source.session())
                if session.expires is not None:
                    self._keeper = _Keeper(self._source, session, session.expires)
                    held.callback(self._keeper.stop)
                    self._keeper.start()
                self._held = held.pop_all()
            self._session = session
        return self._session

    @property
    def is_lost(self) -> bool:
        """Tell whether the open session is known to be lost."""
        return self._keeper is not None and self._keeper.loss is not None

    def check(self) -> None:
        """Return if nothing is known against the session.

        Raises:
            SourceError: it is lost; names it, and says what the next run does.
        """
        if self._keeper is not None and self._keeper.loss is not None:
            raise self._keeper.loss

    def close(self) -> None:
        """Leave the session, if one is open.

        Raises:
            SourceError: the store could not release what the session held.
        """
        self._session = self._keeper = None
        self._held.pop_all().close()

    def __enter__(self) -> Session:
        """Open the session for a block."""
        return self.open()

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        """Close the session.

        Raises:
            SourceError: the block ended with an error of the source, and the session is lost: that
                is said in its place.
        """
        try:
            if isinstance(error, SourceError) and self._keeper is not None:
                self._keeper.ask()
                if self._keeper.loss not in (None, error):
                    raise self._keeper.loss from error
        finally:
            self.close()


class _Keeper:
    """Keeps a session alive from a thread.

    Attributes:
        loss: why the session is lost, or the fault that ended the thread; None while it lives.
    """

    def __init__(self, source: Source, session: Session, expires: float) -> None:
        self._source, self._session, self._expires = source, session, expires
        self.loss: Exception | None = None
        self._heard_at = time.monotonic()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="cfray-session", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join(_PATIENCE)

    def _keep(self) -> None:
        pause = self._expires / _INTERVALS
        while self.loss is None and not self._stopped.wait(pause):
            pause = self._expires / (_INTERVALS if self.ask() else _ATTEMPTS)

    def ask(self) -> bool:
        """Keep the session alive once; give whether the store answered."""
        asked_at = time.monotonic()
        try:
            self._source.keep_alive(self._session)
        except SourceUnavailable as error:
            if asked_at - self._heard_at >= self._expires:
                self.loss = self.loss or self._lost(error)
            return False
        except SourceError as error:
            self.loss = self.loss or self._lost(error)
        except Exception as error:  # noqa: BLE001  # a fault, which the driver raises
            self.loss = self.loss or error
        self._heard_at = asked_at
        return True

    def _lost(self, error: CfrayError) -> SourceError:
        session = self._session
        lost = SourceError(
            f"the session {session.id} of {self._source.address}, begun at {session.began}, is "
            f"lost: {error.what}",
            "run the same command again: it keeps the committed shards and reads the others under "
            "another session; the report then says of how many snapshots the records are",
        )
        lost.__cause__ = error
        return lost
