"""Texts of documents, made by a process beside this one that may stall, die or take all memory.

The process is kept for the documents of a shard and started anew after a death.  A document that
makes no text in its time and memory is a problem of that document; nothing here waits for ever.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self

from cfray.errors import SourceError, SourceUnavailable

#: Seconds in which the process must have started.
_START_SECONDS = 60
#: Seconds in which a process that has closed its pipe must have ended.
_DYING_SECONDS = 10
#: Documents after which the process is started anew, for a library may lose memory with each.
_MOST_DOCUMENTS = 500
#: Threads and memory arenas take address space, of which a document is allowed only so much.
_ENVIRONMENT = {
    "MALLOC_ARENA_MAX": "2",
    "RAYON_NUM_THREADS": "1",
    "TOKIO_WORKER_THREADS": "1",
    "OMP_NUM_THREADS": "1",
}


@dataclass(frozen=True, slots=True)
class Extracted:
    """What came of a document.

    Attributes:
        text: empty where there is none.
        title: empty where there is none.
        properties: what the document says of itself (parsed JSON).
        problem: why there is no text; empty where there is one.
    """

    text: str = ""
    title: str = ""
    properties: dict[str, object] = field(default_factory=dict)
    problem: str = ""


class _Died(Exception):
    """The process ended, or was ended, in the middle of a document."""


class Extractor:
    """The extractor's process; to be used in a ``with``.

    Attributes:
        seconds: that a document may take.
        memory: bytes that a document may take.
        max_text: bytes of text above which a document is no record.
    """

    def __init__(self, seconds: float, memory: int, max_text: int) -> None:
        """Start nothing yet."""
        self.seconds, self.memory, self.max_text = seconds, memory, max_text
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = ""
        self._served = 0

    def __enter__(self) -> Self:
        """Give itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the process."""
        self._end()
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)

    def extract(self, data: bytes, mime: str) -> Extracted:
        """Make the text of a document.

        Raises:
            SourceError: the extractor is not installed.
            SourceUnavailable: its process does not start.
        """
        is_fresh = self._served == 0
        answer = self._try(data, mime)
        if not is_fresh and answer.get("worn"):
            # an earlier document may have left it with little memory
            answer = self._try(data, mime)
        if "missing" in answer:
            raise SourceError(
                f"the extractor of documents is not installed here: {answer['missing']}",
                "install it on every node (pip install 'cfray[documents]'), or write "
                "source.extract: none, and another target, to keep documents as they are",
            )
        if problem := answer.get("problem"):
            return Extracted(problem=str(problem))
        text = str(answer["text"])
        if len(text) > self.max_text or len(text.encode()) > self.max_text:
            return Extracted(problem=f"its text is over limits.max_document ({self.max_text})")
        return Extracted(text, str(answer["title"]), dict(answer["properties"]))

    def _try(self, data: bytes, mime: str) -> dict[str, Any]:
        if self._served >= _MOST_DOCUMENTS:
            self._end()
        process = self._process or self._start()
        self._served += 1
        request = {
            "size": len(data),
            "mime": mime,
            "seconds": self.seconds,
            "memory": self.memory,
        }
        header = json.dumps(request).encode() + b"\n"
        try:
            answer = self._exchange(process, [header, data], self.seconds)
        except TimeoutError:
            self._end()
            return self._too_slow()
        except _Died:
            code = self._end(is_dying=True)
            if code == -signal.SIGALRM:
                return self._too_slow()
            return {"problem": f"it ended the extractor, {_how(code)}", "worn": True}
        if answer.get("worn"):
            self._end()
        return answer

    def _too_slow(self) -> dict[str, Any]:
        return {"problem": f"no text after {self.seconds:g} s (source.extract_seconds)"}

    def _exchange(
        self, process: subprocess.Popen[bytes], request: list[bytes], seconds: float
    ) -> dict[str, Any]:
        """Write a request and read the answer; end the process when the time is over."""
        assert process.stdin is not None
        assert process.stdout is not None
        is_over = threading.Event()

        def give_up() -> None:
            is_over.set()
            _kill(process)

        timer = threading.Timer(seconds, give_up)
        timer.daemon = True
        timer.start()
        try:
            for part in request:
                process.stdin.write(part)
            process.stdin.flush()
            line = process.stdout.readline()
            # as long as the largest text in JSON, where a character may take 12 bytes
            size = int(line or 0)
            data = process.stdout.read(size) if size <= 12 * self.max_text + 2**20 else b""
        except (OSError, ValueError):
            line, size, data = b"", 0, b""
        finally:
            timer.cancel()
        if is_over.is_set():
            raise TimeoutError
        if size and not data:
            self._end()
            return {"problem": f"its text is over limits.max_document ({self.max_text})"}
        if not line or len(data) != size:
            raise _Died
        answer: dict[str, Any] = json.loads(data)
        return answer

    def _start(self) -> subprocess.Popen[bytes]:
        self._folder = self._folder or tempfile.mkdtemp(prefix="cfray-extractor-")
        environment = {
            **os.environ,
            **_ENVIRONMENT,
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            # the extractor unpacks a library there, and everybody may write to /tmp
            "TMPDIR": self._folder,
        }
        try:
            process = subprocess.Popen(  # a module of ours, and no shell
                [sys.executable, "-P", "-m", "cfray.sources.filesystem.child"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
                cwd=self._folder,
                start_new_session=True,
            )
        except OSError as error:
            raise _no_start(str(error)) from error
        self._process, self._served = process, 0
        try:
            self._exchange(process, [], _START_SECONDS)
        except (TimeoutError, _Died) as error:
            raise _no_start(_how(self._end(is_dying=True))) from error
        return process

    def _end(self, *, is_dying: bool = False) -> int:
        """End the process, if there is one, and give how it ended.

        Args:
            is_dying: whether it ends by itself; how it does says more than our signal.
        """
        process, self._process, self._served = self._process, None, 0
        if process is None:
            return 0
        if is_dying:
            with suppress(subprocess.TimeoutExpired):
                process.wait(_DYING_SECONDS)
        _kill(process)
        code = process.wait()
        for pipe in (process.stdin, process.stdout):
            with suppress(OSError):
                assert pipe is not None
                pipe.close()
        return code


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End the process and what it has started: it leads a group of its own."""
    if process.returncode is None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)


def _how(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = str(-code)
    # what of it is written in C or Rust ends so where it is given no memory
    is_memory = -code in (signal.SIGABRT, signal.SIGSEGV, signal.SIGKILL)
    return f"signal {name}{', perhaps for want of source.extract_memory' if is_memory else ''}"


def _no_start(detail: str) -> SourceUnavailable:
    return SourceUnavailable(
        f"the extractor's process did not start: {detail}",
        "check that this machine has memory and processes left, then run the same command again",
    )
