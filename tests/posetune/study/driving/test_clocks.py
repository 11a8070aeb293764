"""What time it is on which machine takes no lease and spends no budget."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import pytest
from support.simulated_driver import simulated_start as opening

from posetune.api import BadInputError
from posetune.study.driving.sweep import SweepRun
from posetune.study.tables import lease, schema
from posetune.study.tables.database import Database

AHEAD_S = 15.0


@pytest.fixture
def short_lease(monkeypatch: pytest.MonkeyPatch) -> float:
    monkeypatch.setattr(lease, "LEASE_S", 1.0)
    return 1.0


def set_ahead(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let the lease's code take the time from a clock that is ahead."""
    ahead = SimpleNamespace(
        time=lambda: time.time() + seconds, monotonic=time.monotonic, sleep=time.sleep
    )
    monkeypatch.setattr(lease, "time", ahead)


def hold_elsewhere(database: Database, expires: float) -> None:
    values = {"holder": "x", "host": "elsewhere", "expires": expires}
    database.write(lambda connection: connection.execute(schema.lease.update().values(values)))


def test_a_host_whose_clock_is_ahead_takes_no_live_lease(
    database: Database, short_lease: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = SweepRun(database, opening())
    ended = threading.Event()

    def renew() -> None:
        while not ended.is_set():
            hold_elsewhere(database, time.time() + short_lease)
            ended.wait(short_lease / 4)

    renewing = threading.Thread(target=renew)
    renewing.start()
    try:
        set_ahead(monkeypatch, AHEAD_S)
        with pytest.raises(BadInputError, match="on elsewhere"):
            SweepRun(database, opening())
    finally:
        ended.set()
        renewing.join()
    first.lease.release()


def test_a_lease_that_stands_still_is_taken_however_late_it_expires(
    database: Database, short_lease: float
) -> None:
    first = SweepRun(database, opening())
    hold_elsewhere(database, time.time() + 1000)  # its clock was ahead, and it is dead
    SweepRun(database, opening()).lease.release()
    first.lease.release()


def test_hours_run_on_as_they_did_when_the_clock_is_set(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = SweepRun(database, opening(budget={"trials": 14, "wall_hours": 1}))
    before, day, real = run.state.opened_at, 86_400.0, time.time
    monkeypatch.setattr(time, "time", lambda: real() + day)
    try:
        run.next_trial()
        assert run.spent == ""
        assert run.state.driven_s < 60
        assert run.state.opened_at == before
    finally:
        monkeypatch.undo()
        run.lease.release()
