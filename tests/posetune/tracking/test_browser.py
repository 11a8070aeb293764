"""MLflow's UI and optuna-dashboard, opened in a real browser, show what we wrote for them.

That `posetune ui` serves a home's runs and files is in `server/test_server`.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import urlopen

import pytest
from mlflow import MlflowClient
from support.browser import Browser
from support.mlflow_server import MlflowServer
from support.simulated_driver import drive, open_unsynced, simulated_start
from support.waiting import wait_until

from posetune.promotion.decision import promote
from posetune.promotion.request import Request
from posetune.report.optuna_storage import export_study
from posetune.study.reading import read_sweep
from posetune.testing.toy import Toy
from posetune.tracking.projection import ship
from posetune.tracking.saved_views import sweep_links

pytestmark = pytest.mark.slow


@pytest.mark.long
def test_mlflow_shows_a_sweep_its_trials_a_comparison_a_figure_and_the_model(
    browser: Browser, running_mlflow_server: MlflowServer, scene: Any
) -> None:
    address = running_mlflow_server.url
    home = scene.home.model_copy(update={"tracking": address})
    scene.run_all()
    ship(scene.database, "first", home)
    promote(scene.database, home, Request("first", "toy"), trainable=Toy)
    client = MlflowClient(address)
    (experiment,) = [e for e in client.search_experiments() if "posetune" in e.name]
    runs = client.search_runs([experiment.experiment_id])
    trials = {r.data.tags.get("posetune.trial"): r.info.run_id for r in runs}
    best = client.get_model_version_by_alias("toy", "candidate").run_id

    def shows(path: str, *words: str) -> None:
        separator = "&" if "?" in path else "?"
        page = f"{address}/#{path}{separator}workflowType=machine_learning"
        with browser.open(page) as opened:
            opened.wait_for(*words)

    runs_page = f"/experiments/{experiment.experiment_id}/runs"
    shows(runs_page, "first", "5 matching runs")
    (links,) = sweep_links(scene.database, home, address, most=1)
    with browser.open(links.trials) as view:
        columns = "[...document.querySelectorAll('.ag-header-cell-text, [role=columnheader]')]"
        columns = f"{columns}.map(cell => cell.textContent.trim())"
        for column in ("best/val/error_mm", "best/epoch", "posetune.state", "posetune.epochs"):
            view.wait_until(f"({columns}).some(text => text.includes('{column}'))")
        for column in ("x", "depth", "Duration"):
            view.wait_until(f"({columns}).includes('{column}')")
        view.wait_for("first-000", "first-003")
    with browser.open(links.best) as best_five:
        best_five.wait_for("Comparing 4 Runs")
    parent = ("Child runs", "first-000", "best: trial", "baseline: mean_shape")
    shows(f"{runs_page}/{trials[None]}", *parent)
    shows(f"{runs_page}/{trials['0']}", "val/error_mm", "depth", "store")
    three = json.dumps([trials[n] for n in ("0", "1", "3")])
    compared = f"runs={quote(three)}&experiments=%5B%22{experiment.experiment_id}%22%5D"
    shows(f"/compare-runs?{compared}", "Comparing 3 Runs", "Parallel Coordinates")
    figure = "figures/learning_curve.png"
    shows(f"{runs_page}/{best}/artifacts/{figure}", "learning_curve.png")
    shows("/models/toy", "candidate", "Version 1")
    shows("/models/toy/versions/1", "What it sees and returns", "candidate")


@pytest.fixture
def dashboard(tmp_path: Path, free_port: Callable[[], int]) -> Iterator[str]:
    """The address of optuna-dashboard on a sweep that was exported."""
    database = open_unsynced(tmp_path / "study.db")
    drive(database, simulated_start(budget={"trials": 4}))
    storage = export_study(read_sweep(database, "s"), f"sqlite:///{tmp_path / 'optuna.db'}")
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    command = [str(Path(sys.executable).with_name("optuna-dashboard")), storage]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:

        def answers() -> bool:
            assert process.poll() is None, f"{command} has ended"
            with contextlib.suppress(OSError), urlopen(f"{address}/api/studies", timeout=5):
                return True
            return False

        try:
            wait_until(answers, address)
            yield address
        finally:
            process.send_signal(signal.SIGINT)  # at SIGTERM it waits for the browser


@pytest.mark.long
def test_optuna_dashboard_opens_an_exported_sweep(browser: Browser, dashboard: str) -> None:
    with browser.open(f"{dashboard}/dashboard/studies/1") as history:
        history.wait_for("Hyperparameter Importance")
    with browser.open(f"{dashboard}/dashboard/studies/1/trials") as trials:
        trials.wait_for("4 Trials", "Complete", "Best Trial")
