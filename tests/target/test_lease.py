"""A lease names its holder, and only a run that took the target leaves a lease.

Whether a holder has ended is known on its host alone: a lease of another host must never be taken
as ended because of a process id.
"""

import os
from dataclasses import replace
from types import SimpleNamespace

import pytest

from cfray import runs
from cfray.errors import LeaseHeld
from cfray.target import lease
from cfray.target.lease import Holder, Lease
from cfray.target.ledger import Ledger
from cfray.target.state import State


@pytest.mark.parametrize(
    ("changes", "has_ended"),
    [
        ({}, False),
        ({"started": 1}, True),
        ({"pid": 2**22 + 1}, True),
        ({"boot": "before the last start"}, True),
        ({"host": "elsewhere"}, False),
        ({"host": "elsewhere", "started": 1}, False),
    ],
)
def test_a_holder_is_known_to_have_ended_only_on_this_host(changes, has_ended):
    assert replace(Holder.here(), **changes).has_ended == has_ended


def test_of_another_host_nothing_is_known():
    assert not replace(Holder.here(), host="elsewhere").is_here


def test_a_take_over_that_fails_leaves_no_lease(tmp_path, monkeypatch):
    def refuse(uri):
        raise LeaseHeld(f"another run took {uri}", "wait")

    monkeypatch.setattr(runs.commit, "take_over", refuse)
    uri = str(tmp_path / "t.lance")
    job = SimpleNamespace(target=SimpleNamespace(uri=uri))
    state = State(uri)
    ledger = Ledger(1, 1, 0, ("f",))
    with pytest.raises(LeaseHeld), runs._holding(job, state, ledger, None):
        pytest.fail("the target was not taken")
    assert lease.read(state.folder) is None


def test_a_holder_heals_its_damaged_lease(tmp_path, monkeypatch):
    monkeypatch.setenv("CFRAY_LEASE_BEAT", "0.01")
    folder = State(str(tmp_path / "t.lance")).folder
    held = Lease(folder)
    held.start(lambda: True)
    folder.publish("lease.json", b"")
    while (tmp_path / "t.lance.cfray/lease.json").read_bytes() == b"":
        os.sched_yield()
    assert lease.read(folder).nonce == held.holder.nonce
    held.release()
    assert lease.read(folder) is None
