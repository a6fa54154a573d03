"""An interrupt ends the block whatever a library that ran at that moment makes of it."""

import contextlib
import os
import signal

import pytest

from cfray.engine import interrupts
from cfray.errors import Interrupted


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_interrupts_the_block_and_the_handlers_come_back(number, code):
    before = signal.getsignal(number)
    with pytest.raises(Interrupted) as stopped, interrupts.catch_signals():
        os.kill(os.getpid(), number)
    assert stopped.value.signal_code == code
    assert signal.getsignal(number) is before


def swallowing() -> None:
    with contextlib.suppress(Interrupted):
        os.kill(os.getpid(), signal.SIGTERM)


def renaming() -> None:
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    except Interrupted as error:
        raise RuntimeError("system error") from error


@pytest.mark.parametrize("library", [swallowing, renaming])
def test_a_library_swallows_it_or_calls_it_something_else(library):
    with pytest.raises(Interrupted), interrupts.catch_signals():
        library()


def test_a_deferred_interrupt_waits_for_the_end_of_its_block():
    steps = []

    def work() -> None:
        with interrupts.defer():
            os.kill(os.getpid(), signal.SIGTERM)
            steps.append("inside")
        steps.append("behind")

    with pytest.raises(Interrupted), interrupts.catch_signals():
        work()
    assert steps == ["inside"]


def test_an_error_without_a_signal_stays_itself():
    with pytest.raises(KeyError), interrupts.catch_signals():
        raise KeyError
