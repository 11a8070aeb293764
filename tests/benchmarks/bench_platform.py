"""What the platform adds to a training, beside Tune and its MLflow callback as they come."""

from __future__ import annotations

import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.simulated_driver import happened, simulated_start

from posetune.study.driving.sweep import SweepRun
from posetune.study.events import Reported
from posetune.study.tables.database import open_database
from posetune.testing.toy import Toy

TRIALS = 8
REPORTS = 20
METRICS = {f"val/metric_{i:02d}": 1.0 for i in range(30)}

Medians = Callable[..., tuple[float, float]]

SWEEP = """\
trainable: posetune.testing.toy:Toy
store: {store}
objective: {{metric: val/error_mm, mode: min}}
search: {{x: {{float: [0.01, 1], log: true}}}}
sampler: {{name: random}}
pruner: {{name: none, max_epochs: 1}}
resources: {{cpu: {cpus}}}
budget: {{trials: {trials}}}
"""

PLAIN = """
import json, sys, tempfile, time
from pathlib import Path
import ray
from ray import tune
from posetune.api import StageWork, TrialContext, silent
from posetune.testing.toy import Toy

store, trials, cpus, out = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
reported = []


class Plain(tune.Trainable):
    def setup(self, config):
        self.toy, config = Toy(), Toy.config_model(**config)
        work, products = Path(tempfile.mkdtemp()), {}
        for stage in Toy.stages(config, store):
            products[stage.name] = work / stage.name
            products[stage.name].mkdir()
            stage.build(products[stage.name], silent, StageWork())
        context = TrialContext(store=store, seed=0, work=work, products=products)
        self.toy.start(config, context)

    def step(self):
        return {**self.toy.epoch(), "done": True}

    def save_checkpoint(self, folder):
        self.toy.save(Path(folder))


class Clock(tune.Callback):
    def on_trial_result(self, iteration, trials, trial, result, **info):
        reported.append(time.time())


ray.init("local", include_dashboard=False, log_to_driver=False)
tune.Tuner(
    tune.with_resources(Plain, {"cpu": cpus}),
    param_space={"x": tune.loguniform(0.01, 1)},
    tune_config=tune.TuneConfig(num_samples=trials),
    run_config=tune.RunConfig(storage_path=out, callbacks=[Clock()], verbose=0),
).fit()
print(json.dumps(reported))
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("stores") / "toy"
    importer = Toy.importers()["toy"]
    importer.run(None, out, importer.options(), lambda done, total, note="": None)
    return out


def reports_of_ours(folder: Path, store: Path) -> list[float]:
    """Start a sweep, one trial at a time; return when each report was committed."""
    folder.mkdir()
    file = folder / "sweep.yaml"
    file.write_text(SWEEP.format(store=store, cpus=os.cpu_count(), trials=TRIALS))
    command = [sys.executable, "-m", "posetune.cli", "sweep", str(file), "--name", "s", "--json"]
    environment = {**os.environ, "POSETUNE_HOME": str(folder / "home")}
    subprocess.run(command, env=environment, check=True, capture_output=True)
    database = open_database(f"sqlite:///{folder / 'home/study.db'}")
    return [report.at for report in happened(database, Reported)]


def reports_of_tune(folder: Path, store: Path) -> list[float]:
    """The same trials as a plain script runs them."""
    folder.mkdir()
    arguments = [str(store), str(TRIALS), str(os.cpu_count()), str(folder)]
    done = subprocess.run(
        [sys.executable, "-c", PLAIN, *arguments], check=True, capture_output=True, text=True
    )
    return list(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.timeout(1800)
def test_launch_of_a_trial_and_the_first_report(measured: Any, store: Path, tmp_path: Path) -> None:
    launch: tuple[list[float], list[float]] = ([], [])
    first: tuple[list[float], list[float]] = ([], [])
    for i in range(3):
        for j, run in enumerate((reports_of_ours, reports_of_tune)):
            started = time.time()
            at = run(tmp_path / f"{i}-{j}", store)
            assert len(at) == TRIALS
            first[j].append(at[0] - started)
            launch[j].extend(b - a for a, b in itertools.pairwise(at))
    measured.add("launch", *map(statistics.median, launch), note="with its epoch and checkpoint")
    measured.add("first-report", *map(statistics.median, first))


def test_a_report_of_thirty_metrics(
    medians: Medians, measured: Any, mlflow_server: Callable[..., Any], tmp_path: Path
) -> None:
    from ray.air.integrations.mlflow import MLflowLoggerCallback
    from ray.tune.experiment import Trial

    run = SweepRun(
        open_database(f"sqlite:///{tmp_path / 'study.db'}"),
        simulated_start(pruner={"max_epochs": 99}),
    )
    trial = run.next_trial()
    assert trial is not None
    attempt = run.begin_attempt(trial.number)
    epochs = itertools.count(1)

    def ours() -> None:
        run.report(
            trial.number,
            attempt.number,
            epoch=next(epochs),
            metrics={**METRICS, "loss": 1.0},
            seconds=1.0,
            checkpoint=None,
        )

    server = mlflow_server()
    server.start()
    callback = MLflowLoggerCallback(tracking_uri=server.url, experiment_name="bench")
    callback.setup()
    theirs = Trial("plain", stub=True)
    callback.log_trial_start(theirs)
    steps = itertools.count(1)

    def rival() -> None:
        step = next(steps)
        result = {**METRICS, "timesteps_total": step, "training_iteration": step}
        callback.log_trial_result(step, theirs, result)

    measured.add("report", *medians(ours, rival, rounds=REPORTS))
    run.lease.release()
