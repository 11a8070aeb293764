"""The model of a trial is made with the sweep's data where a command says that they are now."""

from __future__ import annotations

import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.commands import Posetune
from support.curve_sweep import CurveSweep

from posetune.home import Home
from posetune.study.tables.database import open_database
from posetune.testing.toy import Toy


@pytest.fixture
def moved_store(tmp_path: Path, toy_store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The store of a killed sweep, moved; the best epoch of its trial has no exported model."""
    for name in ("POSETUNE_DATABASE", "POSETUNE_STORAGE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    home = Home.resolve(tmp_path / "home").prepare()
    database = open_database(home.database)
    CurveSweep(database, home, toy_store).end("killed")
    database.close()
    cv2.imwrite(str(tmp_path / "me.png"), np.zeros((16, 16, 3), np.uint8))
    return toy_store.rename(tmp_path / "moved")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("benchmark", "curve/0", "--seconds", "0.01", "--batch", "1"), 0, "images/s"),
        (("predict", "curve/0", "me.png", "--out", "poses", "--no-draw"), 0, "1 poses"),
        (("export", "curve/0", "--to", "pose.pt2"), 2, "the toy is no torch program"),
    ],
)
def test_a_command_makes_a_trials_model_with_the_store_where_it_is_now(
    posetune: Posetune,
    moved_store: Path,
    tmp_path: Path,
    words: tuple[str, ...],
    code: int,
    said: str,
) -> None:
    refused = posetune(*words)
    assert refused.returncode == 2, refused.stderr
    assert "name where it is with --store" in one_line(refused)

    done = posetune(*words, "--store", moved_store)
    assert done.returncode == code, done.stderr
    assert said in one_line(done)

    other = tmp_path / "other"
    importer = Toy.importers()["toy"]
    options = importer.options(image_size=9)
    importer.run(None, other, options, lambda done, total, note="": None)
    wrong = posetune(*words, "--store", other)
    assert wrong.returncode == 2
    assert f"that is not at {other}; name where it is with --store" in one_line(wrong)


def one_line(result: subprocess.CompletedProcess[str]) -> str:
    return " ".join((result.stdout + result.stderr).split())
