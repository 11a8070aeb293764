"""What people do to a sweep: on either database, with a driver at work and without."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.asking import ANA, begin, driver, opening, want
from support.simulated_driver import drive, happened, open_unsynced, simulated_start

from posetune.api import BadInputError
from posetune.spec.sweep import SweepSpec
from posetune.study import act_events
from posetune.study.acts.act import AddNote, EditSweep, Enqueue, HoldSweep, ReleaseSweep, SetTag
from posetune.study.acts.deciding import ActRefusedError
from posetune.study.driving.sweep import SweepRun
from posetune.study.driving.sweep_start import SweepStart
from posetune.study.history import read_history
from posetune.study.reading import read_sweep
from posetune.study.tables.database import Database
from posetune.study.view import TrialView

# -- notes and tags -----------------------------------------------------------


def test_notes_and_tags_are_there_at_once_where_no_driver_is_at_work(database: Database) -> None:
    drive(database, opening())
    driven_s = read_sweep(database, "s").driven_s
    assert not want(database, AddNote(text="good", trial=1)).request.is_waiting
    want(database, SetTag(name="paper", value="fig-3"))
    want(database, SetTag(name="bad", value=""))
    want(database, SetTag(name="bad", value=None))
    view = read_sweep(database, "s")
    assert [(r.by, r.text) for r in view.trials[1].remarks] == [(ANA, "good")]
    assert view.tags == {"paper": "fig-3"}
    assert view.driven_s == driven_s, "a note is no driver at work"
    told = [h.text for h in read_history(database, view.id)]
    assert f"{ANA} noted: good" in told
    assert f"{ANA} tagged: paper = fig-3" in told


# -- hold and release -----------------------------------------------------------


def test_a_held_sweep_starts_nothing_until_it_is_released(database: Database) -> None:
    now = [1000.0]
    start = opening(budget={"trials": 3, "wall_hours": 1})
    run = SweepRun(database, start, clock=lambda: now[0])
    at_work = begin(run)
    now[0] += 60
    at_work.step()
    want(database, HoldSweep())
    run.take_up_requests()
    assert run.held == f"held by {ANA} (posetune release s)"
    assert run.waits_for == run.held
    at_work.hand_over()
    view = read_sweep(database, "s")
    assert (view.state, view.held_by, view.trials[0].state) == ("RUNNING", ANA, "INTERRUPTED")
    now[0] += 7200
    assert not run.spent, "the hours do not run while it is held"
    want(database, ReleaseSweep())
    run.take_up_requests()
    assert not run.held
    assert not run.spent
    assert run.state.driven_s < 120
    again = begin(run)
    assert (again.number, again.epoch) == (0, 1)
    assert run.trials[0].crashes == 0
    run.lease.release()


def test_a_sweep_stays_held_whatever_becomes_of_its_driver(database: Database) -> None:
    with driver(database) as run:
        want(database, HoldSweep())
        run.take_up_requests()
    with driver(database) as run:
        assert run.held
    want(database, ReleaseSweep())
    with driver(database) as run:
        assert not run.held


# -- edit -----------------------------------------------------------


def edited(start: SweepStart, **changes: object) -> tuple[EditSweep, SweepStart]:
    """Return an edit of a sweep, and what the sweep is continued with from then on."""
    spec = SweepSpec.model_validate({**start.spec.canonical(), **changes})
    new = SweepStart("s", spec, "another text", "store", "d1", {}, start.defaults)
    return EditSweep(spec=spec.canonical(), source=new.source), new


def told(trial: TrialView) -> tuple[object, ...]:
    """What of a trial that has ended no edit changes: its place and its files may change."""
    how = trial.state, trial.reason, trial.epochs, trial.value
    return (trial.number, trial.params, trial.seed, *how)


def test_an_edited_sweep_has_other_bounds_budget_and_rungs_from_then_on(
    database: Database,
) -> None:
    start = simulated_start(budget={"trials": 6})
    drive(database, start)
    before = read_sweep(database, "s")
    search = {"x": {"float": [0.5, 1.0]}, "depth": {"int": [2, 16], "step": 2}}
    act, new = edited(
        start,
        search=search,
        budget={"trials": 12},
        pruner={"max_epochs": 9, "grace_epochs": 2, "reduction_factor": 2},
    )
    want(database, act)
    drive(database, new)
    view = read_sweep(database, "s")
    (event,) = happened(database, act_events.SweepEdited)
    assert event.outside == [t.number for t in before.trials if not 0.5 <= t.params["x"] <= 1.0]
    assert event.outside
    assert any(line.startswith("search.x: ") for line in event.changed)
    assert len(view.trials) == 12
    assert all(0.5 <= t.params["x"] <= 1.0 for t in view.trials[6:])
    assert {t.epochs for t in view.trials[6:]} <= {2, 4, 8, 9}
    assert [told(trial) for trial in view.trials[:6]] == [told(trial) for trial in before.trials]
    assert view.source == "another text"
    with pytest.raises(BadInputError, match="was started with another file"):
        SweepRun(database, start)


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_what_was_enqueued_is_trained_whatever_an_edit_makes_of_the_bounds(
    tmp_path: Path, sampler: str
) -> None:
    database = open_unsynced(tmp_path / "study.db")
    search = {"x": {"choice": [0.1, 0.2, 0.3, 0.4]}, "depth": {"choice": [2, 4]}}
    start = opening(search=search, sampler={"name": sampler}, budget={"trials": 20})
    fewer = {**search, "x": {"choice": [0.2, 0.3, 0.4]}}
    act, new = edited(start, search=fewer, sampler={"name": sampler}, budget={"trials": 20})
    with driver(database, start) as run:
        begin(run)
        want(database, Enqueue(params={"x": 0.1, "depth": 2}))
        want(database, act)
        run.take_up_requests()
    drive(database, new)
    view = read_sweep(database, "s")
    assert view.state == "COMPLETE"
    assert view.trials[1].params == {"x": 0.1, "depth": 2}
    points = [tuple(trial.params.values()) for trial in view.trials]
    within = {(x, depth) for x in (0.2, 0.3, 0.4) for depth in (2, 4)}
    assert sorted(set(points) - {(0.1, 2), points[0]}) == sorted(within - {points[0]})
    assert len(points) == len(set(points)), "no point is tried twice"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"sampler": {"seed": 7}}, "sampler.seed: 0 -> 7: an edit changes budget"),
        ({"pruner": {"max_epochs": 5}}, "pruner.max_epochs: 4 -> 5"),
        ({"search": {"x": {"float": [0.5, 1.0]}}}, "the same fields other bounds"),
        ({}, "the file says what the sweep has already"),
    ],
)
def test_an_edit_changes_nothing_else(tmp_path: Path, changes: dict[str, object], why: str) -> None:
    database = open_unsynced(tmp_path / "study.db")
    drive(database, opening())
    act, _ = edited(opening(), **changes)
    with pytest.raises(ActRefusedError, match=why):
        want(database, act)


def test_what_belongs_to_the_machine_may_change_in_the_file_at_any_time(
    database: Database,
) -> None:
    drive(database, opening(resources={"concurrent": 1}))
    with driver(database, opening(resources={"concurrent": 7}, budget={"trials": 4})) as run:
        assert run.spec.resources.concurrent == 7
        assert read_sweep(database, "s").spec.resources.concurrent == 7
    with pytest.raises(BadInputError, match="resources"):
        SweepRun(database, opening(resources={"cpu": 2}))
