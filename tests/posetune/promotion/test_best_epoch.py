"""The best epoch is promoted, however the sweep ended and wherever it lies."""

from __future__ import annotations

import itertools
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from mlflow import MlflowClient
from support.curve_sweep import BEST_EPOCH, CurveSweep
from support.mlflow_scene import make_home

from posetune.api import BadInputError, Evaluation, silent
from posetune.home import Home
from posetune.promotion.decision import promote
from posetune.promotion.models import fetch_uri
from posetune.promotion.request import Promotion, Request
from posetune.storage import open_storage
from posetune.study.reading import read_sweep
from posetune.study.tables.database import Database, open_database
from posetune.testing.toy import Toy
from posetune.workflow.models import open_model

Make = Callable[..., CurveSweep]

BEST_MM = 1.5
"""The value of the best epoch: 1 of the curve, and x = 0.5."""


@pytest.fixture
def make(
    tmp_path: Path, mlflow_template: Path, toy_store: Path, request: pytest.FixtureRequest
) -> Iterator[Make]:
    """Start the sweep on a database and a storage, with an MLflow of its own."""
    shutil.copy(mlflow_template, tmp_path / "mlflow.db")
    opened: list[Database] = []
    sweeps: list[CurveSweep] = []

    def start(database: str = "sqlite", storage: str = "folder", **changes: Any) -> CurveSweep:
        home = make_home(tmp_path)
        if database == "postgres":
            address = request.getfixturevalue("postgres_database")
            home = home.model_copy(update={"database": address})
        if storage == "s3":
            bucket = request.getfixturevalue("bucket")
            home = home.model_copy(update={"storage": open_storage(bucket)})
        opened.append(open_database(home.database))
        sweeps.append(CurveSweep(opened[-1], home, toy_store, **changes))
        return sweeps[-1]

    yield start
    for sweep in sweeps:
        sweep.run.lease.release()
    for database in opened:
        database.close()


def ask(sweep: CurveSweep, trainable: type[Toy] = Toy, **more: Any) -> Promotion:
    request = Request("curve", "toy", **more)
    return promote(sweep.database, sweep.home, request, trainable=trainable)


def registered(home: Home, folder: Path, alias: str = "candidate") -> tuple[dict[str, str], float]:
    """The tags of a version, and how far off its pose is."""
    folder.mkdir()
    version, model = fetch_uri(home, f"models:/toy@{alias}", folder)
    pose = Toy.load_model(model).pose_j3
    return dict(version.tags), float(pose[0, 0])


KEPT = {"complete": [5, 9], "killed": [5, 7, 8], "budget": [5, 7, 8], "running": [5, 7, 8]}
"""The epochs whose checkpoints are kept, by how the sweep stands."""
QUICK = {
    ("complete", "sqlite", "folder"),
    ("killed", "postgres", "s3"),
    ("budget", "sqlite", "s3"),
    ("running", "postgres", "folder"),
}
"""Each of these is met once; `make test-long` has every combination."""
PLACES = [
    pytest.param(*place, marks=() if place in QUICK else pytest.mark.long)
    for place in itertools.product(KEPT, ("sqlite", "postgres"), ("folder", "s3"))
]


@pytest.mark.slow
@pytest.mark.parametrize(("how", "database", "storage"), PLACES)
def test_the_model_of_the_best_epoch_is_promoted(
    make: Make, tmp_path: Path, how: str, database: str, storage: str
) -> None:
    kept = KEPT[how]
    hours = 7.5 if how == "budget" else 99
    sweep = make(database, storage, budget={"trials": 1, "gpu_hours": hours})
    sweep.end(how)

    promotion = ask(sweep)

    assert (promotion.trial, promotion.epoch, promotion.value) == (0, BEST_EPOCH, BEST_MM)
    tags, off = registered(sweep.home, tmp_path / "fetched")
    saved = read_sweep(sweep.database, "curve").trials[0].checkpoint_of(BEST_EPOCH)
    assert saved is not None
    assert off == BEST_MM
    assert tags["posetune.epoch"] == "5"
    assert tags["posetune.checkpoint_digest"] == saved.digest
    assert float(tags["posetune.value"]) == BEST_MM
    assert float(tags["posetune.value_on_whole_validation"]) == promotion.whole_value
    last = kept[-1]
    assert [(m.epoch, m.value) for m in promotion.measured] == [(5, 1.5), (last, last - 3.5)]
    client = MlflowClient(sweep.home.tracking)
    run = client.get_run(promotion.run_id)
    parent = client.get_run(run.data.tags["mlflow.parentRunId"])
    for of in (run, parent):
        assert of.data.metrics["best/val/error_mm"] == BEST_MM
        assert of.data.metrics["best/epoch"] == BEST_EPOCH
    assert run.data.tags["posetune.checkpoint.best.digest"] == saved.digest
    assert run.data.metrics["val/error_mm"] == last - 3.5
    assert sweep.epochs_in_storage() == kept
    if how == "complete":  # whose last epoch's model is not the one that the run names
        files = {file.path for file in client.list_artifacts(promotion.run_id)}
        assert "figures" in files
        assert "model" not in files


@pytest.mark.slow
def test_another_trial_or_epoch_is_promoted_on_request_and_one_that_is_gone_names_keep(
    make: Make, tmp_path: Path
) -> None:
    sweep = make(budget={"trials": 2})
    sweep.end("complete")

    assert ask(sweep, epoch=9).epoch == 9
    assert registered(sweep.home, tmp_path / "last")[1] == 5.5
    assert ask(sweep, trial=0).version == 2
    with pytest.raises(
        BadInputError, match=r"epoch 7 is gone; kept is epoch 5, 9.*keep: {best: N}"
    ):
        ask(sweep, epoch=7)
    with pytest.raises(BadInputError, match="has no epoch 10; it has reported 9"):
        ask(sweep, epoch=10)
    for number in (4, -1):
        with pytest.raises(
            BadInputError, match=rf"--trial {number}: there is no such trial; sweep curve has 1,"
        ):
            ask(sweep, trial=number)


class Reversed(Toy):
    """On the whole validation split, whatever the sweep thought worse is better."""

    __module__ = Toy.__module__  # whose source goes with the model

    @classmethod
    def evaluate(
        cls, exported: Path, store: Path, split: str, progress: Any = silent
    ) -> Evaluation:
        found = super().evaluate(exported, store, split, progress)
        off = float(cls.load_model(exported).pose_j3[0, 0])
        return Evaluation(
            {f"{split}/error_mm": 100.0 - off}, found.baselines, found.records, found.details
        )


@pytest.mark.slow
def test_the_last_epoch_is_promoted_where_it_is_better_on_the_whole_split(make: Make) -> None:
    sweep = make()
    sweep.end("complete")

    promotion = ask(sweep, Reversed)

    assert [(m.epoch, m.whole_value) for m in promotion.measured] == [(5, 98.5), (9, 94.5)]
    assert (promotion.epoch, promotion.value, promotion.whole_value) == (9, 5.5, 94.5)


class Unmeasured(Toy):
    """On the whole validation split, the best epoch of the sweep gives no number."""

    __module__ = Toy.__module__  # whose source goes with the model
    all_lost: ClassVar[bool] = False

    @classmethod
    def evaluate(
        cls, exported: Path, store: Path, split: str, progress: Any = silent
    ) -> Evaluation:
        found = super().evaluate(exported, store, split, progress)
        off = float(cls.load_model(exported).pose_j3[0, 0])
        value = math.nan if cls.all_lost or off == BEST_MM else off
        return Evaluation(
            {f"{split}/error_mm": value}, found.baselines, found.records, found.details
        )


@pytest.mark.slow
def test_an_epoch_without_a_finite_value_on_the_whole_split_is_not_preferred(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = make()
    sweep.end("complete")

    promotion = ask(sweep, Unmeasured)

    assert [(m.epoch, m.whole_value) for m in promotion.measured] == [(5, None), (9, 5.5)]
    assert (promotion.epoch, promotion.whole_value) == (9, 5.5)
    monkeypatch.setattr(Unmeasured, "all_lost", True)
    assert (ask(sweep, Unmeasured).epoch, promotion.note) == (5, "")
    tags, _ = registered(sweep.home, tmp_path / "fetched")
    assert tags["posetune.value_on_whole_validation"].startswith("not known: ")


@pytest.mark.slow
def test_without_the_data_the_best_epoch_cannot_be_made_and_the_last_can(
    make: Make, toy_store: Path, tmp_path: Path
) -> None:
    sweep = make()
    sweep.end("complete")
    away = toy_store.rename(tmp_path / "away")

    with pytest.raises(BadInputError, match="made of its checkpoint, which needs the sweep's data"):
        ask(sweep)
    assert ask(sweep, epoch=9).whole_value is None
    tags, _ = registered(sweep.home, tmp_path / "fetched")
    assert tags["posetune.value_on_whole_validation"].startswith("not known: ")

    known = ask(sweep, epoch=9, store=str(away)).whole_value
    tags, _ = registered(sweep.home, tmp_path / "again")
    assert known is not None
    assert float(tags["posetune.value_on_whole_validation"]) == known


def test_the_model_of_a_trial_is_made_with_the_data_at_hand_if_it_is_the_sweeps(
    make: Make, toy_store: Path, tmp_path: Path
) -> None:
    sweep = make()
    sweep.end("killed")
    other = tmp_path / "other"
    importer = Toy.importers()["toy"]
    importer.run(None, other, importer.options(image_size=4), silent)
    with open_model("curve/0", sweep.home, "", store=str(other)) as found:
        assert found.name == "curve/0 (epoch 5)"

    away = toy_store.rename(tmp_path / "away")
    with open_model("curve/0", sweep.home, "", store=str(away)) as found:
        assert found.name == "curve/0 (epoch 5)"
    with (
        pytest.raises(BadInputError, match=r"needs the sweep's data .*--store"),
        open_model("curve/0", sweep.home, "", store=str(other)),
    ):
        pass


def test_the_best_epoch_is_what_evaluate_and_export_take(make: Make) -> None:
    sweep = make()
    sweep.end("killed")
    with open_model("curve/0", sweep.home, "") as found:
        pose = Toy.load_model(found.folder).pose_j3
    assert found.name == "curve/0 (epoch 5)"
    assert np.allclose(pose[0], BEST_MM)
