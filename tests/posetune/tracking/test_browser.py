"""The MLflow UI of a home, and a sweep in optuna-dashboard, opened in a real browser."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.slow]

BROWSERS = ("/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome")


@pytest.fixture
def browser(required: Callable[[str, bool, str], None]) -> str:
    found = [path for path in BROWSERS if Path(path).exists()]
    required("browser", bool(found), "install Chromium (Debian: chromium)")
    return found[0]


def answering(address: str, path: str) -> str:
    """The address, once it answers."""
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{address}{path}", timeout=2):
                return address
        except OSError:
            time.sleep(0.3)
    raise AssertionError(f"{address} did not answer")


@pytest.fixture
def ui(tmp_path: Path, free_port: Callable[[], int]) -> Iterator[Callable[[], str]]:
    """Start `posetune ui` on the test's home; return its address."""
    port = free_port()
    processes = []

    def begin() -> str:
        command = [sys.executable, "-m", "posetune.cli", "ui", "--port", str(port)]
        processes.append(
            subprocess.Popen([*command, "--home", str(tmp_path / "home")], start_new_session=True)
        )
        return answering(f"http://127.0.0.1:{port}", "/health")

    yield begin
    for process in processes:
        process.terminate()
        process.wait(timeout=30)


def page(browser: str, address: str) -> str:
    """The page's text after its scripts have run."""
    with tempfile.TemporaryDirectory() as profile:
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
        flags += ["--disable-background-networking", "--disable-component-update"]
        flags += ["--disable-sync", f"--user-data-dir={profile}", "--window-size=1440,900"]
        command = [browser, *flags, "--virtual-time-budget=20000", "--dump-dom", address]
        result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    return re.sub(r"<[^>]+>", " ", result.stdout)


def test_the_ui_shows_a_sweep_its_trials_a_comparison_a_figure_and_the_model(
    browser: str, ui: Callable[[], str], posetune: Callable, toy_sweep: Callable[..., Path]
) -> None:
    assert posetune("sweep", toy_sweep(trials=3), "--name", "seen").returncode == 0
    assert posetune("promote", "seen", "--model", "toy").returncode == 0
    address = ui()
    import mlflow

    client = mlflow.MlflowClient(address)
    (experiment,) = [e for e in client.search_experiments() if "posetune" in e.name]
    runs = client.search_runs([experiment.experiment_id])
    trials = {r.data.tags.get("posetune.trial"): r.info.run_id for r in runs}
    best = client.get_model_version_by_alias("toy", "candidate").run_id

    def shown(path: str) -> str:
        separator = "&" if "?" in path else "?"
        return page(browser, f"{address}/#{path}{separator}workflowType=machine_learning")

    runs_page = f"/experiments/{experiment.experiment_id}/runs"
    listed = shown(runs_page)
    assert "seen" in listed
    assert "4 matching runs" in re.sub(r"\s+", " ", listed)
    parent = shown(f"{runs_page}/{trials[None]}")
    assert "Child runs" in parent
    assert "seen-000" in parent
    assert "best: trial" in parent
    assert "baseline: start" in parent
    trial = shown(f"{runs_page}/{trials['0']}")
    assert "val/error_mm" in trial
    assert "depth" in trial
    assert "toy-store" in trial
    three = json.dumps([trials[n] for n in ("0", "1", "2")])
    compared = shown(
        f"/compare-runs?runs={quote(three)}&experiments=%5B%22{experiment.experiment_id}%22%5D"
    )
    assert "Comparing 3 Runs" in compared
    assert "Parallel Coordinates" in compared
    assert "learning_curve.png" in shown(f"{runs_page}/{best}/artifacts/figures/learning_curve.png")
    model = shown("/models/toy")
    assert "candidate" in model
    assert "Version 1" in model


def test_optuna_dashboard_opens_an_exported_sweep(
    browser: str,
    posetune: Callable,
    toy_sweep: Callable[..., Path],
    tmp_path: Path,
    free_port: Callable[[], int],
) -> None:
    assert posetune("sweep", toy_sweep(trials=4), "--name", "seen").returncode == 0
    storage = f"sqlite:///{tmp_path / 'optuna.db'}"
    assert posetune("export-study", "seen", "--to", storage).returncode == 0
    port = free_port()
    command = [str(Path(sys.executable).with_name("optuna-dashboard")), storage]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT) as process:
        try:
            address = answering(f"http://127.0.0.1:{port}", "/api/studies")
            history = page(browser, f"{address}/dashboard/studies/1")
            trials = page(browser, f"{address}/dashboard/studies/1/trials")
        finally:
            process.terminate()
    assert "Hyperparameter Importance" in history
    assert "4 Trials" in trials
    assert "Complete" in trials
    assert "Best Trial" in trials
