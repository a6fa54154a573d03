"""What the report says of the source's consistency is what the receipts of the shards say."""

from dataclasses import replace

import pytest

from cfray.errors import TargetError
from cfray.report.consistency import consistency_of, explain
from cfray.sources.base import Session
from cfray.target.books import add_up
from cfray.target.state import State
from tests.target.test_books import SHARD
from tests.target.test_damage import PLAN

SNAPSHOTS = [
    Session(f"view-{number}", f"2026-11-28T2{number}:00:00Z", "snapshot") for number in range(7)
]
LIVE = Session("live", "2026-11-28T23:00:00Z", "per-shard live")
SILENT = [Session("plain-0"), Session("plain-1")]


@pytest.fixture
def consistency(tmp_path):
    """Give a function: the consistency of shards that were read under these sessions."""

    def give(planned, *sessions):
        state = State(str(tmp_path / "t.lance"))
        for session in filter(None, sessions):
            state.save_session(session)
        shards = [
            replace(SHARD, name=str(number), session=session.id if session else "")
            for number, session in enumerate(sessions)
        ]
        return consistency_of(add_up(shards), state, replace(PLAN, consistency=planned))

    return give


def test_before_the_first_shard_it_is_what_the_plan_says(consistency):
    assert consistency("per-shard live") == "per-shard live"


@pytest.mark.parametrize("planned", ["snapshot", "pinned files", "per-shard live", "none"])
def test_sessions_that_promise_nothing_leave_it_to_the_plan(consistency, planned):
    """Files and versions that the plan pins are the same under every session."""
    assert consistency(planned, *SILENT) == planned
    assert consistency(planned, None, SILENT[0]) == planned
    assert consistency(planned, None) == planned


def test_a_snapshot_is_one_session_of_all_shards(consistency):
    assert consistency("snapshot", SNAPSHOTS[0], SNAPSHOTS[0]) == "snapshot"


def test_two_sessions_are_two_snapshots_in_the_order_of_their_times(consistency):
    assert consistency("snapshot", SNAPSHOTS[1], SNAPSHOTS[0], SNAPSHOTS[1]) == (
        "two snapshots (begun 2026-11-28T20:00:00Z and 2026-11-28T21:00:00Z)"
    )


def test_more_snapshots_are_counted(consistency):
    assert consistency("snapshot", *SNAPSHOTS[:3]).startswith("three snapshots (begun 2026")
    assert consistency("snapshot", *SNAPSHOTS).startswith("7 snapshots (begun 2026")


@pytest.mark.parametrize(
    ("sessions", "weakest"),
    [
        ([SNAPSHOTS[0], LIVE], "per-shard live"),
        ([SNAPSHOTS[0], SNAPSHOTS[1], LIVE], "per-shard live"),
        ([SNAPSHOTS[0], None], "none"),
        ([SNAPSHOTS[0], SILENT[0]], "none"),
    ],
)
def test_the_weakest_reading_counts(consistency, sessions, weakest):
    assert consistency("none", *sessions) == weakest


def test_only_several_snapshots_need_an_explanation(consistency):
    assert explain("snapshot") == "snapshot"
    two = consistency("snapshot", *SNAPSHOTS[:2])
    assert explain(two) == (
        f"{two}: the records of one shard are of one moment, those of different shards may not be"
    )


def test_a_session_that_is_not_saved_is_not_guessed(tmp_path):
    state = State(str(tmp_path / "t.lance"))
    with pytest.raises(TargetError, match=r"sessions/view-0\.json is missing"):
        consistency_of(add_up([replace(SHARD, session="view-0")]), state, PLAN)
