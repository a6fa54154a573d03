"""One live display of a run: rows, rate, time left, share of time per stage.

Plain lines where there is no terminal.

Drawn by the driver from the receipts it gets, on stderr: stdout belongs to the
command's result.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.text import Text

from cfray.target.receipts import Receipt

logger = logging.getLogger("cfray")
#: Seconds between two plain lines.
_QUIET = 10.0


class Progress:
    """What has been done of one run."""

    def __init__(self, console: Console, *, quiet: bool = False) -> None:
        """Draw on this console; ``quiet`` draws nothing."""
        self.console, self.quiet = console, quiet
        self.live: Live | None = None
        self.total: int | None = None
        self.exact = True
        self.rows = self.shards = self.shard_count = self.before = 0
        self.seconds: dict[str, float] = {}
        self.begin = self.spoken = time.monotonic()

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Keep the display up."""
        if self.quiet or not self.console.is_terminal:
            yield
            return
        self.live = Live(
            console=self.console, refresh_per_second=4, transient=True, get_renderable=self._drawn
        )
        with self.live:
            try:
                yield
            finally:
                self.live = None

    def start(
        self, rows: int | None, *, exact: bool, shards: int, done_shards: int, done_rows: int
    ) -> None:
        """Say how much there is to do, and how much of it an earlier run did."""
        self.total, self.exact, self.shard_count = rows, exact, shards
        self.shards, self.rows, self.before = done_shards, done_rows, done_rows
        self.begin = time.monotonic()

    def add(self, receipt: Receipt) -> None:
        """Count one shard."""
        self.rows += receipt.read
        self.shards += 1
        for stage, seconds in receipt.seconds.items():
            self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
        logger.info(
            "staged shard=%s rows=%d quarantined=%d seconds=%.2f",
            receipt.shard,
            receipt.read,
            receipt.quarantined,
            sum(receipt.seconds.values()),
        )
        if self.live is None and time.monotonic() - self.spoken > _QUIET:
            self.say(self.line())

    def commit(self, seconds: float) -> None:
        """Count the time of a commit."""
        self.seconds["commit"] = self.seconds.get("commit", 0.0) + seconds

    def say(self, text: str) -> None:
        """Write one plain line."""
        self.spoken = time.monotonic()
        if not self.quiet:
            self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def line(self) -> str:
        """Describe the state in one line."""
        elapsed = max(time.monotonic() - self.begin, 1e-3)
        rate = (self.rows - self.before) / elapsed
        total = "?" if self.total is None else f"{'' if self.exact else '~'}{self.total:,}"
        left = f", about {self._left(rate)} left" if self.total and rate else ""
        busy = sum(self.seconds.values()) or 1.0
        shares = " ".join(
            f"{stage} {seconds / busy:.0%}" for stage, seconds in self.seconds.items()
        )
        return f"{self.rows:,} of {total} records, {self.shards} of {self.shard_count} shards, {rate:,.0f} records/s{left}  {shares}"

    def _left(self, rate: float) -> str:
        seconds = max(0.0, ((self.total or 0) - self.rows) / rate)
        return (
            f"{seconds / 3600:.1f} h"
            if seconds > 5400
            else f"{seconds / 60:.0f} min"
            if seconds > 90
            else f"{seconds:.0f} s"
        )

    def _drawn(self) -> Text:
        return Text(self.line())
