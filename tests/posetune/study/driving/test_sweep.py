"""A sweep as its driver and its readers see it."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import Connection, update
from support.simulated_driver import SimulatedTrial, drive, outcome
from support.simulated_driver import simulated_start as sweep_start

from posetune.api import BadInputError
from posetune.study.driving.sweep import StaleAttemptError, SweepRun, SweepStart
from posetune.study.history import read_history
from posetune.study.reading import read_sweep
from posetune.study.records import CheckpointRecord
from posetune.study.tables import schema
from posetune.study.tables.database import Database, open_database


def test_a_sweep_on_either_database_ends_the_same(database: Database, tmp_path: Path) -> None:
    drive(database, sweep_start())
    other = open_database(f"sqlite:///{tmp_path / 'other.db'}")
    drive(other, sweep_start())
    assert outcome(database) == outcome(other)
    view = read_sweep(database, "s")
    assert view.state == "COMPLETE"
    assert {trial.state for trial in view.trials} == {"COMPLETE", "PRUNED"}
    assert view.baselines == {"mean": 5.0}
    assert view.stages["flow"].trained == 14


def test_an_ablation_tries_each_change_once_with_one_seed_even_when_killed(
    database: Database,
) -> None:
    space = {"x": {"choice": [0.5, 1.0]}, "depth": {"choice": [4, 8, 16]}}
    ablation = sweep_start(
        search=space,
        sampler={"name": "one_by_one"},
        pruner={"name": "none", "max_epochs": 2},
        budget={"trials": 4},
    )
    run = SweepRun(database, ablation)
    for _ in range(2):
        run.next_trial()
    run.lease.release()  # as a driver that dies
    drive(database, ablation)

    trials = read_sweep(database, "s").trials
    assert [(t.params["x"], t.params["depth"]) for t in trials] == [
        (1.0, 8),
        (0.5, 8),
        (1.0, 4),
        (1.0, 16),
    ]
    assert len({t.seed for t in trials}) == 1


def test_a_driver_knows_the_stage_products_that_the_sweep_used_before_it(
    database: Database,
) -> None:
    run = SweepRun(database, sweep_start())
    for key in ("first", "second", "first"):
        trial = run.next_trial()
        assert trial is not None
        run.begin_attempt(trial.number)
        run.stage_used(trial.number, "flow", key=key, trained=True)
    assert run.stage_keys == {}, "those of its own driver need no looking up"
    run.lease.release()

    assert SweepRun(database, sweep_start()).stage_keys == {"flow": ("first", "second")}


def test_a_driver_that_dies_leaves_open_trials_interrupted(database: Database) -> None:
    run = SweepRun(database, sweep_start())
    trial = run.next_trial()
    assert trial is not None
    run.begin_attempt(trial.number)
    assert [t.state for t in read_sweep(database, "s").trials] == ["RUNNING"]
    run.lease.release()
    view = read_sweep(database, "s")
    assert [t.state for t in view.trials] == ["INTERRUPTED"]
    assert view.state == "INTERRUPTED"


def test_open_trials_come_first_with_their_number_seed_and_checkpoint(database: Database) -> None:
    run = SweepRun(database, sweep_start())
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
    resumed = SweepRun(database, sweep_start())
    again = [resumed.next_trial(), resumed.next_trial()]
    assert [t and (t.number, t.seed, t.params) for t in again] == [
        (t.number, t.seed, t.params) for t in (first, second)
    ]
    assert resumed.begin_attempt(second.number).checkpoints == (checkpoint,)
    resumed.lease.release()


def test_a_worker_that_hands_over_has_not_crashed(database: Database) -> None:
    run = SweepRun(database, sweep_start())
    trial = run.next_trial()
    assert trial is not None
    first = run.begin_attempt(0)
    whole = CheckpointRecord(1, 1, "whole", "d" * 64, 1)
    within = CheckpointRecord(1, 1, "within", "d" * 64, 1, partial_s=2.5)
    report = {"epoch": 1, "metrics": {"loss": 1.0}, "seconds": 1.0, "checkpoint": whole}
    run.report(0, first.number, **report)
    run.hand_over(0, first.number, checkpoint=within)
    second = run.begin_attempt(0)
    assert (second.number, second.crashes) == (2, 0)
    assert second.checkpoints == (within, whole)
    assert run.release_checkpoints(0) == []
    with pytest.raises(StaleAttemptError):
        run.hand_over(0, first.number, checkpoint=within)
    assert run.begin_attempt(0).crashes == 1
    run.lease.release()
    resumed = SweepRun(database, sweep_start())
    again = resumed.begin_attempt(0)
    assert (again.number, again.crashes, again.checkpoints) == (4, 1, (within, whole))
    resumed.lease.release()


def test_reports_of_a_replaced_attempt_are_refused(database: Database) -> None:
    run = SweepRun(database, sweep_start())
    trial = run.next_trial()
    assert trial is not None
    old = run.begin_attempt(trial.number)
    run.begin_attempt(trial.number)
    with pytest.raises(StaleAttemptError):
        run.report(0, old.number, epoch=1, metrics={"loss": 1.0}, seconds=1.0, checkpoint=None)
    run.lease.release()


def test_an_epoch_trained_again_keeps_its_stored_value(database: Database) -> None:
    run = SweepRun(database, sweep_start())
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
    run = SweepRun(database, sweep_start())
    with pytest.raises(BadInputError, match=r"is being driven by process \d+"):
        SweepRun(database, sweep_start())
    run.lease.release()


@pytest.mark.parametrize("lives", [False, True])
def test_the_lease_of_another_host_is_waited_for_and_taken_if_it_is_not_renewed(
    database: Database, lives: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = SweepRun(database, sweep_start())

    def hold(seconds: float) -> None:
        values = {"holder": "x", "host": "elsewhere", "expires": time.time() + seconds}
        database.write(lambda connection: connection.execute(schema.lease.update().values(values)))

    if lives:
        hold(60)
        # It is renewed while the other driver waits, however slow this machine is.
        monkeypatch.setattr(time, "sleep", lambda seconds: hold(90))
        with pytest.raises(BadInputError, match="on elsewhere"):
            SweepRun(database, sweep_start())
    else:
        hold(0.5)
        SweepRun(database, sweep_start()).lease.release()
    first.lease.release()


def test_another_file_is_refused_and_a_larger_budget_taken(database: Database) -> None:
    drive(database, sweep_start())
    with pytest.raises(BadInputError, match=r"pruner: .*27") as refused:
        SweepRun(database, sweep_start(pruner={"max_epochs": 27}))
    for way in ("--name OTHER", "start_from: [s]", "a larger budget"):
        assert way in str(refused.value)
    with pytest.raises(BadInputError, match=r"budget\.trials: 14 -> 3") as refused:
        SweepRun(database, sweep_start(budget={"trials": 3}))
    assert "a larger budget" in str(refused.value)
    assert "start_from" not in str(refused.value)
    drive(database, sweep_start(budget={"trials": 16}))
    view = read_sweep(database, "s")
    assert (len(view.trials), view.state) == (16, "COMPLETE")
    grown = SweepRun(database, sweep_start(budget={"trials": 20}))
    assert grown.next_trial() is not None
    grown.lease.release()
    assert read_sweep(database, "s").state == "INTERRUPTED"
    with pytest.raises(BadInputError, match=r"budget\.trials: 20 -> 16"):
        SweepRun(database, sweep_start(budget={"trials": 16}))


@pytest.mark.parametrize("mode", ["min", "max"])
def test_a_sweep_ends_where_a_trial_reaches_its_target_and_goes_on_with_a_better_one(
    database: Database, mode: str
) -> None:
    sign = 1 if mode == "min" else -1
    changes = {"objective": {"metric": "loss", "mode": mode}, "pruner": {"max_epochs": 9}}
    start = sweep_start(**changes, budget={"trials": 14, "target": 2.0 * sign})
    run = SweepRun(database, start)
    trial = run.next_trial()
    assert trial is not None
    at_work = SimulatedTrial(run, 0)
    at_work.step({"loss": 2.1 * sign})
    assert run.spent == ""
    at_work.step({"loss": 1.9 * sign})
    assert run.spent == (
        f"the target of {2 * sign} is reached by trial 0 with {1.9 * sign} after epoch 2"
    )
    run.close(run.spent)
    again = SweepRun(database, start)
    assert again.spent == run.spent
    again.close(again.spent)
    further = sweep_start(**changes, budget={"trials": 14, "target": 1.0 * sign})
    grown = SweepRun(database, further)
    assert grown.spent == ""
    grown.lease.release()


def test_a_default_that_has_changed_since_is_not_a_change_of_the_file(database: Database) -> None:
    """The sweep keeps the default that it was begun with; what a file says is still held to it."""
    source = "pruner: {name: asha, max_epochs: 9}\nsampler: {seed: 0}\n"
    start = replace(sweep_start(), source=source)
    then = start.spec.model_copy(
        update={"pruner": start.spec.pruner.model_copy(update={"reduction_factor": 4})}
    )
    SweepRun(database, replace(start, spec=then)).lease.release()
    run = SweepRun(database, start)
    assert run.spec.pruner.reduction_factor == 4
    run.lease.release()
    with pytest.raises(BadInputError, match="pruner: "):
        SweepRun(database, sweep_start(pruner={"max_epochs": 9, "reduction_factor": 3}))
    with pytest.raises(BadInputError, match="pruner: "):
        SweepRun(database, replace(start, spec=sweep_start(pruner={"max_epochs": 27}).spec))


def test_what_changed_in_the_file_is_shown_as_a_difference(database: Database) -> None:
    lines = [f"line {number}" for number in range(200)]
    started = SweepStart(**{**vars(sweep_start()), "source": "\n".join(lines)})
    SweepRun(database, started).lease.release()
    lines[7] = "max_epochs: 27"
    changed = {**vars(sweep_start(pruner={"max_epochs": 27})), "source": "\n".join(lines)}
    with pytest.raises(BadInputError) as refusal:
        SweepRun(database, SweepStart(**changed))
    assert "  -line 7\n  +max_epochs: 27\n" in str(refusal.value)
    changed["source"] = "\n".join(line.upper() for line in lines)
    with pytest.raises(BadInputError, match=r"\.\.\. \d+ more lines") as refusal:
        SweepRun(database, SweepStart(**changed))
    assert len(str(refusal.value).splitlines()) < 50


def test_a_changed_store_is_refused(database: Database) -> None:
    SweepRun(database, sweep_start()).lease.release()
    changed = SweepStart(**{**vars(sweep_start()), "store_digest": "d2"})
    with pytest.raises(BadInputError, match="its store has changed"):
        SweepRun(database, changed)


def test_a_trial_without_a_number_fails(database: Database) -> None:
    run = SweepRun(database, sweep_start(pruner={"max_epochs": 1}))
    trial = run.next_trial()
    assert trial is not None
    attempt = run.begin_attempt(0)
    run.report(
        0, attempt.number, epoch=1, metrics={"loss": float("nan")}, seconds=1.0, checkpoint=None
    )
    run.finish(0)
    run.lease.release()
    assert read_sweep(database, "s").trials[0].state == "FAILED"


@pytest.mark.parametrize(("semantics", "said"), [(2, "continue"), (3, "prune")])
def test_a_trial_without_a_number_at_a_rung_is_cut_unless_its_sweep_began_before(
    database: Database, semantics: int, said: str
) -> None:
    SweepRun(database, sweep_start(pruner={"max_epochs": 9})).lease.release()

    def begin_with(connection: Connection) -> None:
        table = schema.event
        began = update(table).where(table.c.kind == "sweep_started")
        connection.execute(began.values(data={"semantics": semantics}))

    database.write(begin_with)
    run = SweepRun(database, sweep_start(pruner={"max_epochs": 9}))
    trial = run.next_trial()
    assert trial is not None
    attempt = run.begin_attempt(0)
    decision = run.report(
        0, attempt.number, epoch=1, metrics={"loss": float("nan")}, seconds=1.0, checkpoint=None
    )
    assert decision == said
    if said == "prune":
        run.finish(0)
        assert trial.state == "PRUNED"
        assert trial.reason == "cut by ASHA at epoch 1, where loss was not a number"
        assert run.next_trial() is not None  # the sampler has heard of the trial
    run.lease.release()


@pytest.mark.slow
def test_a_sweep_is_read_whole_while_its_driver_writes(database: Database) -> None:
    """Several queries see one state: a trial that is asked between two of them is in neither."""
    begun = threading.Event()

    def await_reader(run: SweepRun) -> None:
        begun.wait(60)
        begun.clear()

    work = partial(drive, database, sweep_start(), between=await_reader)
    driver = threading.Thread(target=work, daemon=True)
    SweepRun(database, sweep_start()).lease.release()
    driver.start()
    seen = []
    while driver.is_alive():
        begun.set()  # each step of the driver falls into a reading
        view = read_sweep(database, "s")
        assert {report.trial for report in view.reports} <= {t.number for t in view.trials}
        seen.append(len(view.reports))
    driver.join()
    assert seen == sorted(seen)
    assert len(set(seen)) > 3


@pytest.mark.slow
def test_processes_that_create_a_database_at_once_do_not_hinder_each_other(tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path / 'study.db'}"
    code = f"from posetune.study.tables.database import open_database; open_database({address!r})"
    processes = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(6)]
    assert [process.wait(timeout=60) for process in processes] == [0] * 6


def test_an_unknown_sweep_names_those_there_are(database: Database) -> None:
    SweepRun(database, sweep_start()).lease.release()
    with pytest.raises(BadInputError, match="there is s"):
        read_sweep(database, "t")


def test_dead_workers_are_counted_over_all_lives_but_dead_drivers_are_not(
    database: Database,
) -> None:
    run = SweepRun(database, sweep_start())
    assert run.next_trial() is not None
    assert [run.begin_attempt(0).crashes for _ in range(3)] == [0, 1, 2]
    run.lease.release()
    resumed = SweepRun(database, sweep_start())
    assert [resumed.begin_attempt(0).crashes for _ in range(2)] == [2, 3]
    resumed.lease.release()


def test_an_event_waits_while_the_disk_is_full_and_is_committed_then(small_disk: Path) -> None:
    database = open_database(f"sqlite:///{small_disk / 'study.db'}")
    run = SweepRun(database, sweep_start(budget={"trials": 1000}))
    with contextlib.suppress(OSError), (small_disk / "filler").open("wb", buffering=0) as filler:
        while True:
            filler.write(bytes(512))
    notices = []

    def make_space() -> None:
        deadline = time.monotonic() + 20
        while not run.waits_for and time.monotonic() < deadline:
            time.sleep(0.02)
        notices.append(run.waits_for)
        (small_disk / "filler").unlink()

    thread = threading.Thread(target=make_space)
    thread.start()
    while not notices:
        assert run.next_trial() is not None
    thread.join()
    assert "no space left" in notices[0]
    assert run.waits_for == ""
    run.lease.release()
    view = read_sweep(database, "s")
    assert [trial.number for trial in view.trials] == list(range(len(view.trials)))


def test_an_attempt_whose_node_went_away_is_no_crash_however_late_that_is_noticed(
    database: Database,
) -> None:
    run = SweepRun(database, sweep_start())
    run.next_trial()
    run.begin_attempt(0)
    assert run.begin_attempt(0).crashes == 1
    run.excuse(0, 1, "its node left")  # noticed when the next attempt had begun
    run.excuse(0, 2, "told to stop where nothing could be saved")
    assert run.begin_attempt(0).crashes == 0
    assert run.begin_attempt(0).crashes == 1
    run.lease.release()
    resumed = SweepRun(database, sweep_start())
    assert resumed.begin_attempt(0).crashes == 1
    resumed.excuse(0, 1, "its node left")  # noticed once more: it is taken back only once
    resumed.excuse(0, 2, "its node left")  # and this one never counted
    assert resumed.trials[0].crashes == 1
    texts = [happening.text for happening in read_history(database, run.id)]
    assert "attempt 1 of trial 0 does not count: its node left" in texts
    resumed.lease.release()
