"""A model is found by every form that names one, and `posetune evaluate` runs on each."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from posetune.api import BadInputError
from posetune.cli.app import app
from posetune.promotion.decision import promote
from posetune.promotion.judging.test_looks import count_test_looks
from posetune.promotion.request import Request
from posetune.testing.toy import Toy
from posetune.workflow.models import open_model

TOY = "posetune.testing.toy:Toy"


@pytest.fixture
def finished(scene: Any) -> Any:
    scene.run_all()
    return scene


@pytest.fixture
def promoted(finished: Any) -> Any:
    promote(finished.database, finished.home, Request("first", "toy"), trainable=Toy)
    return finished


def evaluated(scene: Any, model: str, store: Path, *more: str) -> dict[str, Any]:
    out = scene.home.folder / "out"
    command = ["evaluate", model, "--store", str(store), "--out", str(out)]
    where = ["--home", str(scene.home.folder), "--trainable", TOY, "--json", *more]
    result = CliRunner().invoke(app, command + where)
    assert result.exit_code == 0, result.output
    written = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    assert json.loads(result.stdout) == written
    return dict(written)


def test_a_version_is_evaluated_without_the_storage_folder(promoted: Any, toy_store: Path) -> None:
    shutil.rmtree(promoted.home.storage.root)

    for form in ("models:/toy@candidate", "models:/toy/1"):
        found = evaluated(promoted, form, toy_store)
        assert (found["model"], found["split"]) == ("models:/toy/1", "test")
        assert found["store_digest"] == Toy.describe_store(toy_store).digest
        assert found["metrics"]["test/error_mm"]["mean"] == pytest.approx(found["toy_error_mm"])


def test_trial_checkpoint_and_exported_folder_are_one_model(finished: Any, toy_store: Path) -> None:
    (exported,) = finished.home.storage.root.glob("checkpoints/first/00003/*/model")
    forms = ["first/3", str(exported.parent), str(exported)]

    digests = [evaluated(finished, form, toy_store)["model_digest"] for form in forms]

    assert len(set(digests)) == 1


def test_looks_at_the_test_split_are_counted_and_others_not(finished: Any, toy_store: Path) -> None:
    evaluated(finished, "first/3", toy_store, "--split", "val")
    counts = [evaluated(finished, "first/3", toy_store)["test_split_opened"] for _ in range(2)]

    assert counts == [1, 2]
    digest = Toy.describe_store(toy_store).digest
    assert count_test_looks(finished.database, digest) == 2
    assert count_test_looks(finished.database, "other") == 0


NO_MODEL = [
    ("models:/toy@champion", r"models:/toy@champion: no such model; toy has the aliases cand"),
    ("models:/toy/7", r"models:/toy/7: no such model; toy has the aliases candidate"),
    ("models:/tyo@candidate", r"no such model; there is toy"),
    ("models:/toy", r"write models:/NAME@ALIAS or models:/NAME/NUMBER"),
    ("first/1", r"trial 1: the checkpoint of epoch 1 is gone; none .* best 3, which `keep:"),
    ("first/2", r"the model of epoch 1 has to be made .* needs the sweep's data"),
    ("first/9", r"sweep first has 4, numbered from 0"),
    ("second/0", r"no sweep 'second'"),
    ("nowhere", r"nowhere: no such folder; give a folder"),
]
"""What names no model, and what is said of it."""


def test_what_is_no_model_is_one_clear_line(promoted: Any) -> None:
    for form, message in NO_MODEL:
        with pytest.raises(BadInputError, match=message), open_model(form, promoted.home, TOY):
            pass


def test_a_version_whose_files_are_gone_or_damaged_is_refused(promoted: Any) -> None:
    (weights,) = promoted.home.artifacts.rglob("artifacts/artifacts/model/*.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    with (
        pytest.raises(BadInputError, match="models:/toy/1: its files are damaged"),
        open_model("models:/toy@candidate", promoted.home, TOY),
    ):
        pass
    shutil.rmtree(promoted.home.artifacts)
    with (
        pytest.raises(BadInputError, match="models:/toy/1: its files cannot be read"),
        open_model("models:/toy@candidate", promoted.home, TOY),
    ):
        pass


def test_an_output_folder_that_cannot_be_written_is_one_clear_line(
    finished: Any, toy_store: Path
) -> None:
    blocked = finished.home.folder / "file"
    blocked.write_text("")
    command = ["evaluate", "first/3", "--store", str(toy_store), "--out", str(blocked)]

    result = CliRunner().invoke(app, [*command, "--home", str(finished.home.folder)])

    assert isinstance(result.exception, BadInputError)
    assert f"--out {blocked}: cannot be written" in str(result.exception)
