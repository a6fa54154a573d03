"""One live display of a run on stderr; plain lines where stderr is no terminal.

The driver feeds it the receipts it commits.  While shards are copied it shows
records, rate, time left and each stage's share of the workers' time; later it
shows the step that is running.  stdout belongs to the command's result.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.text import Text

from cfray.runtime.plurals import counted
from cfray.target.receipts import ShardReceipt

logger = logging.getLogger("cfray")
#: Seconds between two plain lines.
_LINE_INTERVAL = 10.0


class Progress:
    """How far one run is."""

    def __init__(self, console: Console, *, quiet: bool = False) -> None:
        """Draw on this console; ``quiet`` draws nothing."""
        self.console, self.quiet = console, quiet
        self.live: Live | None = None
        self.total_rows: int | None = None
        self.total_is_exact = True
        self.rows = self.shards = self.shard_count = 0
        #: Records that earlier runs copied or staged: no part of this run's rate.
        self.earlier_rows = 0
        self.stage_seconds: dict[str, float] = {}
        #: Of the embedding; no piece before it begins.
        self.pieces = self.computed_pieces = self.earlier_pieces = 0
        #: When the first piece of this run was computed: before it, actors load their models.
        self.first_piece = 0.0
        self.begin = self.last_line = time.monotonic()
        #: Name of the step that follows the copy, and when it began; None while shards are copied.
        self.current_step: tuple[str, float] | None = None

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Keep the display up for the block."""
        if self.quiet or not self.console.is_terminal:
            yield
            return
        self.live = Live(
            console=self.console,
            refresh_per_second=4,
            transient=True,
            get_renderable=lambda: Text(self.line()),
        )
        with self.live:
            try:
                yield
            finally:
                self.live = None

    def start(
        self,
        total_rows: int | None,
        *,
        exact: bool,
        shards: int,
        committed_shards: int,
        committed_rows: int,
    ) -> None:
        """Begin the copy: state how much is planned and how much an earlier run committed."""
        self.total_rows, self.total_is_exact, self.shard_count = total_rows, exact, shards
        self.shards, self.rows, self.earlier_rows = committed_shards, committed_rows, committed_rows
        self.begin = time.monotonic()

    def adopt(self, receipt: ShardReceipt) -> None:
        """Count a shard that an earlier run staged: it costs this run no reading."""
        self.earlier_rows += receipt.read
        self._count(receipt)

    def add(self, receipt: ShardReceipt) -> None:
        """Count a shard that this run copied."""
        self._count(receipt)
        for stage, seconds in receipt.seconds.items():
            self.stage_seconds[stage] = self.stage_seconds.get(stage, 0.0) + seconds
        logger.info(
            "staged shard=%s rows=%d quarantined=%d seconds=%.2f",
            receipt.shard,
            receipt.read,
            receipt.quarantined,
            sum(receipt.seconds.values()),
        )

    def _count(self, receipt: ShardReceipt) -> None:
        self.rows += receipt.read
        self.shards += 1
        if self.live is None and time.monotonic() - self.last_line > _LINE_INTERVAL:
            self.say(self.line())

    def start_pieces(self, pieces: int, computed: int) -> None:
        """Begin the embedding: state how many pieces there are, and how many are computed."""
        self.pieces, self.computed_pieces, self.earlier_pieces = pieces, computed, computed

    def add_piece(self) -> None:
        """Count a piece whose vectors were computed."""
        self.computed_pieces += 1
        if self.computed_pieces == self.earlier_pieces + 1:
            self.first_piece = time.monotonic()
        if self.live is None and time.monotonic() - self.last_line > _LINE_INTERVAL:
            self.say(self.line())

    def commit(self, seconds: float) -> None:
        """Count the time of a commit."""
        self.stage_seconds["commit"] = self.stage_seconds.get("commit", 0.0) + seconds

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Show for the block that this step of the driver is running."""
        self.say(f"{name} ...")
        self.current_step = (name, time.monotonic())
        try:
            yield
        finally:
            self.current_step = None

    def say(self, text: str) -> None:
        """Write one plain line."""
        self.last_line = time.monotonic()
        if not self.quiet:
            self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def line(self) -> str:
        """Describe the run in one line."""
        if self.current_step is not None:
            name, begin = self.current_step
            seconds = time.monotonic() - begin
            if name == "embed" and self.pieces:
                return self._piece_line()
            return f"{name}: {seconds:,.0f} s"
        elapsed = max(time.monotonic() - self.begin, 1e-3)
        rate = (self.rows - self.earlier_rows) / elapsed
        mark = "" if self.total_is_exact else "~"
        total = "?" if self.total_rows is None else f"{mark}{self.total_rows:,}"
        left = _time_left((self.total_rows or 0) - self.rows, rate)
        busy_seconds = sum(self.stage_seconds.values()) or 1.0
        shares = " ".join(
            f"{stage} {seconds / busy_seconds:.0%}" for stage, seconds in self.stage_seconds.items()
        )
        return (
            f"{self.rows:,} of {total} records, "
            f"{self.shards} of {counted(self.shard_count, 'shard')}, "
            f"{rate:,.0f} records/s{left}  {shares}"
        )

    def _piece_line(self) -> str:
        since_first = self.computed_pieces - self.earlier_pieces - 1
        seconds = max(time.monotonic() - self.first_piece, 1e-3)
        rate = since_first / seconds if since_first > 0 else 0.0
        left = _time_left(self.pieces - self.computed_pieces, rate)
        return f"embed: {self.computed_pieces:,} of {counted(self.pieces, 'piece')}{left}"


def _time_left(missing: int, rate: float) -> str:
    """Say how long so many items will still take; nothing where that is unknown."""
    if missing <= 0 or not rate:
        return ""
    seconds = missing / rate
    if seconds > 5400:
        return f", about {seconds / 3600:.1f} h left"
    if seconds > 90:
        return f", about {seconds / 60:.0f} min left"
    return f", about {max(1.0, seconds):.0f} s left"
