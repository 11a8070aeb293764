"""One finished sweep, looked at with every command that looks."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import subprocess
from pathlib import Path

import pytest
from support.commands import Posetune, run_here

from posetune.testing.toy import Toy

pytestmark = [pytest.mark.ray, pytest.mark.slow]

SWEEP = """\
trainable: posetune.testing.toy:Toy
store: toy-store
objective: {metric: val/error_mm, mode: min}
search: {x: {float: [0.01, 1], log: true}, depth: {int: [2, 8], step: 2}}
pruner: {max_epochs: 4, reduction_factor: 2, audit_share: 0.3}
budget: {trials: 6}
"""


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory, mlflow_template: Path) -> Path:
    """A folder with a store, a sweep file and a home."""
    folder = tmp_path_factory.mktemp("looking")
    importer = Toy.importers()["toy"]
    importer.run(None, folder / "toy-store", importer.options(), lambda done, total, note="": None)
    (folder / "toy.yaml").write_text(SWEEP)
    (folder / "home").mkdir()
    shutil.copy(mlflow_template, folder / "home" / "mlflow.db")
    return folder


@pytest.fixture(scope="session")
def run(folder: Path, ray_head: str) -> Posetune:
    """Run a command there, on a home with a finished sweep `toy`."""

    def command(*arguments: object) -> subprocess.CompletedProcess[str]:
        return run_here(*arguments, folder=folder)

    result = command("sweep", "toy.yaml", "--address", ray_head)
    assert result.returncode == 0, result.stderr
    return command


def test_report_writes_a_page_and_logs_it(run: Posetune, folder: Path) -> None:
    result = run("report", "toy", "--out", "toy.html", "--json")
    assert result.returncode == 0, result.stderr
    said = json.loads(result.stdout)
    assert (folder / "toy.html").read_text().startswith("<!doctype html>")
    assert said["not_evaluated"] == ""
    logged = list((folder / "home" / "mlartifacts").rglob("report/report.html"))
    assert [p.read_text() for p in logged] == [(folder / "toy.html").read_text()]
    nowhere = run("report", "toy", "--out", "no/where.html")
    assert (nowhere.returncode, "--out no/where.html" in nowhere.stderr) == (2, True)


def test_reproduce_gives_every_trial_to_the_last_bit(run: Posetune, folder: Path) -> None:
    shown = json.loads(run("show", "toy", "--json").stdout)
    pruned = next(t for t in shown["trials"] if t["state"] == "PRUNED")
    for name in (f"toy/{shown['best']['number']}", pruned["mlflow_run_id"]):
        result = run("reproduce", name, "--json")
        assert result.returncode == 0, result.stderr
        found = json.loads(result.stdout)
        assert (found["agrees"], found["equal"]) == (True, True)
    assert found["epochs"] == pruned["epochs"]
    assert [p.name for p in (folder / "home/storage/checkpoints").iterdir()] == ["toy"]
    missing = run("reproduce", "toy/99")
    assert (missing.returncode, "sweep toy has 6, numbered from 0" in missing.stderr) == (2, True)
    unknown = run("reproduce", "f" * 32)
    assert (unknown.returncode, "neither SWEEP/TRIAL nor" in unknown.stderr) == (2, True)


def test_reproduce_says_where_a_record_is_not_what_training_gives(
    run: Posetune, folder: Path
) -> None:
    other = folder / "falsified"
    shutil.copytree(folder / "home", other)
    shown = json.loads(run("show", "toy", "--json").stdout)
    number = shown["best"]["number"]
    with contextlib.closing(sqlite3.connect(other / "study.db")) as study:
        study.execute(
            "UPDATE event SET metrics = json_set(metrics, '$.\"val/error_mm\"', 0.5) "
            "WHERE epoch = 2 AND trial = ? AND kind = 'reported'",
            (number,),
        )
        study.commit()
    result = run("reproduce", f"toy/{number}", "--home", other)
    assert result.returncode == 1, result.stderr
    said = " ".join(result.stderr.split())
    assert "does NOT agree: recorded" in said
    assert "of val/error_mm after epoch 2" in said


@pytest.mark.parametrize(("changed_by", "agrees"), [(1e-4, True), (50.0, False)])
def test_elsewhere_a_record_agrees_if_seeds_lie_further_apart(
    run: Posetune, folder: Path, changed_by: float, agrees: bool
) -> None:
    other = folder / f"elsewhere-{agrees}"
    shutil.copytree(folder / "home", other)
    with contextlib.closing(sqlite3.connect(other / "study.db")) as study:
        study.execute("UPDATE sweep SET provenance = json_set(provenance, '$.processor', 'other')")
        study.execute(
            "UPDATE event SET metrics = json_set(metrics, '$.\"val/error_mm\"', "
            "json_extract(metrics, '$.\"val/error_mm\"') + ?) WHERE kind = 'reported'",
            (changed_by,),
        )
        study.commit()
    result = run("reproduce", "toy/0", "--home", other, "--json")
    found = json.loads(result.stdout)
    assert found["changed"][0].startswith("processor: other -> ")
    assert found["gap"] == pytest.approx(changed_by)
    assert 1e-4 < found["spread"] < 50
    assert (found["equal"], found["agrees"], result.returncode) == (False, agrees, not agrees)


def test_compare_says_what_differs(run: Posetune) -> None:
    result = run("compare", "toy/0", "toy/1", "--json")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    shown = json.loads(run("show", "toy", "--json").stdout)["trials"]
    differing = {n for n in ("x", "depth") if shown[0]["params"][n] != shown[1]["params"][n]}
    assert set(found["settings"]) == differing
    assert found["settings"]["x"] == [shown[0]["params"]["x"], shown[1]["params"]["x"]]
    assert found["data_and_code"] == {}
    tables = run("compare", "toy", "toy/1", "--no-evaluate")
    assert "different settings" in tables.stderr
    for names in (["toy"], ["toy", "toy"], ["toy", "toy/77"], ["toy", "none"], ["toy", "toy/x"]):
        refused = run("compare", *names)
        assert refused.returncode == 2
        assert "Traceback" not in refused.stderr


def test_export_study_is_read_by_optuna(run: Posetune, folder: Path) -> None:
    import optuna

    result = run("export-study", "toy", "--to", f"sqlite:///{folder / 'optuna.db'}")
    assert result.returncode == 0, result.stderr
    study = optuna.load_study(study_name="toy", storage=f"sqlite:///{folder / 'optuna.db'}")
    assert len(study.trials) == 6


def test_ui_makes_no_home_where_there_is_none(run: Posetune, folder: Path) -> None:
    result = run("ui", "--home", folder / "elsewhere")
    assert (result.returncode, "no home at" in result.stderr) == (2, True)
    assert not (folder / "elsewhere").exists()


def test_mlflow_that_is_away_is_one_short_line(
    run: Posetune, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from posetune.home import Home
    from posetune.study.tables.database import open_database
    from posetune.tracking.projection import ship

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    home = Home.resolve(folder / "home")
    with pytest.raises(ValueError, match="no connection to") as caught:
        ship(open_database(home.database), "toy", home)
    assert len(str(caught.value)) < 200


def test_a_fresh_training_leaves_nothing_of_the_old_one(run: Posetune, folder: Path) -> None:
    kept = folder / "home" / "storage" / "checkpoints" / ".train-toy"
    for fresh in ([], ["--fresh"]):
        result = run("train", "toy.yaml", "--seed", len(fresh), *fresh)
        assert result.returncode == 0, result.stderr
        assert len(list(kept.glob("*/*"))) == 2
    assert "baseline start: val/error_mm 2.00" in result.stderr
    assert "Next: " in result.stderr
    assert "epoch 4/4" in result.stderr
    shutil.rmtree(kept)
