"""The sweep's truth: killed before and after every write, it continues as if it had not been."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text

from posetune.api import BadInputError
from posetune.spec import SweepSpec
from posetune.study.database import Database, open_database
from posetune.study.journal import CheckpointRecord
from posetune.study.rungs import Decision
from posetune.study.sweep import Opening, StaleAttemptError, SweepRun
from posetune.study.view import read_sweep

SPEC: dict[str, Any] = {
    "trainable": "posetune.testing.toy:Toy",
    "objective": {"metric": "loss", "mode": "min"},
    "search": {"x": {"float": [0.01, 10], "log": True}, "depth": {"int": [2, 16], "step": 2}},
    "pruner": {"max_epochs": 9},
    "budget": {"trials": 14},
}


def opening(**changes: Any) -> Opening:
    spec = SweepSpec.model_validate({**SPEC, **changes})
    return Opening("s", spec, "text", "store", "d1", {}, {"x": 1.0, "depth": 8})


def loss(params: dict[str, Any], epoch: int) -> float:
    return abs(params["x"] - 0.7) + abs(params["depth"] - 6) / 4 + 1 / epoch


def drive(database: Database, **changes: Any) -> None:
    """What the driver does with one slot, without Ray."""
    run = SweepRun(database, opening(**changes))
    try:
        while (trial := run.next_trial()) is not None:
            attempt = run.begin_attempt(trial.number)
            run.stage_used(trial.number, "flow", key=str(attempt.params["depth"]), trained=True)
            run.baselines({"mean": 5.0})
            epoch = attempt.checkpoints[0].epoch if attempt.checkpoints else 0
            decision = Decision.CONTINUE
            while decision == Decision.CONTINUE:
                epoch += 1
                decision = run.report(
                    trial.number,
                    attempt.number,
                    epoch=epoch,
                    metrics={"loss": loss(trial.params, epoch)},
                    seconds=1.0,
                    checkpoint=CheckpointRecord(attempt.number, epoch, f"f{epoch}", "d", 1),
                )
            run.finish(trial.number)
    finally:
        run.lease.release()


def outcome(database: Database) -> str:
    """Everything that must not depend on kills: all but attempts and times."""
    queries = [
        "SELECT number, params, seed FROM trial ORDER BY number",
        "SELECT t.number, r.epoch, r.value, r.decision FROM report r "
        "JOIN trial t ON t.id = r.trial_id ORDER BY r.id",
        "SELECT t.number, o.state, o.epoch, o.value, o.reason FROM told o "
        "JOIN trial t ON t.id = o.trial_id ORDER BY t.number",
        'SELECT t.number, stage, "key" FROM stage_use u JOIN trial t ON t.id = u.trial_id '
        "ORDER BY t.number",
    ]
    with database.reading() as connection:
        rows = [[list(row) for row in connection.execute(text(query))] for query in queries]
    for trial in rows[0]:  # SQLite gives JSON as text, PostgreSQL as an object
        trial[1] = json.loads(trial[1]) if isinstance(trial[1], str) else trial[1]
    return json.dumps(rows, indent=1)


class Killed(BaseException):
    """A stand-in for SIGKILL: nothing of ours catches it."""


class KillSwitch(Database):
    """Dies before or after the n-th transaction, as a driver does that is killed there."""

    def __init__(self, database: Database, at: int, *, after: bool) -> None:
        super().__init__(database.engine)
        self.left, self.after = at, after

    def write(self, change: Callable[[Connection], Any]) -> Any:
        self.left -= 1
        if self.left == 0 and not self.after:
            raise Killed
        result = super().write(change)
        if self.left == 0 and self.after:
            raise Killed
        return result


@pytest.mark.slow
def test_killed_around_any_write_the_sweep_ends_the_same(tmp_path: Path) -> None:
    undisturbed = open_database(f"sqlite:///{tmp_path / 'undisturbed.db'}")
    counting = KillSwitch(undisturbed, 10**9, after=True)
    drive(counting)
    expected, writes = outcome(undisturbed), 10**9 - counting.left
    assert writes > 80
    # Every third write in turn, before and after; then a second kill in what is left.
    for after in (False, True):
        for at in range(1, writes + 1, 3):
            database = open_database(f"sqlite:///{tmp_path / f'{after}-{at}.db'}")
            with pytest.raises(Killed):
                drive(KillSwitch(database, at, after=after))
            _forget_lease(database)
            with contextlib.suppress(Killed):
                drive(KillSwitch(database, writes // 4, after=after))
            _forget_lease(database)
            drive(database)
            assert outcome(database) == expected, (at, after)
            database.close()


def _forget_lease(database: Database) -> None:
    """The killed process is this one, which lives on; so the lease must be taken by hand."""
    with database.engine.begin() as connection:
        connection.execute(text("DELETE FROM lease"))


def test_a_sweep_on_either_database_ends_the_same(database: Database, tmp_path: Path) -> None:
    drive(database)
    other = open_database(f"sqlite:///{tmp_path / 'other.db'}")
    drive(other)
    assert outcome(database) == outcome(other)
    view = read_sweep(database, "s")
    assert view.state == "COMPLETE"
    assert {trial.state for trial in view.trials} == {"COMPLETE", "PRUNED"}
    assert view.baselines == {"mean": 5.0}
    assert view.stages["flow"].trained == 14


def test_a_driver_that_dies_leaves_open_trials_interrupted(database: Database) -> None:
    run = SweepRun(database, opening())
    trial = run.next_trial()
    assert trial is not None
    run.begin_attempt(trial.number)
    assert [t.state for t in read_sweep(database, "s").trials] == ["RUNNING"]
    run.lease.release()
    view = read_sweep(database, "s")
    assert [t.state for t in view.trials] == ["INTERRUPTED"]
    assert view.state == "INTERRUPTED"


def test_open_trials_come_first_with_their_number_seed_and_checkpoint(database: Database) -> None:
    run = SweepRun(database, opening())
    first, second = run.next_trial(), run.next_trial()
    assert first is not None
    assert second is not None
    attempt = run.begin_attempt(second.number)
    checkpoint = CheckpointRecord(attempt.number, 1, "folder", "digest", 1)
    run.report(
        second.number,
        attempt.number,
        epoch=1,
        metrics={"loss": 1.0},
        seconds=1.0,
        checkpoint=checkpoint,
    )
    run.lease.release()
    resumed = SweepRun(database, opening())
    again = [resumed.next_trial(), resumed.next_trial()]
    assert [t and (t.number, t.seed, t.params) for t in again] == [
        (t.number, t.seed, t.params) for t in (first, second)
    ]
    assert resumed.begin_attempt(second.number).checkpoints == (checkpoint,)
    resumed.lease.release()


def test_reports_of_a_replaced_attempt_are_refused(database: Database) -> None:
    run = SweepRun(database, opening())
    trial = run.next_trial()
    assert trial is not None
    old = run.begin_attempt(trial.number)
    run.begin_attempt(trial.number)
    with pytest.raises(StaleAttemptError):
        run.report(0, old.number, epoch=1, metrics={"loss": 1.0}, seconds=1.0, checkpoint=None)
    run.lease.release()


def test_an_epoch_trained_again_keeps_its_stored_value(database: Database) -> None:
    run = SweepRun(database, opening())
    trial = run.next_trial()
    assert trial is not None
    attempt = run.begin_attempt(0)
    for value in (3.0, 99.0):
        run.report(
            0, attempt.number, epoch=1, metrics={"loss": value}, seconds=1.0, checkpoint=None
        )
    assert read_sweep(database, "s").trials[0].value == 3.0
    run.lease.release()


def test_a_second_driver_is_refused_by_name(database: Database) -> None:
    run = SweepRun(database, opening())
    with pytest.raises(BadInputError, match=r"is being driven by process \d+"):
        SweepRun(database, opening())
    run.lease.release()


def test_another_file_is_refused_and_a_larger_budget_taken(database: Database) -> None:
    drive(database)
    with pytest.raises(BadInputError, match=r"pruner: .*27"):
        SweepRun(database, opening(pruner={"max_epochs": 27}))
    with pytest.raises(BadInputError, match=r"budget\.trials: 14 -> 3"):
        SweepRun(database, opening(budget={"trials": 3}))
    drive(database, budget={"trials": 16})
    view = read_sweep(database, "s")
    assert (len(view.trials), view.state) == (16, "COMPLETE")
    grown = SweepRun(database, opening(budget={"trials": 20}))
    assert grown.next_trial() is not None
    grown.lease.release()
    assert read_sweep(database, "s").state == "INTERRUPTED"
    with pytest.raises(BadInputError, match=r"budget\.trials: 20 -> 16"):
        SweepRun(database, opening(budget={"trials": 16}))


def test_a_changed_store_is_refused(database: Database) -> None:
    SweepRun(database, opening()).lease.release()
    changed = Opening(**{**vars(opening()), "store_digest": "d2"})
    with pytest.raises(BadInputError, match="its store has changed"):
        SweepRun(database, changed)


def test_a_trial_without_a_number_fails(database: Database) -> None:
    run = SweepRun(database, opening(pruner={"max_epochs": 1}))
    trial = run.next_trial()
    assert trial is not None
    attempt = run.begin_attempt(0)
    run.report(
        0, attempt.number, epoch=1, metrics={"loss": float("nan")}, seconds=1.0, checkpoint=None
    )
    run.finish(0)
    run.lease.release()
    assert read_sweep(database, "s").trials[0].state == "FAILED"


def test_a_damaged_database_is_named(tmp_path: Path) -> None:
    file = tmp_path / "study.db"
    file.write_bytes(b"no database at all" * 100)
    with pytest.raises(BadInputError, match="damaged or no study"):
        open_database(f"sqlite:///{file}")


def test_processes_that_create_a_database_at_once_do_not_hinder_each_other(tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path / 'study.db'}"
    code = f"from posetune.study.database import open_database; open_database({address!r})"
    processes = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(6)]
    assert [process.wait(timeout=60) for process in processes] == [0] * 6


def test_an_unknown_sweep_names_those_there_are(database: Database) -> None:
    SweepRun(database, opening()).lease.release()
    with pytest.raises(BadInputError, match="there is s"):
        read_sweep(database, "t")


def test_dead_workers_are_counted_over_all_lives_but_dead_drivers_are_not(
    database: Database,
) -> None:
    run = SweepRun(database, opening())
    assert run.next_trial() is not None
    assert [run.begin_attempt(0).crashes for _ in range(3)] == [0, 1, 2]
    run.lease.release()
    resumed = SweepRun(database, opening())
    assert [resumed.begin_attempt(0).crashes for _ in range(2)] == [2, 3]
    resumed.lease.release()
