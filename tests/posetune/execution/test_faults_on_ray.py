"""What the study decides of errors and deaths holds through real Ray: no trial ends otherwise."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support import faulty
from support.commands import Posetune
from support.processes import in_session
from support.simulated_driver import outcome
from support.sweeps import Driver, Script, events, open_study, view

from posetune.study.driving.sweep import SweepRun
from posetune.study.events import AttemptBegun, AttemptFailed, AttemptPlaced, TrialEnded

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.long]

WITHIN_S = 60.0
"""Seconds within which a driver whose Ray has died has to be out."""

Write = Callable[..., Path]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def faulty_sweep(file: Path, cls: type, **budget: object) -> Path:
    """Let a sweep file train a faulty trainable, with more limits."""
    more = "".join(f", {name}: {value}" for name, value in budget.items())
    text = file.read_text().replace("posetune.testing.toy:Toy", f"support.faulty:{cls.__name__}")
    head, _, trials = text.rpartition("budget: {")
    file.write_text(f"{head}budget: {{{trials.strip().rstrip('}')}{more}}}\n")
    return file


def test_a_reused_worker_killed_between_two_trials_costs_no_trial(
    posetune: Posetune,
    ray_head: str,
    undisturbed: str,
    compared_sweep: Write,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    finish, killed = SweepRun.finish, []

    def finish_and_kill(run: SweepRun, number: int) -> None:
        finish(run, number)
        if not killed:
            killed.append(int(run.trials[number].placement["pid"]))
            os.kill(killed[0], signal.SIGKILL)

    monkeypatch.setattr(SweepRun, "finish", finish_and_kill)
    file = compared_sweep()
    result = posetune("sweep", file, "--name", "s", "--address", ray_head, "--no-tracking")
    assert result.returncode == 0, result.stderr
    assert killed
    with open_study(home) as database:
        assert outcome(database) == undisturbed
    assert sum(event.is_crash for event in events(home, AttemptFailed)) <= 1


@pytest.mark.parametrize("process", ["raylet", "gcs_server"])
def test_a_driver_whose_own_ray_dies_ends_and_the_same_command_goes_on(
    process: str,
    posetune: Posetune,
    ray_head: str,
    undisturbed: str,
    compared_sweep: Write,
    home: Path,
    tmp_path: Path,
) -> None:
    script = Script(tmp_path / "script", "go", "wait")
    command = ("sweep", compared_sweep(script=str(script.file)), "--name", "s", "--no-tracking")
    driver = Driver(tmp_path, *command)
    driver.until(script.is_over)
    for pid in in_session(driver.pid, process):
        os.kill(pid, signal.SIGKILL)
    began = time.monotonic()
    code = driver.end()
    assert time.monotonic() - began < WITHIN_S
    assert code == 1, driver.output
    assert "Ray on this machine has died" in driver.output
    assert "the same command again continues the sweep" in driver.output
    assert "Traceback" not in driver.output
    script.let_go()
    again = posetune(*command, "--address", ray_head)
    assert again.returncode == 0, again.stderr
    with open_study(home) as database:
        assert outcome(database) == undisturbed
    assert not any(event.is_crash for event in events(home, AttemptFailed))


def test_a_trial_that_is_told_to_stop_at_one_point_again_and_again_has_an_end(
    toy_sweep: Write, home: Path, tmp_path: Path
) -> None:
    cls = faulty.SignalledToyAtStart
    file = faulty_sweep(toy_sweep(trials=1, max_epochs=3), cls)
    command = ("sweep", file, "--name", "s", "--no-tracking")
    driver = Driver(tmp_path, *command, **faulty.faulty_environment(cls))
    assert driver.end() == 1, driver.output
    found = view(home)
    assert found is not None
    (trial,) = found.trials
    assert (trial.state, trial.attempts) == ("FAILED", 7)
    assert "told to stop again and again" in trial.reason


def test_an_error_of_the_code_in_every_trial_ends_the_sweep_and_is_shown_once(
    toy_sweep: Write, home: Path, tmp_path: Path
) -> None:
    file = faulty_sweep(toy_sweep(trials=12), faulty.CodeError)
    command = ("sweep", file, "--name", "s", "--no-tracking")
    driver = Driver(tmp_path, *command, **faulty.faulty_environment(faulty.CodeError))
    assert driver.end() == 1, driver.output
    assert driver.output.count("Traceback (most recent call last)") == 1
    assert "NameError: name 'undefined_name' is not defined" in driver.output
    assert "the first 3 trials to fail have failed alike before the end of epoch 3" in driver.output
    assert "Next:" not in driver.output
    ends = events(home, TrialEnded)
    assert [end.state for end in ends].count("FAILED") == 3
    assert len(events(home, AttemptBegun)) <= len(ends) + 2  # none was tried again


def test_a_stuck_epoch_is_killed_and_trained_again(
    toy_sweep: Write, home: Path, tmp_path: Path
) -> None:
    cls = faulty.StuckToy
    written = toy_sweep(trials=1, max_epochs=3, say=str(tmp_path / "mark"))
    file = faulty_sweep(written, cls, stuck_after=20.0)  # a busy machine takes 5 for an epoch
    command = ("sweep", file, "--name", "s", "--no-tracking")
    driver = Driver(tmp_path, *command, **faulty.faulty_environment(cls))
    assert driver.end() == 0, driver.output
    (failed,) = events(home, AttemptFailed)
    assert (failed.fault.kind, failed.is_crash) == ("stuck", True)
    assert len(events(home, AttemptPlaced)) == 2
    log = (home / "storage/logs/s/00000.log").read_text()
    assert "no progress for 20 s: the worker is killed" in log
    assert "faulty.py" in log
