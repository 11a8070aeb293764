"""What a projection writes to MLflow, and what is left of one that died, stopped or ran twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
from mlflow import MlflowClient

from posetune.home import Home
from posetune.tracking import projection
from posetune.tracking.projection import Projection, ship
from posetune.tracking.server import connection

Shown = dict[str, Any]
Read = Callable[[Home], dict[str, Shown]]


class _Faulty:
    """A client that dies at its n-th writing call, before or after it takes effect."""

    WRITES = ("create_run", "log_batch", "log_inputs", "log_artifacts", "log_figure", "log_text")
    ENDS = ("set_terminated", "update_run")

    def __init__(self, client: Any, calls: list[str], *, at: int, after: bool = False) -> None:
        self._client, self._calls, self._at, self._after = client, calls, at, after

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        if name not in (*self.WRITES, *self.ENDS):
            return method

        def call(*args: Any, **kwargs: Any) -> Any:
            self._calls.append(name)
            dies = len(self._calls) - 1 == self._at
            if dies and not self._after:
                raise ConnectionError("died before")
            result = method(*args, **kwargs)
            if dies:
                raise ConnectionError("died after")
            return result

        return call


@pytest.mark.slow
def test_an_up_to_date_projection_calls_mlflow_no_more(
    scene: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.run_all()
    calls: list[str] = []
    kept = Projection(scene.database, "first", scene.home)
    kept.advance()
    kept._runs.client = _Faulty(kept._runs.client, calls, at=-1)
    kept.advance()

    assert calls == []


def test_a_pass_makes_one_call_per_run_with_news(scene: Any) -> None:
    run = scene.open()
    tracked = Projection(scene.database, "first", scene.home)
    number, attempt = scene.begin(run)
    tracked.advance()
    calls: list[str] = []
    tracked._runs.client = _Faulty(tracked._runs.client, calls, at=-1)
    scene.epoch(run, number, attempt, value=5.0)
    scene.epoch(run, number, attempt, value=4.0)
    tracked.advance()

    assert calls == ["log_batch"] * 2, "the trial's, and the sweep's, whose best has improved"


@pytest.mark.long
@pytest.mark.slow
def test_dying_at_any_write_leaves_nothing_twice_and_nothing_out(
    scene: Any, contents: Read, other_home: Callable[[str], Home], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = scene.open()
    scene.run_trial(run, 5.0)
    scene.run_trial(run, 8.0)
    run.close("stopped")
    whole = other_home("whole")
    calls: list[str] = []

    def dying(at: int, *, after: bool, log: list[str]) -> Callable[[Home], Any]:
        return lambda home: _Faulty(connection.connect(home), log, at=at, after=after)

    monkeypatch.setattr(projection, "connect", dying(-1, after=False, log=calls))
    ship(scene.database, "first", whole)
    expected = contents(whole)
    assert {"create_run", "log_batch", "set_terminated", "log_figure"} <= set(calls)

    # Dying after a call is dying before the next; only a run that was made is also recorded.
    moments = [(at, after) for at in range(len(calls)) for after in (False, True)]
    for at, after in [m for m in moments if not m[1] or calls[m[0]] == "create_run"]:
        home = other_home(f"{at}-{after}")
        monkeypatch.setattr(projection, "connect", dying(at, after=after, log=[]))
        with pytest.raises(ConnectionError):
            Projection(scene.database, "first", home).advance()
        monkeypatch.setattr(projection, "connect", connection.connect)
        ship(scene.database, "first", home)
        assert contents(home) == expected, (at, calls[at], after)


@pytest.mark.slow
def test_of_two_runs_of_one_trial_one_is_kept(scene: Any, shown: Read) -> None:
    run = scene.open()
    number, attempt = scene.begin(run)
    ship(scene.database, "first", scene.home)
    first = shown(scene.home)["first-000"]
    client = MlflowClient(scene.home.tracking)
    tags = {k: first["tags"][k] for k in ("posetune.sweep_id", "posetune.trial")}
    experiment = client.get_run(first["id"]).info.experiment_id
    client.create_run(experiment, tags=tags, run_name="late answer")
    scene.epoch(run, number, attempt, value=5.0)
    ship(scene.database, "first", scene.home)

    assert set(shown(scene.home)) == {"first", "first-000"}
    assert shown(scene.home)["first-000"]["id"] == first["id"]


@pytest.mark.slow
def test_trials_left_open_are_killed_and_run_again_on_resume(scene: Any, shown: Read) -> None:
    run = scene.open()
    number, attempt = scene.begin(run)
    scene.epoch(run, number, attempt, value=5.0)
    ship(scene.database, "first", scene.home)
    live = shown(scene.home)
    run.close("stopped by SIGINT")
    ship(scene.database, "first", scene.home)
    stopped = shown(scene.home)
    run = scene.open()
    number, attempt = scene.begin(run)
    ship(scene.database, "first", scene.home)
    again = shown(scene.home)

    assert {n: r["status"] for n, r in live.items()} == dict.fromkeys(live, "RUNNING")
    assert {n: r["status"] for n, r in stopped.items()} == dict.fromkeys(live, "KILLED")
    assert stopped["first"]["tags"]["posetune.reason"] == "stopped by SIGINT"
    assert {n: r["status"] for n, r in again.items()} == dict.fromkeys(live, "RUNNING")
    assert {n: r["id"] for n, r in again.items()} == {n: r["id"] for n, r in live.items()}
    assert again["first-000"]["tags"]["posetune.attempts"] == "2"


_DRIVER = """
import json, sys, time
from posetune.spec.sweep import SweepSpec
from posetune.study.tables.database import open_database
from posetune.study.driving.sweep import SweepStart, SweepRun
address, spec = sys.argv[1], json.loads(sys.argv[2])
sweep_start = SweepStart(name="first", spec=SweepSpec.model_validate(spec), source="", store="/s",
                  store_digest="d" * 64, provenance={}, defaults={"x": 0.3, "depth": 4})
run = SweepRun(open_database(address), sweep_start)
trial = run.next_trial()
attempt = run.begin_attempt(trial.number)
run.report(trial.number, attempt.number, epoch=1, metrics={"val/error_mm": 5.0}, seconds=1.0,
           checkpoint=None)
print("ready", flush=True)
time.sleep(60)
"""


@pytest.mark.slow
def test_runs_of_a_driver_killed_outright_are_killed(
    scene: Any, shown: Read, sweep_spec: dict[str, Any]
) -> None:
    command = [sys.executable, "-c", _DRIVER, scene.home.database, json.dumps(sweep_spec)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        assert driver.stdout.readline() == "ready\n"
        ship(scene.database, "first", scene.home)
        live = shown(scene.home)
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
    ship(scene.database, "first", scene.home)
    dead = shown(scene.home)

    assert {r["status"] for r in live.values()} == {"RUNNING"}
    assert {r["status"] for r in dead.values()} == {"KILLED"}
    assert {n: r["id"] for n, r in dead.items()} == {n: r["id"] for n, r in live.items()}
    assert dead["first-000"]["history"] == live["first-000"]["history"]


@pytest.mark.slow
def test_two_shippers_at_once_make_each_run_once(scene: Any, shown: Read) -> None:
    scene.run_all()
    threads = [
        threading.Thread(target=ship, args=(scene.database, "first", scene.home)) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(shown(scene.home)) == 5
