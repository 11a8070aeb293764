"""Signals that ask a process to end."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from posetune.signals import take_signals

NOT_TAKEN = """
import signal
from posetune.signals import take_signals

with take_signals(lambda number: False):
    signal.raise_signal(signal.SIGTERM)
    print("still there")
"""


@pytest.fixture
def before() -> Iterator[list[int]]:
    """What reaches the handler of SIGTERM that was there before."""
    found: list[int] = []
    previous = signal.signal(signal.SIGTERM, lambda number, frame: found.append(number))
    yield found
    signal.signal(signal.SIGTERM, previous)


class Asked:
    """Takes the first signals, as many as it is told."""

    def __init__(self, takes: int) -> None:
        self.takes = takes
        self.names: list[str] = []

    def __call__(self, number: signal.Signals) -> bool:
        self.names.append(number.name)
        return len(self.names) <= self.takes


def test_signals_are_taken_for_a_block_and_do_afterwards_what_they_did_before(
    before: list[int],
) -> None:
    asked = Asked(takes=2)
    with take_signals(asked):
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
    assert (asked.names, before) == (["SIGTERM", "SIGTERM"], [])
    signal.raise_signal(signal.SIGTERM)
    assert (asked.names, before) == (["SIGTERM", "SIGTERM"], [signal.SIGTERM])


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
def test_ctrl_c_interrupts_at_once_when_a_signal_was_taken(
    before: list[int], first: signal.Signals
) -> None:
    asked = Asked(takes=2)
    with take_signals(asked):
        signal.raise_signal(first)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert asked.names == [first.name]


def test_a_signal_that_is_not_taken_does_what_it_did_before(before: list[int]) -> None:
    outer = Asked(takes=1)
    with take_signals(outer), take_signals(Asked(takes=1)):
        signal.raise_signal(signal.SIGTERM)
        assert (outer.names, before) == ([], [])
        signal.raise_signal(signal.SIGTERM)
        assert (outer.names, before) == (["SIGTERM"], [])
        signal.raise_signal(signal.SIGTERM)
    assert before == [signal.SIGTERM]


def test_a_signal_that_nobody_takes_ends_the_process_as_the_system_would() -> None:
    ended = subprocess.run([sys.executable, "-c", NOT_TAKEN], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (-signal.SIGTERM, ""), ended.stderr


def test_a_thread_that_cannot_take_signals_runs_without(before: list[int]) -> None:
    asked, ran = Asked(takes=1), threading.Event()

    def run() -> None:
        with take_signals(asked):
            signal.raise_signal(signal.SIGTERM)
            ran.set()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert (ran.is_set(), asked.names, before) == (True, [], [signal.SIGTERM])
