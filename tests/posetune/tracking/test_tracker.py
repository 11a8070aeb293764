"""The tracker beside a driver: it ships, and never keeps the driver from ending."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.waiting import wait_until

from posetune.api import BadInputError
from posetune.home import Home
from posetune.study.reading import read_sweep
from posetune.study.tables.shipped import ShippingLag, read_lags
from posetune.tracking import tracker as tracker_module
from posetune.tracking.projection import ship
from posetune.tracking.tracker import Tracker

Read = Callable[[Home], dict[str, dict[str, Any]]]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracker_module, "HEAD_START_S", 0.0)
    monkeypatch.setattr(tracker_module, "PERIOD_S", 0.05)


@pytest.mark.slow
def test_a_tracker_ships_beside_the_driver_and_to_the_end(scene: Any, shown: Read) -> None:
    run = scene.open()
    tracker = Tracker(scene.database, "first", scene.home)
    tracker.start()
    scene.run_trial(run, 5.0)
    wait_until(
        lambda: read_sweep(scene.database, "first").trials[0].mlflow_run_id,
        "the first trial in MLflow",
    )
    assert shown(scene.home)["first"]["status"] == "RUNNING"
    for value in (8.0, 3.0, 4.0):
        scene.run_trial(run, value)
    run.close("finished")

    assert tracker.stop(300.0)
    assert tracker.error == ""
    assert {r["status"] for r in shown(scene.home).values()} == {"FINISHED"}
    assert shown(scene.home)["first"]["tags"]["posetune.state"] == "complete"
    with scene.database.reading() as connection:
        assert read_lags(connection) == {"first": ShippingLag(0, None)}


def test_a_tracker_without_mlflow_says_so_and_lets_the_driver_end(scene: Any) -> None:
    run = scene.open()
    scene.run_trial(run, 5.0)
    away = scene.home.model_copy(update={"tracking": "http://me:secret@127.0.0.1:9"})
    tracker = Tracker(scene.database, "first", away)
    tracker.start()
    wait_until(lambda: tracker.error, "a tracker that finds no server")

    assert not tracker.stop(0.1)
    assert "127.0.0.1" in tracker.error
    assert "secret" not in tracker.error
    with scene.database.reading() as connection:
        lag = read_lags(connection)["first"]
    assert lag.events == read_sweep(scene.database, "first").seq, "all of it waits"
    with pytest.raises(BadInputError, match=r"MLflow at http://127\.0\.0\.1:9: .*nothing is lost"):
        ship(scene.database, "first", away)


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port where somebody accepts, and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        yield silent.getsockname()[1]


def test_what_has_hung_for_longer_than_there_is_time_is_given_a_second_more(
    scene: Any, silent_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.open()
    home = scene.home.model_copy(update={"tracking": f"http://127.0.0.1:{silent_port}"})
    tracker = Tracker(scene.database, "first", home)
    waited: list[float] = []
    monkeypatch.setattr(tracker._shipped, "wait", waited.append)
    tracker.start()
    wait_until(lambda: tracker._begun < time.monotonic() - 1.5, "a pass that hangs")

    assert not tracker.stop(300.0)
    assert tracker.error == ""
    assert not tracker.stop(1.5)
    assert waited == [300.0, tracker_module.HANGING_S]
    assert "it has been busy for" in tracker.error


@pytest.mark.slow
def test_a_process_ends_while_mlflow_hangs(scene: Any, silent_port: int) -> None:
    scene.run_all()
    script = (
        "import sys\n"
        "from posetune.home import Home\n"
        "from posetune.study.tables.database import open_database\n"
        "from posetune.tracking.tracker import Tracker\n"
        "home = Home.model_validate_json(sys.argv[1])\n"
        "tracker = Tracker(open_database(home.database), 'first', home)\n"
        "tracker.start()\n"
        "sys.exit(7 if not tracker.stop(1.0) else 0)\n"
    )
    home = scene.home.model_copy(update={"tracking": f"http://127.0.0.1:{silent_port}"})
    ended = subprocess.run(
        [sys.executable, "-c", script, home.model_dump_json()],
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode == 7
    assert ended.stderr == ""
