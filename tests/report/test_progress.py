"""The progress line counts only the records of this run for its rate and the time left."""

import io

import pytest
from rich.console import Console

from cfray.report.progress import Progress
from cfray.target.receipts import ShardReceipt


@pytest.fixture
def progress(monkeypatch):
    """Give a display whose clock stands at 100 s after the copy began."""
    clock = [0.0]
    monkeypatch.setattr("cfray.report.progress.time.monotonic", lambda: clock[0])
    display = Progress(Console(file=io.StringIO()), quiet=True)
    display.start(10_000, exact=True, shards=10, committed_shards=4, committed_rows=4_000)
    clock[0] = 100.0
    return display


def receipt(number: int) -> ShardReceipt:
    return ShardReceipt(
        name=str(number), shard=f"shard-{number}", nonce="nonce", read=1_000, staged=1_000
    )


def test_adopted_records_are_no_part_of_the_rate(progress):
    progress.adopt(receipt(4))
    progress.adopt(receipt(5))
    assert "6,000 of 10,000 records, 6 of 10 shards, 0 records/s  " in progress.line()
    progress.add(receipt(6))
    assert (
        "7,000 of 10,000 records, 7 of 10 shards, 10 records/s, about 5 min left" in progress.line()
    )


def test_a_copy_that_is_complete_has_no_time_left(progress):
    for number in range(4, 10):
        progress.add(receipt(number))
    assert "left" not in progress.line()


def test_a_later_step_shows_itself_and_no_time_left(progress, monkeypatch):
    progress.add(receipt(4))
    with progress.step("index"):
        monkeypatch.setattr("cfray.report.progress.time.monotonic", lambda: 175.0)
        assert progress.line() == "index: 75 s"
    assert progress.line().startswith("5,000 of 10,000 records")
