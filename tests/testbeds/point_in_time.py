"""A store that is read at a point in time, and lets it go when nobody keeps it alive.

A folder is the store.  ``records.json`` has its records, ``views`` a copy for each open point in
time, and ``log`` a line for whatever the store was asked for.  Its clock is the files of a test: a
slow store gives a page when it has heard a further keep-alive, and a file in ``scripts`` says at
which page a point in time ends.  So nothing here depends on how fast a machine is.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pyarrow as pa

from cfray.errors import SourceError
from cfray.sources.base import Context, Description, Session, Shard, Source
from tests.testbeds.processes import until

#: Pages of a shard, and records of a page.
PAGES, PAGE_ROWS = 2, 3


class PointInTime(Source):
    """A shard for each letter; the records of a page are ``a-0-0``, ``a-0-1``, ``a-0-2``.

    Attributes:
        slow: a page takes until the store has heard a further keep-alive.
    """

    kind: Literal["point-in-time"] = "point-in-time"
    folder: str
    letters: str = "abc"
    expires: float = 0.15
    slow: bool = False

    @property
    def address(self) -> str:
        return f"store://{Path(self.folder).name}"

    @property
    def is_remote(self) -> bool:
        return True

    # what a test does with the store

    def write(self, text: str) -> None:
        """Give every record a text that ends with this one."""
        for name in ("views", "scripts"):
            Path(self.folder, name).mkdir(exist_ok=True)
        ids = [
            f"{letter}-{page}-{row}"
            for letter in self.letters
            for page in range(PAGES)
            for row in range(PAGE_ROWS)
        ]
        Path(self.folder, "records.json").write_text(
            json.dumps({id_: f"{id_} {text}" for id_ in ids})
        )

    def script(
        self, event: Literal["expires", "is lost"], page: str, *, in_plan: bool = False
    ) -> None:
        """Say what happens to the point in time, once, when a page such as ``b-1`` is asked for.

        The plan reads every page for its sample, before the copy does.  While shards are copied
        it happens when the test says, with the file ``committed``, that one is committed.

        ``expires``: no page is given any more.  ``is lost``: the store gives pages, but of which
        moment nobody knows: it refuses to keep the point in time alive.
        """
        moment = "plan" if in_plan else "copy"
        Path(self.folder, "scripts", f"{moment}-{page}").write_text(event)

    def log(self, word: str = "") -> list[str]:
        """List what the store was asked for, or the questions that begin with a word."""
        path = Path(self.folder, "log")
        lines = path.read_text().splitlines() if path.exists() else []
        return [line for line in lines if line.startswith(word)]

    # what cfray does with it

    @contextmanager
    def session(self) -> Iterator[Session]:
        if not Path(self.folder, "records.json").exists():
            raise SourceError(f"nobody answers at {self.folder}", "start the store")
        number = len(self.log("open"))
        name = f"view-{number}"
        view = self._view(name)
        view.write_bytes(Path(self.folder, "records.json").read_bytes())
        self._note("open", name)
        try:
            yield Session(
                name,
                began=f"2026-11-28T20:{number:02d}:00Z",
                consistency="snapshot",
                expires=self.expires,
                state={"view": name},
            )
        finally:
            view.unlink(missing_ok=True)
            self._note("close", name)

    def keep_alive(self, session: Session) -> None:
        if not self._view(session.id).exists() or self._lost(session.id).exists():
            self._note("refuse", session.id)
            raise self._gone(session.id)
        self._note("keep", session.id)

    def shards(self, context: Context) -> list[Shard]:
        return [Shard(letter, {}, rows=PAGES * PAGE_ROWS) for letter in self.letters]

    def describe(self, context: Context, shards: list[Shard]) -> Description:
        return Description(None, len(shards) * PAGES * PAGE_ROWS, True, 0, "per-shard live")

    def read(self, shard: Shard, context: Context) -> Iterator[pa.RecordBatch]:
        name = context.session["view"]
        for page in range(PAGES):
            self._happen(f"{shard.id}-{page}", name)
            if self.slow:
                heard = len(self.log("keep"))
                until(lambda heard=heard: len(self.log("keep")) > heard, "the session is kept")
            if not self._view(name).exists():
                raise self._gone(name)
            self._note("read", name, f"{shard.id}-{page}")
            records = json.loads(self._view(name).read_text())
            ids = [name for name in records if name.startswith(f"{shard.id}-{page}-")]
            texts = [records[name] for name in ids]
            yield pa.RecordBatch.from_pydict({"id": ids, "text": texts})

    def count(self, context: Context) -> int | None:
        name = context.session["view"]
        self._note("count", name)
        return len(json.loads(self._view(name).read_text()))

    def _happen(self, page: str, name: str) -> None:
        is_read = any(line.endswith(f" {page}") for line in self.log("read"))
        script = Path(self.folder, "scripts", f"{'copy' if is_read else 'plan'}-{page}")
        if not script.exists():
            return
        event = script.read_text()
        script.unlink()
        if is_read:
            until(Path(self.folder, "committed").exists, "the shard before is committed")
        if event == "expires":
            self._view(name).unlink()
        else:
            self._lost(name).touch()
            until(lambda: self.log("refuse"), "the driver was told")

    def _view(self, name: str) -> Path:
        return Path(self.folder, "views", f"{name}.json")

    def _lost(self, name: str) -> Path:
        return Path(self.folder, "views", f"{name}.lost")

    def _gone(self, name: str) -> SourceError:
        return SourceError(f"the store has no point in time {name}", "open another one")

    def _note(self, *words: str) -> None:
        line = f"{' '.join(words)}\n".encode()
        log = os.open(Path(self.folder, "log"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(log, line)  # at once: several processes write
        os.close(log)
