"""What ends a worker or asks a driver to stop, through real Ray: nothing but time is lost.

One trial at a time, so the sweep must end bit for bit as an undisturbed one does.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import ray
from support.commands import Posetune
from support.simulated_driver import outcome
from support.sweeps import Driver, Script, beside, events, open_study, partial_seconds, until, view

from posetune.execution import preemption
from posetune.study.events import AttemptPlaced
from posetune.study.tables import schema

pytestmark = [pytest.mark.ray, pytest.mark.slow]

Write = Callable[..., Path]

SAY = "an epoch begins"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def epochs_begun(home: Path) -> int:
    """How often an epoch was begun, from its start or within it."""
    return sum(log.read_text().count(SAY) for log in (home / "storage/logs/s").glob("*.log"))


def check_outcome(home: Path, undisturbed: str, *, disturbances: int) -> None:
    """As if nothing had happened, and no disturbance cost more than the epoch it came in."""
    with open_study(home) as database:
        assert outcome(database) == undisturbed
    found = view(home)
    assert found is not None
    assert found.state == "COMPLETE"
    assert sum(trial.attempts for trial in found.trials) == len(found.trials) + disturbances
    assert len(events(home, AttemptPlaced)) == len(found.trials) + disturbances
    assert epochs_begun(home) == len(found.reports) + disturbances


@pytest.mark.long
def test_workers_killed_out_of_memory_or_told_to_stop_lose_at_most_an_epoch(
    posetune: Posetune,
    ray_head: str,
    undisturbed: str,
    compared_sweep: Write,
    home: Path,
    tmp_path: Path,
) -> None:
    script = Script(tmp_path / "script", "SIGKILL", "go", "MemoryError", "go", "SIGTERM")
    file = compared_sweep(script=str(script.file), say=SAY)
    result = posetune("sweep", file, "--name", "s", "--address", ray_head, "--no-tracking")
    assert result.returncode == 0, result.stderr
    assert script.is_over()
    check_outcome(home, undisturbed, disturbances=3)
    (seconds,) = partial_seconds(home)  # told to stop, it saved half an epoch; it counts
    assert seconds > 0
    found = view(home)
    assert found is not None
    assert all(trial.placement["device"] == "cpu" for trial in found.trials)


def check_stopped(home: Path, code: int, output: str, number: signal.Signals) -> None:
    assert code == 130, output
    assert f"stopped by {number.name}; the same command again continues it" in output
    assert len(partial_seconds(home)) == 1
    assert not list(home.glob("**/stop"))
    found = view(home)
    assert found is not None
    assert found.state == "INTERRUPTED"
    assert "RUNNING" not in {trial.state for trial in found.trials}


def test_a_driver_that_is_interrupted_and_told_again_saves_the_epoch_under_way(
    posetune: Posetune,
    ray_head: str,
    undisturbed: str,
    compared_sweep: Write,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(preemption, "HAND_OVER_S", 200.0)
    script = Script(tmp_path / "script", "go", "wait")
    file = compared_sweep(script=str(script.file), say=SAY)
    command = ("sweep", file, "--name", "s", "--address", ray_head, "--no-tracking")

    def interrupt() -> None:
        until(script.is_over)
        os.kill(os.getpid(), signal.SIGINT)

    def shut_down_while_told_again() -> None:
        os.kill(os.getpid(), signal.SIGTERM)  # as a batch system does that waits no longer
        shut_down()

    shut_down = ray.shutdown
    with monkeypatch.context() as patched, beside(interrupt):
        patched.setattr(ray, "shutdown", shut_down_while_told_again)
        result = posetune(*command)
    check_stopped(home, result.returncode, result.stderr, signal.SIGTERM)
    assert posetune(*command).returncode == 0
    check_outcome(home, undisturbed, disturbances=1)


@pytest.mark.long
def test_a_driver_with_a_ray_of_its_own_saves_the_epoch_under_way_on_sigterm(
    posetune: Posetune,
    ray_head: str,
    undisturbed: str,
    compared_sweep: Write,
    home: Path,
    tmp_path: Path,
) -> None:
    """Ray takes the signal when it starts, and would abort on it."""
    script = Script(tmp_path / "script", "go", "wait")
    file = compared_sweep(script=str(script.file), say=SAY)
    driver = Driver(tmp_path, "sweep", file, "--name", "s", "--no-tracking", patient=True)
    driver.until(script.is_over)
    code = driver.end(signal.SIGTERM)
    check_stopped(home, code, driver.output, signal.SIGTERM)
    again = posetune("sweep", file, "--name", "s", "--address", ray_head, "--no-tracking")
    assert again.returncode == 0, again.stderr
    check_outcome(home, undisturbed, disturbances=1)


@pytest.mark.long
def test_the_driver_is_out_though_neither_mlflow_nor_the_worker_answers(
    toy_sweep: Write, ray_head: str, home: Path, tmp_path: Path
) -> None:
    """The worker would take an hour, and MLflow never answers; see `bench_platform` for seconds."""
    file = toy_sweep(trials=2, max_epochs=3, concurrent=1, stuck_above=0)
    with socket.create_server(("127.0.0.1", 0)) as server:  # accepts, and never says a word
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        command = ("sweep", file, "--name", "s", "--address", ray_head)
        driver = Driver(tmp_path, *command, MLFLOW_TRACKING_URI=address)
        driver.until(lambda: events(home, AttemptPlaced))
        code = driver.end(signal.SIGTERM)
    assert code == 130, driver.output
    assert "the same command again continues it" in driver.output
    assert "MLflow is behind" in driver.output


@pytest.mark.long
def test_a_store_that_changes_under_a_running_sweep_stops_it_with_nothing_lost(
    posetune: Posetune,
    compared_sweep: Write,
    ray_head: str,
    toy_store: Path,
    home: Path,
    tmp_path: Path,
) -> None:
    script = Script(tmp_path / "script", "go", "wait")
    file = compared_sweep(script=str(script.file))
    command = ("sweep", file, "--name", "s", "--address", ray_head, "--no-tracking")
    content = (toy_store / "toy.json").read_text()

    def change() -> None:
        until(script.is_over)
        (toy_store / "toy.json").write_text('{"image_size": 9}')
        script.let_go()

    with beside(change):
        result = posetune(*command)
    assert result.returncode == 2, result.stderr
    assert f"store {toy_store}: has changed under the running sweep" in result.stderr
    assert "Traceback" not in result.stderr
    found = view(home)
    assert found is not None
    assert found.state == "INTERRUPTED"
    assert "FAILED" not in {trial.state for trial in found.trials}
    (toy_store / "toy.json").write_text(content)
    assert posetune(*command).returncode == 0
    found = view(home)
    assert found is not None
    assert found.state == "COMPLETE"


@pytest.mark.long
def test_a_driver_that_was_replaced_stops_and_says_so(
    posetune: Posetune, compared_sweep: Write, ray_head: str, home: Path, tmp_path: Path
) -> None:
    script = Script(tmp_path / "script", "go", "wait")
    file = compared_sweep(script=str(script.file))

    def replace() -> None:
        until(script.is_over)
        with open_study(home) as study:
            study.write(lambda connection: connection.execute(change))
        script.let_go()

    change = schema.lease.update().values(holder="x")
    with beside(replace):
        result = posetune("sweep", file, "--name", "s", "--address", ray_head, "--no-tracking")
    assert result.returncode == 1, result.stderr
    assert "another driver has taken this sweep over" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_sweep_is_stopped_from_elsewhere_and_its_log_says_what_happened(
    posetune: Posetune,
    posetune_process: Posetune,
    compared_sweep: Write,
    ray_head: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(preemption, "HAND_OVER_S", 200.0)
    script = Script(tmp_path / "script", "go", "wait")
    file = compared_sweep(script=str(script.file), say="hello from the trial")
    stopped: list[subprocess.CompletedProcess[str]] = []

    def stop() -> None:
        until(script.is_over)
        stopped.append(posetune_process("stop", "s"))

    with beside(stop):
        result = posetune("sweep", file, "--name", "s", "--address", ray_head, "--no-tracking")
    assert result.returncode == 130, result.stderr
    assert stopped[0].returncode == 0, stopped[0].stderr
    assert "INTERRUPTED, stopped by" in stopped[0].stderr
    again = posetune("stop", "s")
    assert (again.returncode, "has no driver to stop" in again.stderr) == (2, True)
    log = posetune("logs", "s", "--trial", "0").stderr
    for words in ("asked: x=0.3", "attempt 1 trains on", "epoch 1: ", "handed over within epoch 2"):
        assert words in log
    assert "hello from the trial" in log
    assert "the driver stopped: stopped by" in posetune("logs", "s").stderr
    missing = posetune("logs", "s", "--trial", "7")
    assert (missing.returncode, "--trial 7" in missing.stderr) == (2, True)
