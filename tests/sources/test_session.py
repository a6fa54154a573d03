"""A session is open once, kept alive by a thread, and its loss is said."""

import threading
from contextlib import contextmanager
from typing import Literal

import pytest
from pydantic import PrivateAttr

from cfray.errors import SourceError, SourceUnavailable
from cfray.sources import session as session_module
from cfray.sources.base import Session, Source
from cfray.sources.session import SourceSession
from tests.testbeds.processes import until

#: Seconds in which nothing expires during a test.
LONG = 3600.0
#: Seconds in which a session is kept alive many times during a test.
SHORT = 0.03


class Ward(Source):
    """A store of which a test decides how it answers."""

    kind: Literal["ward"] = "ward"
    uri: str = "ward"
    expires: float | None = SHORT
    _answers: list = PrivateAttr(default_factory=list)
    _log: list = PrivateAttr(default_factory=list)

    def shards(self, context):
        return []

    def read(self, shard, context):
        yield from ()

    @contextmanager
    def session(self):
        self._log.append("open")
        try:
            yield Session("s", "2026-11-28T20:00:00Z", "snapshot", self.expires)
        finally:
            self._log.append("close")

    def keep_alive(self, session):
        assert session.id == "s"
        self._log.append("keep")
        for answer in self._answers:
            answer()

    def count(self, context=None):
        return self._log.count("keep")


def keeping_threads():
    return [thread for thread in threading.enumerate() if thread.name == "cfray-session"]


def gone():
    raise SourceError("no such snapshot", "open another one")


def silent():
    raise SourceUnavailable("no answer", "start the store")


class Pauses:
    """A clock that goes on by itself: each wait of the thread is over at once, n of them."""

    def __init__(self, number):
        self.number, self.seconds, self.now = number, [], 1_000.0

    def wait(self, seconds):
        self.seconds.append(seconds)
        self.now += seconds
        return len(self.seconds) > self.number


@pytest.fixture
def kept(monkeypatch):
    """Give a function: keep a session alive for so many pauses; the pauses and the loss."""

    def keep(ward, number):
        clock = Pauses(number)
        monkeypatch.setattr(session_module.time, "monotonic", lambda: clock.now)
        keeper = session_module._Keeper(ward, Session("s", "then", "snapshot", 30), 30.0)
        keeper._stopped = clock
        keeper._keep()
        return clock.seconds, keeper.loss

    return keep


def test_one_session_serves_whoever_asks_for_it():
    ward = Ward()
    with SourceSession(ward) as session:
        assert session.state is None
    held = SourceSession(ward)
    first = held.open()
    with held as second:
        assert second is first
    held.close()
    assert ward._log == ["open", "close"] * 2


def test_a_source_without_a_session_has_one_with_a_name_that_promises_nothing():
    class Plain(Ward):
        session = Source.session

    with SourceSession(Plain()) as session, SourceSession(Plain()) as another:
        assert (session.consistency, session.expires, session.state) == (None, None, None)
        assert session.id != another.id
        assert not keeping_threads()


def test_a_session_is_kept_alive_from_its_opening_until_it_is_closed():
    ward = Ward()
    with SourceSession(ward) as session:
        until(lambda: ward.count() > 5, "it is kept alive")
        assert session.expires == SHORT
        assert len(keeping_threads()) == 1
    assert not keeping_threads()
    assert ward._log[-1] == "close"


def test_it_is_kept_alive_each_third_of_the_time_in_which_it_expires(kept):
    assert kept(Ward(), 4) == ([10.0] * 5, None)


def test_a_store_that_does_not_answer_is_asked_again_until_the_session_has_expired(kept):
    ward = Ward()
    ward._answers = [silent]
    pauses, loss = kept(ward, 100)
    assert pauses == [10.0] + [1.0] * 20, "10 s until it is asked, 20 s more until it has expired"
    assert "session s of" in loss.what
    assert "no answer" in loss.what


def test_a_store_that_answers_again_in_time_has_kept_the_session(kept):
    ward, silences = Ward(), []

    def at_first_silent():
        if len(silences) < 15:
            silences.append(None)
            silent()

    ward._answers = [at_first_silent]
    pauses, loss = kept(ward, 40)
    assert loss is None
    assert pauses[:17] == [10.0] + [1.0] * 15 + [10.0]


def test_a_lost_session_is_said_to_whoever_checks():
    ward = Ward()
    held = SourceSession(ward)
    held.open()
    held.check()
    ward._answers = [gone]
    until(lambda: held.is_lost, "the thread has noticed")
    with pytest.raises(SourceError) as caught:
        held.check()
    with pytest.raises(SourceError, match="is lost"):
        held.open()
    assert caught.value.what == (
        f"the session s of {ward.address}, begun at 2026-11-28T20:00:00Z, is lost: no such snapshot"
    )
    assert "another session" in caught.value.remedy
    held.close()
    assert not keeping_threads()
    assert ward._log[-1] == "close"


def test_a_read_that_fails_because_the_session_is_lost_says_so():
    ward = Ward(expires=LONG)
    ward._answers = [gone]
    with pytest.raises(SourceError, match="session s of") as caught, SourceSession(ward):
        raise SourceError("the page was refused", "look")
    assert str(caught.value.__cause__).startswith("the page was refused")
    assert ward._log == ["open", "keep", "close"]


@pytest.mark.parametrize("answers", [[], [silent]])
def test_a_read_that_fails_under_a_session_that_lives_says_what_failed(answers):
    ward = Ward(expires=LONG)
    ward._answers = answers
    with pytest.raises(SourceError, match="the page was refused"), SourceSession(ward):
        raise SourceError("the page was refused", "look")
    assert ward._log[-1] == "close"


def test_a_fault_of_the_hook_is_raised_as_it_is():
    ward = Ward()
    ward._answers = [lambda: 1 / 0]
    held = SourceSession(ward)
    held.open()
    until(lambda: held.is_lost, "the thread has noticed")
    with pytest.raises(ZeroDivisionError):
        held.check()
    held.close()


def test_a_store_that_hangs_does_not_hold_the_end_of_a_run_up():
    ward, answered = Ward(), threading.Event()
    ward._answers = [answered.wait]
    held = SourceSession(ward)
    held.open()
    until(ward.count, "the store is asked")
    held.close()
    assert ward._log == ["open", "keep", "close"]
    answered.set()
    until(lambda: not keeping_threads(), "the thread has ended")
    assert ward._log == ["open", "keep", "close"], "it asked the store again"


@pytest.mark.parametrize("name", ["", "a/b", ".hidden", "x" * 101, "a b", "ü"])
def test_an_id_that_cannot_name_a_file_is_refused(name):
    with pytest.raises(ValueError, match="cannot be the id of a session"):
        Session(name)
