"""Attempt ranged items in processes that really die.

The test of ranges starts this file and says, a JSON document a line, what to attempt; the answer,
a line as well, is what the attempt did until it ended or was stopped.  Each attempt is a process
of its own, as after the death of an actor: a fork, because pyarrow takes a while to import.
"""

import json
import os
import signal
import sys

from cfray.embedding import ranges
from cfray.embedding.ranges import RangedItem
from cfray.errors import CfrayError, EmbeddingUnavailable
from cfray.runtime import filesystems
from cfray.runtime.filesystems import Folder

#: The lines of these files are counted, and an attempt may die or stop at any of them.
COUNTED = {ranges.__file__, filesystems.__file__, __file__}


class Work:
    """Writes row numbers; some rows, or a dead model, kill the process."""

    def __init__(self, order, say):
        self.order, self.say = order, say

    def compute(self, first, rows):
        self.say("compute", first, rows)
        span = range(first, first + rows)
        if self.order["is_model_dead"]:
            os.kill(os.getpid(), signal.SIGKILL)
        for row in self.order["deadly"]:
            if row in span:
                end_process(row)
        if any(row in span for row in self.order["failing"]):
            raise EmbeddingUnavailable("the server is busy", "try again")
        return json.dumps(list(span)).encode()

    def refuse(self, row, reason):
        self.say("refuse", row, reason)
        return json.dumps({"refused": row}).encode()

    def embed_another(self, row):
        self.say("another", row)
        if self.order["is_model_dead"] or self.order["is_another_deadly"]:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.order["is_another_failing"]:
            raise EmbeddingUnavailable("the server is busy", "try again")


def end_process(row):
    """End as after a crash in native code, or as the kernel ends who takes too much memory."""
    if row % 2:
        os._exit(139)
    os.kill(os.getpid(), signal.SIGKILL)


def at_line(number, act):
    """Act when this many lines were executed."""
    executed = 0

    def trace_line(frame, event, argument):
        nonlocal executed
        if event == "line":
            executed += 1
            if executed == number:
                act()
        return trace_line

    def trace_call(frame, event, argument):
        return trace_line if frame.f_code.co_filename in COUNTED else None

    sys.settrace(trace_call)


class Attempt:
    """A process that attempts an item; what it says comes through a pipe."""

    def __init__(self, order):
        words, says = os.pipe()
        go, goes = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            os.close(words)
            os.close(goes)
            self.run(order, says, go)
        os.close(says)
        os.close(go)
        self.words, self.goes = os.fdopen(words), goes

    def run(self, order, says, go):
        """Attempt the item; body of the process."""

        def say(*words):
            os.write(says, json.dumps(words).encode() + b"\n")

        def stop():
            say("stopped")
            os.read(go, 1)

        folder, epoch = Folder(order["folder"]), order["epoch"]
        item = RangedItem(folder, order["name"], order["rows"], epoch=epoch)
        work = Work(order, say)
        try:
            if order["die_at"]:
                at_line(order["die_at"], lambda: os.kill(os.getpid(), signal.SIGKILL))
            if order["stop_at"]:
                at_line(order["stop_at"], stop)
            files = item.run(work)
            sys.settrace(None)
            say("files", [[file.first, file.rows, file.name] for file in files])
        except CfrayError as error:
            sys.settrace(None)
            say("error", type(error).__name__, error.what, error.remedy)
        finally:
            os._exit(0)

    def hear(self):
        """Give what the process says until it stops, or is gone."""
        heard = []
        for line in self.words:
            heard.append(json.loads(line))
            if heard[-1] == ["stopped"]:
                return heard
        self.words.close()
        os.close(self.goes)
        os.waitpid(self.pid, 0)
        return heard

    def go_on(self):
        """Let a stopped process go on."""
        os.write(self.goes, b".")


def main():
    """Answer each order."""
    stopped = None
    for line in sys.stdin:
        order = json.loads(line)
        if order == "go on":
            stopped.go_on()
            heard = stopped.hear()
        else:
            attempt = Attempt(order)
            heard = attempt.hear()
            if heard and heard[-1] == ["stopped"]:
                stopped = attempt
        print(json.dumps(heard), flush=True)


if __name__ == "__main__":
    main()
