"""A Chroma persistent directory: copied, and the copy opened in a process of its own.

Opening a directory may migrate it, so the original is only ever read.  Chroma's
engine crashes on a damaged index and panics in ways that are no ``Exception``, so it
lives in another process (``chroma_copy``).  A worker keeps one copy for all its
shards; the copy goes with the worker, however that ends.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from cfray.errors import SourceError, SourceUnavailable
from cfray.runtime import filesystems
from cfray.sources.chroma.client import Refused, Store
from cfray.sources.chroma.copy import DATABASE, STOP, pin_of
from cfray.sources.chroma.types import Model, Place

#: Deletes the copy once the worker is gone and its end of the pipe is closed.  A shell that nobody
#: is the parent of: Ray ends its workers and their children with SIGKILL.
_JANITOR = 'exec 3<&0; (cat <&3 >/dev/null; rm -rf "$0") >/dev/null &'


class Copied(Store):
    """A copy of a persistent directory, as it was when it was pinned."""

    def __init__(self, uri: str, pin: str | None, timeout: float) -> None:
        """Copy the directory, or take the copy that is there.

        Raises:
            SourceError: it is in use, no Chroma directory, or not the pinned one.
        """
        self.uri, self.timeout = uri, timeout
        self.pin = pin or pin_of(uri)
        self.pinned = {"pin": self.pin}
        self.child = _taken(uri, self.pin)

    def close(self) -> None:
        """Leave the copy to the next shard."""
        _left(self.child)

    def answer(
        self,
        place: Place,
        what: str,
        model: Model | None = None,
        body: Mapping[str, object] | None = None,
    ) -> bytes:
        """Ask the process that has the copy open."""
        if self.child.process.poll() is not None:
            _left(self.child)
            self.child = _taken(self.uri, self.pin)
        name = place.collection if model is None else str(model["name"])
        return self.child.ask([place.tenant, place.database, name, what, body], self.timeout)


class Child:
    """The process that owns one copy."""

    def __init__(self, uri: str, pin: str) -> None:
        """Start it, and wait until the copy is made and open."""
        self.key, self.users, self.talking = (uri, pin), 0, threading.Lock()
        self.folder = tempfile.mkdtemp(prefix="cfray-chroma-")
        command = ["/bin/sh", "-c", _JANITOR, self.folder]
        self.janitor = subprocess.Popen(command, stdin=subprocess.PIPE)  # noqa: S603  # our own text
        self.janitor.wait()
        self.log = tempfile.TemporaryFile()  # noqa: SIM115  # it lives as long as the process
        command = [sys.executable, "-m", "cfray.sources.chroma.copy", uri, pin, self.folder]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        }
        self.process = subprocess.Popen(  # noqa: S603  # our own module, and no shell
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            env=environment,
            cwd=tempfile.gettempdir(),
            start_new_session=True,
        )
        self._read(None)

    def ask(self, request: object, timeout: float) -> bytes:
        """Send one request, wait for its answer.

        Refused where Chroma says no, SourceUnavailable where it says nothing in time.
        """
        with self.talking:
            assert self.process.stdin
            try:
                self.process.stdin.write(json.dumps([timeout, request]).encode() + b"\n")
                self.process.stdin.flush()
            except BrokenPipeError:
                self._dead()
            return self._read(timeout)

    def _read(self, timeout: float | None) -> bytes:
        answers = self.process.stdout
        assert answers
        if not select.select([answers], [], [], timeout)[0]:
            self.process.kill()
            self.end()
            raise SourceUnavailable(
                f"the copy of {self.key[0]} gave no answer within {timeout:.0f} s",
                "raise source.timeout",
            )
        head = json.loads(answers.readline() or b"{}")
        body = answers.read(head.get("size", 0))
        if not head or len(body) < head["size"]:
            self._dead()
        if "remedy" in head:
            self.end()
            raise SourceError(body.decode(), head["remedy"])
        if head["status"] != 200:
            raise Refused(head["status"], body.decode())
        return body

    def _dead(self) -> None:
        self.end()
        self.log.seek(0)
        words = self.log.read()[-500:].decode(errors="replace").strip()
        raise SourceError(
            f"the process that reads the copy of {self.key[0]} ended with code {self.process.returncode}: {words}",
            "look into what it said; memory for the whole index and the version of chromadb are what it needs",
        )

    def end(self) -> None:
        """Close its input, wait for its end, delete the copy."""
        for stream in (self.process.stdin, self.process.stdout):
            assert stream
            with suppress(BrokenPipeError):
                stream.close()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)
        assert self.janitor.stdin
        self.janitor.stdin.close()


_lock = threading.Lock()
_kept: list[Child] = []  # the copy that the next shard will want; one at most


def _holders(database: Path) -> Iterator[str]:
    """Name the processes of this machine that have the database open, as far as this user may see.

    (Linux only).
    """
    real = os.path.realpath(database)
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended, or is another user's
            for name in os.listdir(process / "fd"):
                with suppress(OSError):  # it was closed meanwhile
                    if os.readlink(process / "fd" / name) == real:
                        yield process.name


def _taken(uri: str, pin: str) -> Child:
    with _lock:
        for child in _kept:
            if child.key == (uri, pin) and child.process.poll() is None:
                child.users += 1
                return child
        _forget()
        if pin_of(uri) != pin:
            raise SourceError(
                f"{uri} has changed since the plan was made",
                "restore it, or start anew with another target",
            )
        if holder := next(_holders(Path(filesystems.filesystem(uri)[1], DATABASE)), None):
            raise SourceError(f"{uri} is in use by process {holder}", STOP)
        child = Child(uri, pin)
        child.users = 1
        _kept.append(child)
        return child


def _left(child: Child) -> None:
    with _lock:
        child.users -= 1
        if child.users == 0 and child not in _kept:
            child.end()


@atexit.register
def _forget() -> None:
    for child in _kept:
        if child.users == 0:
            child.end()
    _kept.clear()
