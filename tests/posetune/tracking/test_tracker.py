"""The tracker beside a driver: it ships, and never keeps the driver from ending."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from posetune.api import BadInputError
from posetune.home import Home
from posetune.tracking.projection import ship
from posetune.tracking.tracker import Tracker

Read = Callable[[Home], dict[str, dict[str, Any]]]


@pytest.mark.slow
def test_a_tracker_ships_beside_the_driver_and_to_the_end(
    scene: Any, shown: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("posetune.tracking.tracker.PERIOD_S", 0.05)
    run = scene.open()
    tracker = Tracker(scene.database, "first", scene.home)
    tracker.start()
    scene.run_trial(run, 5.0)
    deadline = time.monotonic() + 20
    while "first-000" not in shown(scene.home) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert shown(scene.home)["first"]["status"] == "RUNNING"
    for value in (8.0, 3.0, 4.0):
        scene.run_trial(run, value)
    run.close("finished")

    assert tracker.stop(20.0)
    assert tracker.error == ""
    assert {r["status"] for r in shown(scene.home).values()} == {"FINISHED"}
    assert shown(scene.home)["first"]["tags"]["posetune.state"] == "complete"


def test_a_tracker_without_mlflow_says_so_and_lets_the_driver_end(scene: Any) -> None:
    run = scene.open()
    scene.run_trial(run, 5.0)
    away = scene.home.model_copy(update={"tracking": "http://me:secret@127.0.0.1:9"})
    tracker = Tracker(scene.database, "first", away)
    tracker.start()
    started = time.monotonic()

    assert not tracker.stop(1.8)
    assert time.monotonic() - started < 2.5
    assert "127.0.0.1" in tracker.error
    assert "secret" not in tracker.error
    with pytest.raises(BadInputError, match=r"MLflow at http://127\.0\.0\.1:9: .*nothing is lost"):
        ship(scene.database, "first", away)


@pytest.mark.slow
def test_a_process_ends_while_mlflow_hangs(scene: Any) -> None:
    scene.run_all()
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never answers
        port = silent.getsockname()[1]
        script = (
            "import sys\n"
            "from posetune.home import Home\n"
            "from posetune.study.database import open_database\n"
            "from posetune.tracking.tracker import Tracker\n"
            "home = Home.model_validate_json(sys.argv[1])\n"
            "tracker = Tracker(open_database(home.database), 'first', home)\n"
            "tracker.start()\n"
            "sys.exit(7 if not tracker.stop(1.0) else 0)\n"
        )
        home = scene.home.model_copy(update={"tracking": f"http://127.0.0.1:{port}"})
        started = time.monotonic()
        ended = subprocess.run(
            [sys.executable, "-c", script, home.model_dump_json()],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    assert ended.returncode == 7
    assert ended.stderr == ""
    assert time.monotonic() - started < 15
