"""Which points stay, worked out by hand from a calendar."""

from __future__ import annotations

import datetime as dt

import pytest

from cfray.transfers.rotation import Rotation

#: A point at noon of each of 120 days, and one an hour later on the last; 2026-03-01 is a Sunday.
DAYS = [dt.date(2026, 3, 1) + dt.timedelta(days=day) for day in range(120)]
NAMES = [f"{day}T12-00-00Z" for day in DAYS] + [f"{DAYS[-1]}T13-00-00Z"]


def test_without_a_policy_every_point_stays():
    assert Rotation().kept(NAMES) == set(NAMES)


@pytest.mark.parametrize(
    ("rotation", "kept"),
    [
        (Rotation(last=3), NAMES[-3:]),
        (Rotation(daily=2), [NAMES[-1], NAMES[-3]]),
        # the last day is a Sunday, 2026-06-28
        (Rotation(weekly=3), [NAMES[-1], "2026-06-21T12-00-00Z", "2026-06-14T12-00-00Z"]),
        (
            Rotation(monthly=9),
            [
                *(f"{day}T12-00-00Z" for day in ("2026-03-31", "2026-04-30", "2026-05-31")),
                NAMES[-1],
            ],
        ),
        (Rotation(last=1, monthly=2), [NAMES[-1], "2026-05-31T12-00-00Z"]),
    ],
)
def test_the_last_point_of_each_period_stays(rotation, kept):
    assert rotation.kept(NAMES) == set(kept)


def test_the_newest_point_always_stays():
    assert Rotation(monthly=1).kept(["2026-01-31T00-00-00Z", "2026-01-01T00-00-00Z"][::-1]) == {
        "2026-01-31T00-00-00Z"
    }
