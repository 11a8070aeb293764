"""Killed before or after any write, a sweep continues as if it had not been."""

from __future__ import annotations

import contextlib
import random
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text
from support.acting import act_on, check_folds, start_now, steered_start, waits
from support.simulated_driver import drive, happened, open_unsynced, outcome
from support.simulated_driver import simulated_start as opening

from posetune.study.act_events import ActEvent
from posetune.study.driving.sweep import SweepRun
from posetune.study.driving.sweep_start import SweepStart
from posetune.study.reading import read_sweep
from posetune.study.search.rungs import Rungs
from posetune.study.tables import schema
from posetune.study.tables.database import Database
from posetune.study.view import SweepView


class Killed(BaseException):
    """A stand-in for SIGKILL: nothing of ours catches it."""


class KillSwitch(Database):
    """Dies before or after the n-th transaction, as a driver does that is killed there."""

    def __init__(self, database: Database, at: int, *, after: bool) -> None:
        super().__init__(database.engine)
        self.left, self.after = at, after

    def write(self, change: Callable[[Connection], Any]) -> Any:
        if threading.current_thread() is not threading.main_thread():
            # The lease's thread: it dies with its process.
            return super().write(change) if self.left > 0 else None
        self.left -= 1
        if self.left < 0 or (self.left == 0 and not self.after):
            raise Killed
        result = super().write(change)
        if self.left == 0:
            raise Killed
        return result


class Recorder(Database):
    """Keeps a copy of the SQLite file as each transaction leaves it.

    What a driver had committed when it is killed, before one write or after the last, is one of
    these copies; the rest of it was memory.
    """

    def __init__(self, database: Database, folder: Path) -> None:
        super().__init__(database.engine)
        self.folder, self.copies = folder, 0

    def write(self, change: Callable[[Connection], Any]) -> Any:
        result = super().write(change)
        if threading.current_thread() is threading.main_thread():
            self.copies += 1
            with (
                contextlib.closing(sqlite3.connect(str(self.engine.url.database))) as source,
                contextlib.closing(sqlite3.connect(self.folder / f"{self.copies}.db")) as copy,
            ):
                source.backup(copy)
        return result


def reports_of(view: SweepView) -> dict[int, list[int]]:
    epochs: dict[int, list[int]] = {}
    for report in view.reports:
        epochs.setdefault(report.trial, []).append(report.epoch)
    return epochs


def audited_start() -> SweepStart:
    """A sweep in which some trials run on where ASHA would cut them."""
    return opening(pruner={"max_epochs": 9, "audit_share": 0.4})


def check_consistent(database: Database, trials: int = 14) -> None:
    """Every trial once, none open, no epoch twice, no hole, decisions those of the rungs."""
    view = read_sweep(database, "s")
    assert [t.number for t in view.trials] == list(range(trials))
    assert view.state == "COMPLETE"
    assert {t.state for t in view.trials} <= {"COMPLETE", "PRUNED"}
    epochs = reports_of(view)
    assert epochs == {t.number: list(range(1, t.epochs + 1)) for t in view.trials}
    rungs = Rungs(view.spec.pruner, view.spec.objective, view.spec.sampler.seed)
    for report in view.reports:
        decision, is_audited, _ = rungs.decide(report.trial, report.epoch, report.value)
        rungs.record(report.trial, report.epoch, report.value, is_audited=is_audited)
        assert report.decision == decision
    with database.reading() as connection:
        left = connection.execute(text("SELECT count(*) FROM lease")).scalar()
    assert left == 0


def modelled_opening(pruner: str) -> SweepStart:
    """A sweep whose search models curves: some trials are paused, or cut by ASHA."""
    search = {"x": {"choice": [0.1, 0.3, 0.7, 1.0, 3.0]}, "depth": {"int": [2, 16], "step": 2}}
    pruning = {"name": pruner, "max_epochs": 9, "grace_epochs": 2, "reduction_factor": 2}
    return opening(search=search, sampler={"name": "gp"}, pruner=pruning, budget={"trials": 8})


def patient_opening(sampler: str) -> SweepStart:
    """A sweep that ends once the noise between seeds is more than what is still to gain."""
    return opening(
        sampler={"name": sampler, "repeats": 2},
        pruner={"name": "none", "max_epochs": 2},
        budget={"trials": 60, "patience": 2},
    )


EVERY = pytest.mark.parametrize("step", [4, pytest.param(1, marks=pytest.mark.long)])
"""Of the moments at which a driver is killed: one in four, or each."""


def resume_from_copies(
    tmp_path: Path, start: SweepStart | None = None, *, step: int = 1, **how: Any
) -> Iterator[tuple[int, Database]]:
    """Drive a sweep, and continue the states it was ever in, with one more kill on the way."""
    start = start or opening()
    recorder = Recorder(open_unsynced(tmp_path / "whole.db"), tmp_path)
    drive(recorder, start, order=random.Random(1), **{**how, "broken": False})
    yield 0, recorder
    assert recorder.copies > 80
    for at in range(1, recorder.copies + 1, step):
        database = open_unsynced(tmp_path / f"{at}.db")
        _forget_lease(database)
        left = recorder.copies - at
        again = KillSwitch(database, 1 + at * 7 % max(1, min(23, left)), after=at % 2 == 0)
        with contextlib.suppress(Killed):
            drive(again, start, order=random.Random(at), **how)
        _forget_lease(database)
        drive(database, start, order=random.Random(-at), **how)
        yield at, database
        database.close()


@pytest.mark.slow
@EVERY
def test_killed_around_any_write_the_sweep_ends_the_same(tmp_path: Path, step: int) -> None:
    resumed = resume_from_copies(tmp_path, step=step)
    _, undisturbed = next(resumed)
    expected = outcome(undisturbed)
    check_consistent(undisturbed)
    for at, database in resumed:
        assert outcome(database) == expected, at


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("pruner", ["thaw", "asha"])
def test_killed_around_any_write_a_search_that_models_curves_ends_the_same(
    tmp_path: Path, pruner: str
) -> None:
    resumed = resume_from_copies(tmp_path, modelled_opening(pruner))
    _, undisturbed = next(resumed)
    expected = outcome(undisturbed)
    trials = read_sweep(undisturbed, "s").trials
    assert {trial.state for trial in trials} <= {"COMPLETE", "PRUNED"}
    assert len(trials) == 8
    for at, database in resumed:
        assert outcome(database) == expected, at


@pytest.mark.slow
def test_killed_here_and_there_a_search_that_pauses_trials_ends_the_same(tmp_path: Path) -> None:
    start = modelled_opening("thaw")
    whole = open_unsynced(tmp_path / "whole.db")
    drive(whole, start)
    expected = outcome(whole)
    assert "pause" in expected
    for at, after in [(9, True), (24, False), (41, True), (60, False)]:
        database = open_unsynced(tmp_path / f"{at}.db")
        with pytest.raises(Killed):
            drive(KillSwitch(database, at, after=after), start)
        _forget_lease(database)
        drive(database, start)
        assert outcome(database) == expected, (at, after)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sampler", "step"),
    [
        ("random", 90),
        pytest.param("random", 5, marks=pytest.mark.long),
        pytest.param("gp", 5, marks=pytest.mark.long),
    ],
)
def test_killed_here_and_there_a_sweep_ends_by_its_patience_at_the_same_trial(
    tmp_path: Path, sampler: str, step: int
) -> None:
    start = patient_opening(sampler)
    recorder = Recorder(open_unsynced(tmp_path / "whole.db"), tmp_path)
    drive(recorder, start, noise=0.5)
    expected, view = outcome(recorder), read_sweep(recorder, "s")
    assert view.patience_over
    assert 10 < len(view.trials) < 60
    before_the_end = range(recorder.copies - 3, recorder.copies + 1)
    for at in [*range(step, recorder.copies - 3, step), *before_the_end]:
        database = open_unsynced(tmp_path / f"{at}.db")
        _forget_lease(database)
        drive(database, start, noise=0.5, order=random.Random(at))
        again = read_sweep(database, "s")
        assert outcome(database) == expected, at
        assert (again.gain, again.gains_in_noise) == (view.gain, view.gains_in_noise), at
        database.close()


@pytest.mark.long
@pytest.mark.slow
def test_killed_around_any_write_two_trials_at_a_time_end_consistent(tmp_path: Path) -> None:
    for _, database in resume_from_copies(tmp_path, slots=2, broken=True):
        check_consistent(database)


@pytest.mark.slow
@EVERY
def test_killed_around_any_write_a_steered_sweep_ends_the_same(tmp_path: Path, step: int) -> None:
    def steer(run: SweepRun) -> None:
        act_on(run)
        if run.state.seq % 40 == 0:
            check_folds(run)

    recorder = Recorder(open_unsynced(tmp_path / "whole.db"), tmp_path)
    drive(recorder, steered_start(), order=random.Random(1), between=steer)
    expected = outcome(recorder)
    assert {type(event) for event in happened(recorder, ActEvent)} == set(ActEvent.__args__)
    compared, moments = 0, range(1, recorder.copies + 1, step)
    for at in moments:
        database = open_unsynced(tmp_path / f"{at}.db")
        _forget_lease(database)
        waited = waits(database)
        again = KillSwitch(database, 1 + at * 7 % 23, after=at % 2 == 0)
        with contextlib.suppress(Killed):
            drive(again, start_now(database), order=random.Random(at), between=steer)
        _forget_lease(database)
        waited = waited or waits(database)
        drive(database, start_now(database), order=random.Random(-at), between=steer)
        view = read_sweep(database, "s")
        assert (view.state, view.source) == ("COMPLETE", "the edited text")
        if not waited:  # else an act was taken up elsewhere: where the next driver began
            assert outcome(database) == expected, at
            compared += 1
        database.close()
    assert compared > 0.8 * len(moments)


@pytest.mark.slow
def test_killed_here_and_there_the_sweep_ends_the_same_on_either_database(
    database: Database,
) -> None:
    drive(database, audited_start())
    expected = outcome(database)
    for at, after in [(2, True), (9, False), (20, True), (37, False), (60, True)]:
        _empty(database)
        with pytest.raises(Killed):
            drive(KillSwitch(database, at, after=after), audited_start())
        _forget_lease(database)
        drive(database, audited_start())
        assert outcome(database) == expected, (at, after)


@pytest.mark.slow
def test_killed_here_and_there_two_trials_at_a_time_end_consistent_on_either_database(
    database: Database,
) -> None:
    for at, after in [(3, True), (14, False), (33, True), (58, False)]:
        _empty(database)
        with pytest.raises(Killed):
            drive(
                KillSwitch(database, at, after=after),
                audited_start(),
                slots=2,
                order=random.Random(at),
            )
        _forget_lease(database)
        drive(database, audited_start(), slots=2, order=random.Random(-at), broken=True)
        check_consistent(database)


def _empty(database: Database) -> None:
    with database.engine.begin() as connection:
        for table in reversed(schema.metadata.sorted_tables):
            if table is not schema.about:
                connection.execute(table.delete())


def _forget_lease(database: Database) -> None:
    """The killed process is this one, which lives on; so the lease must be taken by hand."""
    with database.engine.begin() as connection:
        connection.execute(text("DELETE FROM lease"))
