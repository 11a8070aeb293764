"""A real MLflow server on loopback, which is away at first."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any
from urllib.request import urlopen

import pytest
from mlflow import MlflowClient
from support.waiting import wait_until

from posetune.api import BadInputError
from posetune.home import Home
from posetune.promotion.decision import promote
from posetune.promotion.request import Request
from posetune.study.reading import read_sweep
from posetune.testing.toy import Toy
from posetune.tracking.projection import ship
from posetune.tracking.server.ui import serve_ui
from posetune.tracking.tracker import Tracker

Shown = dict[str, Any]
Read = Callable[[Home], dict[str, Shown]]


def read(url: str) -> bytes:
    with urlopen(url, timeout=60) as answer:
        return bytes(answer.read())


@pytest.mark.slow
@pytest.mark.long
def test_a_server_that_was_away_ends_like_one_that_never_was(
    scene: Any,
    contents: Read,
    other_home: Callable[[str], Home],
    server: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("posetune.tracking.tracker.HEAD_START_S", 0.0)
    monkeypatch.setattr("posetune.tracking.tracker.PERIOD_S", 0.1)
    monkeypatch.setattr("posetune.tracking.tracker.LONGEST_PAUSE_S", 0.2)
    home = scene.home.model_copy(update={"tracking": server.url})
    run = scene.open()
    run.baselines({"mean_shape": 9.0})
    tracker = Tracker(scene.database, "first", home)
    tracker.start()
    scene.run_trial(run, 5.0)
    wait_until(lambda: "127.0.0.1" in tracker.error, "a tracker that finds no server")

    server.start()
    number, attempt = scene.begin(run)
    scene.epoch(run, number, attempt, value=4.0)
    wait_until(
        lambda: read_sweep(scene.database, "first").trials[1].mlflow_run_id,
        "the trial under way in MLflow",
    )
    wait_until(lambda: not tracker.error, "a pass that goes well")
    server.kill()
    scene.epoch(run, number, attempt, value=3.5)
    run.fail(number, "diverged")
    wait_until(lambda: tracker.error, "a tracker that finds no server again")
    server.start()
    scene.run_trial(run, 8.0)
    scene.run_trial(run, 3.0)
    run.close("finished")
    assert tracker.stop(300.0), tracker.error

    undisturbed = other_home("undisturbed")
    ship(scene.database, "first", undisturbed)
    assert contents(home) == contents(undisturbed)
    again = ship(scene.database, "first", home)
    assert (again.created, again.values, again.uploads) == (0, 0, 0)
    assert again.page.startswith(f"{server.url}/#/experiments/")

    request = Request("first", "selfpose")
    promotion = promote(scene.database, home, request, trainable=Toy)
    assert promote(scene.database, home, request, trainable=Toy) == promotion
    client = MlflowClient(server.url)
    version = client.get_model_version_by_alias("selfpose", "candidate")
    assert version.source.startswith("mlflow-artifacts:/")
    script = (
        "import mlflow, numpy as np\n"
        "model = mlflow.pyfunc.load_model('models:/selfpose@candidate')\n"
        "assert model.predict(np.zeros((2, 8, 8, 3), np.uint8)).shape == (2, 3, 3)\n"
    )
    subprocess.run(
        [sys.executable, "-c", script],
        check=True,
        env={**os.environ, "MLFLOW_TRACKING_URI": server.url},
    )


@pytest.mark.long
@pytest.mark.slow
def test_the_ui_serves_this_homes_runs_and_ends_with_it(
    scene: Any, free_port: Callable[[], int]
) -> None:
    scene.run_all()
    report = ship(scene.database, "first", scene.home)
    port = free_port()
    command = [sys.executable, "-m", "posetune.cli", "ui", "--json", "--port", str(port)]
    command += ["--home", str(scene.home.folder)]
    environment = {**os.environ, **scene.home.environment}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as ui:
        assert ui.stdout is not None
        said = [json.loads(ui.stdout.readline()) for _ in range(2)]
        assert [line["state"] for line in said] == ["starting", "running"]
        assert {line["address"] for line in said} == {f"http://127.0.0.1:{port}"}
        client = MlflowClient(f"http://127.0.0.1:{port}")
        assert client.get_run(report.run_id).info.run_name == "first"
        page = f"http://127.0.0.1:{port}/get-artifact?path=sweep.yaml&run_uuid={report.run_id}"
        assert read(page).startswith(b"trainable:")
        ui.terminate()
        assert ui.wait() == 0
    with socket.create_server(("127.0.0.1", port)):
        pass


def test_the_ui_of_a_remote_server_is_where_the_server_is(scene: Any) -> None:
    remote = scene.home.model_copy(update={"tracking": "http://me:secret@tracking:5000"})
    said: list[tuple[str, str]] = []
    assert serve_ui(remote, say=lambda *line: said.append(line)) == 0
    assert said == [("running", "http://tracking:5000")]


def test_a_taken_port_is_named(scene: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BadInputError, match=f"--port {port}: .*give another --port"):
            serve_ui(scene.home, port=port, say=print)
