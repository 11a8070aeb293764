"""The exported model is the trial's, or there is none, whatever the driver deletes meanwhile."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import pytest
from pydantic import BaseModel
from support.curve_sweep import CurveSweep

from posetune.api import BadInputError, TrialContext
from posetune.home import Home
from posetune.storage import Folder, Storage, open_storage
from posetune.study.reading import read_sweep
from posetune.study.tables.database import open_database
from posetune.study.view import SweepView
from posetune.testing.toy import Toy
from posetune.trial.exported import verified_model

BEST_MM = 1.5
"""How far off the pose of the best epoch is."""


@pytest.fixture
def killed(tmp_path: Path, toy_store: Path) -> Iterator[tuple[Storage, SweepView]]:
    """A sweep whose best epoch has no exported model, but a checkpoint."""
    database = open_database(f"sqlite:///{tmp_path / 'study.db'}")
    home = Home(
        folder=tmp_path,
        database=f"sqlite:///{tmp_path / 'study.db'}",
        storage=open_storage(tmp_path / "storage"),
        tracking="",
        artifacts=tmp_path,
    )
    CurveSweep(database, home, toy_store).end("killed")
    yield home.storage, read_sweep(database, "curve")
    database.close()


class Deleting(Toy):
    """Deletes a folder once its trial is built, before the trial loads its checkpoint."""

    folder: ClassVar[Path]

    def start(self, config: BaseModel, context: TrialContext) -> None:
        super().start(config, context)
        shutil.rmtree(self.folder)


def test_a_checkpoint_that_is_deleted_while_its_model_is_made_was_copied(
    killed: tuple[Storage, SweepView],
) -> None:
    storage, view = killed
    Deleting.folder = Path(storage.where("checkpoints"))

    with verified_model(storage, view, view.trials[0], trainable=Deleting) as model:
        pose = Toy.load_model(model.folder).pose_j3

    assert not Deleting.folder.exists()
    assert (model.epoch, pose[0, 0]) == (5, BEST_MM)


def test_a_model_of_other_weights_is_never_given(
    killed: tuple[Storage, SweepView], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage, view = killed
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))

    class DeletingCopy(Toy):
        def start(self, config: BaseModel, context: TrialContext) -> None:
            super().start(config, context)
            (copies,) = scratch.glob("posetune-export-*/checkpoints")
            shutil.rmtree(copies)

    with (
        pytest.raises(BadInputError, match=r"of epoch 5 was deleted meanwhile.*command again"),
        verified_model(storage, view, view.trials[0], trainable=DeletingCopy),
    ):
        pass


class DeletedWhole(Folder):
    """A driver deletes what is being read."""

    @contextmanager
    def reading(self, name: str) -> Iterator[Path | None]:
        folder = self.root / name
        shutil.rmtree(folder)
        yield folder


class DeletedByHalves(Folder):
    """A driver has deleted a part of what is being read, and deletes the rest."""

    @contextmanager
    def reading(self, name: str) -> Iterator[Path | None]:
        folder = self.root / name
        next(file for file in folder.rglob("*") if file.is_file()).unlink()
        yield folder
        shutil.rmtree(folder)


@pytest.mark.parametrize("kind", [DeletedWhole, DeletedByHalves])
def test_a_checkpoint_that_is_deleted_while_it_is_read_is_not_called_damaged(
    killed: tuple[Storage, SweepView], kind: type[Folder]
) -> None:
    storage, view = killed
    racing = kind(Path(storage.address))

    with (
        pytest.raises(BadInputError, match=r"was deleted meanwhile.*command again"),
        verified_model(racing, view, view.trials[0], trainable=Toy),
    ):
        pass


def test_a_damaged_checkpoint_is_not_used(killed: tuple[Storage, SweepView]) -> None:
    storage, view = killed
    saved = view.trials[0].checkpoint_of(5)
    assert saved is not None
    (Path(storage.where(saved.folder)) / "state" / "more").write_bytes(b"x")

    with (
        pytest.raises(BadInputError, match="is damaged: digest"),
        verified_model(storage, view, view.trials[0], trainable=Toy),
    ):
        pass


@pytest.mark.parametrize(("keeps_best", "rule"), [
    (True, "only while it is among the sweep's best 3"),
    (False, "begun before best epochs were kept: a trial keeps its newest"),
])  # fmt: skip
def test_a_checkpoint_that_is_gone_names_the_rules_of_its_sweep(
    killed: tuple[Storage, SweepView], keeps_best: bool, rule: str
) -> None:
    storage, view = killed
    view = dataclasses.replace(view, keeps_best=keeps_best)

    with (
        pytest.raises(BadInputError, match=f"epoch 6 is gone; kept is epoch 5, 7, 8. .*{rule}"),
        verified_model(storage, view, view.trials[0], trainable=Toy, epoch=6),
    ):
        pass
