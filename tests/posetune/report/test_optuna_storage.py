"""A sweep as an Optuna study."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from support.simulated_driver import drive, open_unsynced
from support.simulated_driver import simulated_start as sweep_start

from posetune.api import BadInputError
from posetune.report.optuna_storage import export_study
from posetune.study.reading import read_sweep
from posetune.study.view import SweepView


@pytest.fixture
def view(tmp_path: Path) -> SweepView:
    database = open_unsynced(tmp_path / "study.db")
    drive(database, sweep_start())
    return read_sweep(database, "s")


@pytest.mark.slow
def test_optuna_reads_every_trial_with_its_reports(view: SweepView, tmp_path: Path) -> None:
    address = export_study(view, f"sqlite:///{tmp_path / 'new' / 'optuna.db'}")
    study = optuna.load_study(study_name="s", storage=address)
    assert [t.params for t in study.trials] == [t.params for t in view.trials]
    states = {"COMPLETE": "COMPLETE", "PRUNED": "PRUNED"}
    assert [t.state.name for t in study.trials] == [states[t.state] for t in view.trials]
    reported = sum(len(t.intermediate_values) for t in study.trials)
    assert reported == len(view.reports)
    times = [(t.datetime_start.timestamp(), t.datetime_complete.timestamp()) for t in study.trials]
    assert times == [pytest.approx((t.asked, t.ended), abs=1e-5) for t in view.trials]
    complete = [t.value for t in view.trials if t.state == "COMPLETE" and t.value is not None]
    assert study.best_value == min(complete)
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["optuna.db"]


def test_a_second_sweep_joins_the_same_file_and_the_same_one_is_refused(
    view: SweepView, tmp_path: Path
) -> None:
    address = f"sqlite:///{tmp_path / 'optuna.db'}"
    export_study(view, address)
    with pytest.raises(BadInputError, match="has a study 's' already"):
        export_study(view, address)
    names = optuna.get_all_study_names(address)
    assert names == ["s"]


@pytest.mark.parametrize("address", ["nothing", "mysql+nothing://h/db", "sqlite:////proc/no/x.db"])
def test_an_address_that_cannot_be_used_is_one_line(view: SweepView, address: str) -> None:
    with pytest.raises(BadInputError, match=r"^--to [^\n]*$"):
        export_study(view, address)
