"""The worker's end of the process that owns the copy of a Chroma directory.

Chroma's engine crashes on a damaged index, and panics in ways that are no ``Exception``:
another process (``copy.py``) takes the crash, and the worker gets an error that it can
report.  However the worker ends, the copy is deleted.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from typing import NoReturn

from cfray.errors import SourceError, SourceUnavailable
from cfray.sources.chroma.errors import ErrorAnswer

#: Deletes the copy once the worker has ended, which closes its end of the pipe.  The shell has no
#: parent, because Ray ends its workers and their children with SIGKILL.
_DELETE_AT_END = 'exec 3<&0; (cat <&3 >/dev/null; rm -rf "$0") >/dev/null &'
#: Seconds that the process may take to end after its input was closed.
_END_SECONDS = 30


class CopyProcess:
    """A process with a copy of a directory, and the folder of that copy.

    Attributes:
        key: URI and pin of the directory.
        users: readers that use the process now.
        process: the process itself.
    """

    def __init__(self, uri: str, pin: str) -> None:
        """Start the process, and wait until the copy is made and open."""
        self.key, self.users = (uri, pin), 0
        self._request_lock = threading.Lock()
        self._folder = tempfile.mkdtemp(prefix="cfray-chroma-")
        self._janitor = subprocess.Popen(  # noqa: S603  # a text of ours
            ["/bin/sh", "-c", _DELETE_AT_END, self._folder], stdin=subprocess.PIPE
        )
        self._janitor.wait()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # it lives as long as the process
        self.process = subprocess.Popen(  # noqa: S603  # a module of ours, and no shell
            [sys.executable, "-m", "cfray.sources.chroma.copy", uri, pin, self._folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            cwd=tempfile.gettempdir(),
            start_new_session=True,
        )
        self._read_answer(None)

    @property
    def is_running(self) -> bool:
        """Tell whether the process can still answer."""
        return self.process.poll() is None

    def send(self, request: object, timeout: float) -> bytes:
        """Send one request, and wait for its answer.

        Raises:
            ErrorAnswer: Chroma refuses.
            SourceError: the process has ended.
            SourceUnavailable: no answer came within ``timeout`` seconds.
        """
        with self._request_lock:
            assert self.process.stdin
            try:
                self.process.stdin.write(json.dumps([timeout, request]).encode() + b"\n")
                self.process.stdin.flush()
            except BrokenPipeError:
                self._raise_ended()
            return self._read_answer(timeout)

    def _read_answer(self, timeout: float | None) -> bytes:
        answers = self.process.stdout
        assert answers
        if not select.select([answers], [], [], timeout)[0]:
            self.process.kill()
            self.end()
            raise SourceUnavailable(
                f"the copy of {self.key[0]} gave no answer within {timeout:.0f} s",
                "raise source.timeout",
            )
        header = json.loads(answers.readline() or b"{}")
        body = answers.read(header.get("size", 0))
        if not header or len(body) < header["size"]:
            self._raise_ended()
        if "remedy" in header:
            self.end()
            raise SourceError(body.decode(), header["remedy"])
        if header["status"] != 200:
            raise ErrorAnswer(header["status"], body.decode())
        return body

    def _raise_ended(self) -> NoReturn:
        self.end()
        self._log.seek(0)
        last_words = self._log.read()[-500:].decode(errors="replace").strip()
        raise SourceError(
            f"the process that reads the copy of {self.key[0]} ended with code "
            f"{self.process.returncode}: {last_words}",
            "look into its last words; it needs memory for the whole index, "
            "and a version of chromadb that can read the directory",
        )

    def end(self) -> None:
        """Close the input of the process, wait until it has ended, and delete the copy."""
        for stream in (self.process.stdin, self.process.stdout):
            assert stream
            with suppress(BrokenPipeError):
                stream.close()
        try:
            self.process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)
        assert self._janitor.stdin
        self._janitor.stdin.close()
