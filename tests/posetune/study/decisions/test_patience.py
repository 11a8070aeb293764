"""A sweep that ends once what is left of it gains less than a lucky seed."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.simulated_driver import (
    SimulatedTrial,
    drive,
    happened,
    open_unsynced,
    simulated_loss,
    simulated_start,
)

from posetune.report.findings.search_notes import patience_line
from posetune.report.sweep_json import as_json
from posetune.report.tables import next_steps
from posetune.spec.sweep import SweepSpec
from posetune.study import events
from posetune.study.acts.act import EditSweep
from posetune.study.acts.asking import ask
from posetune.study.driving.sweep import SweepRun, SweepStart
from posetune.study.reading import read_sweep
from posetune.study.search.rungs import Decision
from posetune.study.search.seed_noise import noise_of_audit, noise_of_repeats, what_is_missing
from posetune.study.tables.database import Database
from posetune.study.view import SweepView

FULL = {"name": "none", "max_epochs": 2}


@pytest.fixture
def study(tmp_path: Path) -> Database:
    return open_unsynced(tmp_path / "study.db")


def patient(patience: int | None = 3, **changes: Any) -> SweepStart:
    sampler = {"name": "random", "repeats": 2}
    budget = {"trials": 60, "patience": patience}
    return simulated_start(**{"sampler": sampler, "pruner": FULL, "budget": budget, **changes})


def driven(study: Database, start: SweepStart, noise: float) -> SweepView:
    drive(study, start, noise=noise)
    return read_sweep(study, "s")


@pytest.mark.slow
def test_a_sweep_ends_when_what_is_left_gains_less_than_the_noise(study: Database) -> None:
    view = driven(study, patient(), 0.5)
    assert 10 <= len(view.trials) < 60
    found = re.fullmatch(
        r"the patience of 3 trials is over: the expected gain of what is left, (\S+) \((\S+) to "
        r"(\S+)\), is below the noise between seeds, (\S+) "
        r"\((\d+) trials with (\d+) sets of parameters\)",
        view.patience_over,
    )
    assert found, view.patience_over
    mean, low, high, noise = map(float, found.groups()[:4])
    assert 0 <= low <= mean
    assert max(mean, high) < noise
    assert 0.2 < noise < 0.9, "it was drawn with 0.5"
    ends = happened(study, events.TrialEnded)
    in_noise = [end.gain is not None and end.gain.is_noise for end in ends]
    assert in_noise[-3:] == [True] * 3
    assert not any(all(in_noise[i : i + 3]) for i in range(len(ends) - 3)), "at the first chance"


@pytest.mark.slow
def test_a_sweep_whose_seeds_differ_little_runs_on_while_there_is_something_to_gain(
    study: Database,
) -> None:
    view = driven(study, patient(budget={"trials": 24, "patience": 3}), 0.01)
    assert view.state == "COMPLETE"
    assert view.gain is not None
    assert not view.patience_over
    assert "may be above the noise between seeds" in patience_line(view)
    assert as_json(view)["expected_gain"]["noise"] == view.gain.noise


def test_without_a_patience_nothing_is_estimated(study: Database) -> None:
    view = driven(study, patient(None, budget={"trials": 12}), 0.5)
    assert len(view.trials) == 12
    assert view.gain is None
    assert patience_line(view) == ""


def test_where_nothing_tells_the_noise_the_sweep_runs_to_its_end_and_says_so(
    study: Database,
) -> None:
    start = patient(sampler={"name": "random"}, budget={"trials": 14, "patience": 1})
    view = driven(study, start, 0.5)
    assert view.state == "COMPLETE"
    assert view.gain is None
    assert patience_line(view).startswith("patience: it is not known yet")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sampler": {"repeats": 2}}, ""),
        ({"pruner": {"max_epochs": 9, "audit_share": 0.1}}, ""),
        ({"budget": {"trials": 14}}, ""),
        ({}, "nothing tells the noise between seeds"),
        ({"pruner": {"max_epochs": 9}}, "give pruner.audit_share: 0.1, sampler.repeats: 2"),
        ({"sampler": {"start_from": ["old"]}}, "beyond those that it starts from"),
    ],
)
def test_what_is_missing_is_said_in_one_line(changes: dict[str, Any], words: str) -> None:
    content = {"budget": {"trials": 14, "patience": 2}, "pruner": FULL, **changes}
    said = what_is_missing(simulated_start(**content).spec)
    assert words in said
    assert bool(said) == bool(words)
    assert "\n" not in said


def test_finalists_tell_the_noise(study: Database) -> None:
    assert what_is_missing(patient(sampler={}).spec, has_finalists=True) == ""
    start = patient(1, sampler={"name": "random"}, budget={"trials": 14, "patience": 1})
    values = ((1.0, 1.6, 0.4), (2.0, 2.6, 1.4))
    view = driven(study, SweepStart(**{**vars(start), "finalists": values}), 0.0)
    assert view.gain is not None
    assert view.gain.noise == pytest.approx(0.6)
    assert view.gain.noise_from == "6 trials with 2 sets of parameters"


@pytest.mark.slow
def test_audited_trials_tell_something_like_it(study: Database) -> None:
    start = simulated_start(
        sampler={"name": "random"},
        pruner={"max_epochs": 4, "grace_epochs": 2, "reduction_factor": 2, "audit_share": 0.5},
        budget={"trials": 30, "patience": 30},
    )
    view = driven(study, start, 0.5)
    assert view.gain is not None
    assert re.fullmatch(r"\d+ audited trials", view.gain.noise_from)
    # A trial's luck is the same at the rung and at the end here, so the rung foretells the end.
    assert view.gain.noise < 0.01


@pytest.mark.slow
def test_a_longer_patience_in_the_file_lets_the_sweep_go_on(study: Database) -> None:
    before = driven(study, patient(2), 0.5)
    run = SweepRun(study, patient(60))
    assert before.patience_over
    assert not run.spent
    assert run.may_start
    assert run.state.gains_in_noise == before.gains_in_noise
    run.close("stopped by me")
    assert read_sweep(study, "s").gain == before.gain


@pytest.mark.slow
def test_a_sweep_to_a_maximum_ends_at_the_same_trial(study: Database, tmp_path: Path) -> None:
    def ends(database: Database, mode: str, sign: int) -> list[events.TrialEnded]:
        run = SweepRun(database, patient(2, objective={"metric": "loss", "mode": mode}))
        while not run.spent and (trial := run.next_trial()) is not None:
            at_work = SimulatedTrial(run, trial.number, noise=0.5)
            decision = Decision.CONTINUE
            while decision == Decision.CONTINUE:
                value = simulated_loss(at_work.params, at_work.epoch + 1) + at_work.luck
                decision = at_work.step({"loss": sign * value})
        run.close(run.spent)
        return happened(database, events.TrialEnded)

    low = ends(study, "min", 1)
    high = ends(open_unsynced(tmp_path / "high.db"), "max", -1)
    assert len(low) == len(high) < 60
    for one, other in zip(low, high, strict=True):
        assert (one.gain is None) == (other.gain is None)
        if one.gain is not None and other.gain is not None:
            assert one.gain.mean == pytest.approx(other.gain.mean)
            assert one.gain.noise == pytest.approx(other.gain.noise)


@pytest.mark.slow
def test_what_to_do_next_is_to_promote_or_to_be_more_patient(study: Database) -> None:
    drive(study, patient(2), noise=0.5)
    run = SweepRun(study, patient(2))
    run.close(run.spent)
    view = read_sweep(study, "s")
    assert view.stopped == view.patience_over
    assert "give budget.patience a higher number in the file, or none" in next_steps(view)


@pytest.mark.parametrize("seed", range(5))
def test_repeats_tell_the_spread_they_were_drawn_with_wherever_their_means_lie(seed: int) -> None:
    generator = np.random.default_rng(seed)
    means = generator.normal(0, 100, size=(200, 1))
    groups = (means + generator.normal(0, 3.0, size=(200, 3))).tolist()
    found = noise_of_repeats([*groups, [5.0], [math.nan, 7.0]])
    assert found is not None
    assert found.spread == pytest.approx(3.0, rel=0.15)
    assert found.source == "600 trials with 200 sets of parameters"
    assert noise_of_repeats([[1.0, 2.0], [3.0, 4.0]]) is None, "too few"


@pytest.mark.parametrize("seed", range(5))
def test_an_audit_tells_the_spread_around_what_the_rung_foretells(seed: int) -> None:
    generator = np.random.default_rng(seed)
    rung = generator.uniform(0, 100, 60)
    end = 5 + 0.7 * rung + generator.normal(0, 2.0, 60)
    end[7] = 1e6  # one diverged
    found = noise_of_audit(rung.tolist(), end.tolist(), 10)
    assert found is not None
    assert found.spread == pytest.approx(2.0, rel=0.4)
    assert noise_of_audit(rung.tolist(), end.tolist(), 2) is None, "too few"
    assert noise_of_audit([1.0] * 9, [1.0] * 9, 9) is None, "the rung tells nothing apart"


def test_where_an_edit_left_trials_outside_of_the_bounds_nothing_is_told(study: Database) -> None:
    search = {"x": {"choice": [0.1, 0.3, 0.7, 1.0, 3.0]}, "depth": {"int": [2, 16], "step": 2}}
    narrow = {**search, "x": {"choice": [0.7, 1.0, 3.0]}}
    start = patient(9, search=search, budget={"trials": 16, "patience": 9})
    run = SweepRun(study, start)
    while len(run.trials) < 11 and (trial := run.next_trial()) is not None:
        at_work = SimulatedTrial(run, trial.number, noise=0.5)
        while at_work.step() == Decision.CONTINUE:
            pass
    run.lease.release()
    before = len(happened(study, events.TrialEnded))
    assert {trial.params["x"] for trial in run.trials} & {0.1, 0.3}
    spec = SweepSpec.model_validate({**start.spec.canonical(), "search": narrow})
    ask(study, "s", EditSweep(spec=spec.canonical(), source="narrow"), by="ana@laptop", wait_s=0.0)
    edited = SweepStart(**{**vars(start), "spec": spec, "source": "narrow"})
    view = driven(study, edited, 0.5)
    assert view.state == "COMPLETE"
    assert len(view.trials) == 16
    assert not any(end.gain for end in happened(study, events.TrialEnded)[before:])
