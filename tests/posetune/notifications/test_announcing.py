"""Promotions and rollbacks are told, and neither a kill nor a refusal makes a message untrue."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.mlflow_scene import scene
from support.receivers import HttpReceiver
from support.simulated_driver import simulated_start

from posetune.home import Home
from posetune.notifications.announcing import announcing
from posetune.notifications.delivery import record_destinations, send_waiting
from posetune.promotion.aliases import roll_back
from posetune.promotion.decision import promote
from posetune.promotion.request import Request
from posetune.spec.notify import Destination
from posetune.study.driving.sweep import SweepRun
from posetune.study.tables.database import Database, open_database
from posetune.testing.toy import Toy

__all__ = ["scene"]


@pytest.fixture
def of_home(notify_home: Home, http: HttpReceiver) -> Callable[[], Database]:
    """A study whose home has the HTTP server in its file."""
    (notify_home.folder / "posetune.yaml").write_text(f"notify: [{{webhook: {http.url}}}]\n")
    return lambda: open_database(notify_home.database)


@pytest.mark.slow
def test_a_promotion_goes_to_its_sweep_and_home_and_a_rollback_to_its_home(
    scene: Any, http: HttpReceiver, webhook: Destination
) -> None:
    (scene.home.folder / "posetune.yaml").write_text(
        f"notify: [{{webhook: {http.url}/home, events: [promoted, rolled_back]}}]\n"
    )
    http.start()
    run = scene.run_all()
    few = webhook.model_copy(update={"events": ("promoted", "rolled_back")})
    record_destinations(scene.database, scene.home, run.id, [few])
    request = Request("first", "toy", "candidate")
    promote(scene.database, scene.home, request, trainable=Toy)
    promote(scene.database, scene.home, request, trainable=Toy)  # it has the alias already
    other = Request("first", "toy", "candidate", trial=0)
    promote(scene.database, scene.home, other, trainable=Toy)
    assert roll_back(scene.home, model="toy", alias="candidate") == (2, 1)

    assert [(r.path, r.content["text"]) for r in http.taken] == [
        ("/", "toy@candidate is version 1 now, of sweep first"),
        ("/home", "toy@candidate is version 1 now, of sweep first"),
        ("/", "toy@candidate is version 2 now, of sweep first"),
        ("/home", "toy@candidate is version 2 now, of sweep first"),
        ("/home", "toy@candidate went back to version 1, from version 2"),
    ]
    assert http.taken[-1].content["data"] == {
        "model": "toy",
        "alias": "candidate",
        "version": 1,
        "from": 2,
    }


def test_what_is_refused_is_told_to_nobody(
    of_home: Callable[[], Database], notify_home: Home, http: HttpReceiver
) -> None:
    database = of_home()
    http.start()
    with (
        pytest.raises(ValueError, match="moved meanwhile"),
        announcing(notify_home, "promoted", "m@a is version 2", data={"model": "m"}),
    ):
        raise ValueError("moved meanwhile")
    report = send_waiting(database, notify_home)
    assert (report.sent, report.waiting, http.taken) == (0, {}, [])


@pytest.mark.slow
def test_a_command_that_is_killed_at_the_act_is_told_with_that_doubt(
    of_home: Callable[[], Database], notify_home: Home, http: HttpReceiver
) -> None:
    database = of_home()
    script = (
        "import os, sys\n"
        "from posetune.home import Home\n"
        "from posetune.notifications.announcing import announcing\n"
        "home = Home.model_validate_json(sys.argv[1])\n"
        "with announcing(home, 'promoted', 'm@a is version 2', data={'model': 'm'}):\n"
        "    os._exit(7)\n"
    )
    command = [sys.executable, "-c", script, notify_home.model_dump_json()]
    assert subprocess.run(command).returncode == 7
    http.start()
    assert send_waiting(database, notify_home).sent == 1
    (request,) = http.taken
    assert request.content["text"] == (
        "m@a is version 2 (the command was killed: whether it is so, posetune ui shows)"
    )


def test_while_a_command_is_at_the_act_nobody_is_told_yet(
    of_home: Callable[[], Database], notify_home: Home, http: HttpReceiver
) -> None:
    database = of_home()
    http.start()
    with announcing(notify_home, "promoted", "m@a is version 2", data={"model": "m"}):
        assert send_waiting(database, notify_home).sent == 0
    assert [request.content["text"] for request in http.taken] == ["m@a is version 2"]


def test_without_a_study_or_a_destination_nothing_is_made(
    notify_home: Home, http: HttpReceiver, tmp_path: Path
) -> None:
    done = []
    with announcing(notify_home, "rolled_back", "m@a", data={"model": "m"}):
        done.append("without a study")
    assert not (tmp_path / "study.db").exists()
    SweepRun(open_database(notify_home.database), simulated_start()).lease.release()
    with announcing(notify_home, "rolled_back", "m@a", data={"model": "m"}):
        done.append("without a destination")
    assert len(done) == 2
