"""A sweep driven through the study alone, and what MLflow holds of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from posetune.home import Home
from posetune.spec.sweep import SweepSpec
from posetune.storage import open_storage
from posetune.storage.digest import digest_folder
from posetune.study.driving.sweep import SweepRun, SweepStart
from posetune.study.records import CheckpointRecord
from posetune.study.search.rungs import Decision
from posetune.study.tables.database import Database, open_database
from posetune.testing.toy import Toy

SPEC = {
    "trainable": "posetune.testing.toy:Toy",
    "objective": {"metric": "val/error_mm", "mode": "min"},
    "search": {"x": {"float": [0.1, 1.5]}, "depth": {"int": [2, 8]}},
    "fixed": {"epoch_s": 0.0},
    "pruner": {"name": "asha", "max_epochs": 4, "grace_epochs": 1, "reduction_factor": 2},
    "budget": {"trials": 4},
}


@dataclass
class Scene:
    """One home with one sweep."""

    home: Home
    database: Database
    name: str = "first"
    opened: list[SweepRun] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)
    trials: int = 4
    trainable: type[Toy] = Toy

    def open(self) -> SweepRun:
        """Start or continue the sweep, as a driver does."""
        spec = SweepSpec.model_validate({**SPEC, "budget": {"trials": self.trials}})
        provenance = self.provenance or {"commit": "abc123", "dirty": True}
        sweep_start = SweepStart(
            name=self.name,
            spec=spec,
            source="trainable: posetune.testing.toy:Toy\n",
            store=str(self.home.folder / "store"),
            store_digest="d" * 64,
            provenance=provenance,
            defaults={"x": 0.3, "depth": 4},
        )
        self.opened.append(SweepRun(self.database, sweep_start))
        return self.opened[-1]

    def begin(self, run: SweepRun) -> tuple[int, int]:
        """Begin the next trial; return its number and attempt."""
        trial = run.next_trial()
        assert trial is not None
        attempt = run.begin_attempt(trial.number)
        run.stage_used(trial.number, "floor", key=f"{trial.number % 2}" * 64, trained=False)
        return trial.number, attempt.number

    def epoch(self, run: SweepRun, number: int, attempt: int, *, value: float) -> Decision:
        """Report the next epoch of a trial, with its checkpoint."""
        epoch = run.trials[number].epoch + 1
        last = epoch == run.spec.pruner.max_epochs
        return run.report(
            number,
            attempt,
            epoch=epoch,
            metrics={"val/error_mm": value, "train/step": 10.0 * epoch},
            seconds=0.5,
            checkpoint=self.checkpoint(number, attempt, epoch=epoch, last=last),
        )

    def checkpoint(self, number: int, attempt: int, *, epoch: int, last: bool) -> CheckpointRecord:
        """Write what a worker writes."""
        name = f"checkpoints/{self.name}/{number:05d}/{epoch:05d}-{attempt}"
        folder = self.home.storage.root / name
        (folder / "state").mkdir(parents=True)
        (folder / "state" / "secret.bin").write_bytes(b"state")
        if last:
            for part, write in (("model", self.trainable().export), ("figures", Toy().draw)):
                (folder / part).mkdir()
                write(folder / part)
        return CheckpointRecord(attempt, epoch, name, digest_folder(folder), 5)

    def run_trial(self, run: SweepRun, value: float) -> None:
        """Run a trial until the study ends it; `value` is its last and the worst comes first."""
        number, attempt = self.begin(run)
        while True:
            epoch = run.trials[number].epoch + 1
            step = value + (run.spec.pruner.max_epochs - epoch)
            if self.epoch(run, number, attempt, value=step) != Decision.CONTINUE:
                return run.finish(number)

    def run_all(self) -> SweepRun:
        """Run a whole sweep: complete, pruned, failed, complete."""
        run = self.open()
        run.baselines({"mean_shape": 9.0})
        self.run_trial(run, 5.0)
        self.run_trial(run, 8.0)
        number, attempt = self.begin(run)
        self.epoch(run, number, attempt, value=4.5)
        run.fail(number, "diverged: x = 9")
        self.run_trial(run, 3.0)
        run.close("finished")
        return run


def make_home(folder: Path, tracking: str | None = None) -> Home:
    return Home(
        folder=folder,
        database=f"sqlite:///{folder / 'study.db'}",
        storage=open_storage(folder / "storage"),
        tracking=tracking or f"sqlite:///{folder / 'mlflow.db'}",
        artifacts=folder / "mlartifacts",
    )


@pytest.fixture
def sweep_spec() -> dict[str, Any]:
    return SPEC


@pytest.fixture
def server(tmp_path: Path, mlflow_template: Path, mlflow_server: Callable[..., Any]) -> Any:
    """A server on SQLite that is away at first."""
    shutil.copy(mlflow_template, tmp_path / "server.db")
    return mlflow_server()


@pytest.fixture
def postgres_tracking(postgres_database: str, mlflow_server: Callable[..., Any]) -> Any:
    """A server on an empty PostgreSQL database that is away at first."""
    return mlflow_server(postgres_database)


@pytest.fixture
def scene(tmp_path: Path, mlflow_template: Path) -> Any:
    shutil.copy(mlflow_template, tmp_path / "mlflow.db")
    home = make_home(tmp_path)
    scene = Scene(home, open_database(home.database))
    yield scene
    for run in scene.opened:
        run.lease.release()
    scene.database.close()


@pytest.fixture
def other_home(tmp_path: Path, mlflow_template: Path) -> Callable[[str], Home]:
    """The same study and storage with another MLflow store."""

    def make(name: str) -> Home:
        shutil.copy(mlflow_template, tmp_path / f"{name}.db")
        home = make_home(tmp_path, f"sqlite:///{tmp_path / name}.db")
        return home.model_copy(update={"artifacts": tmp_path / f"{name}-artifacts"})

    return make


Shown = dict[str, Any]


@pytest.fixture
def shown() -> Callable[[Home], dict[str, Shown]]:
    """Read all that MLflow holds, by run name, without what may differ between two stores."""

    def read(home: Home) -> dict[str, Shown]:
        client = MlflowClient(home.tracking)
        experiments = [e.experiment_id for e in client.search_experiments()]
        runs = client.search_runs(experiments)
        names = [run.info.run_name for run in runs]
        assert len(set(names)) == len(names), f"a run stands twice: {sorted(names)}"
        return {run.info.run_name: _contents(client, run) for run in runs}

    return read


@pytest.fixture
def contents(shown: Callable[[Home], dict[str, Shown]]) -> Callable[[Home], dict[str, Shown]]:
    """Read all that MLflow holds, by run name, without what must differ between two stores."""

    def read(home: Home) -> dict[str, Shown]:
        kept = {}
        for name, run in shown(home).items():
            tags = {k: v for k, v in run["tags"].items() if k != "mlflow.parentRunId"}
            kept[name] = {**run, "tags": tags, "id": ""}
        return kept

    return read


def _contents(client: MlflowClient, run: Any) -> Shown:
    run_id = run.info.run_id
    history = {
        name: [(m.step, m.value, m.timestamp) for m in client.get_metric_history(run_id, name)]
        for name in run.data.metrics
    }
    files: list[str] = []
    waiting = [""]
    while waiting:
        for entry in client.list_artifacts(run_id, waiting.pop() or None):
            (waiting if entry.is_dir else files).append(entry.path)
    status = run.info.status
    return {
        "id": run_id,
        "status": status,
        "params": dict(run.data.params),
        "tags": dict(run.data.tags),
        "history": history,
        "files": sorted(files),
        "data": [d.dataset.digest for d in run.inputs.dataset_inputs],
        "times": (run.info.start_time, None if status == "KILLED" else run.info.end_time),
    }
