"""A sweep's saved view fits into a tag of MLflow, however much is searched."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.simulated_driver import open_unsynced, simulated_start

from posetune.study.driving.sweep import SweepRun
from posetune.study.reading import read_sweep
from posetune.tracking.saved_views import saved_view


@pytest.mark.parametrize("fields", [2, 200])
def test_the_best_and_the_searched_parameters_are_columns(tmp_path: Path, fields: int) -> None:
    database = open_unsynced(tmp_path / "study.db")
    search = {f"a_part.of_the_model.weight_{i}": {"float": [0.1, 1]} for i in range(fields)}
    SweepRun(database, simulated_start(search=search)).lease.release()

    ((key, value),) = saved_view(read_sweep(database, "s")).items()
    state = json.loads(json.loads(value)["state"])

    assert key.startswith("mlflow.sharedViewState.")
    assert len(value) <= 5000
    assert state["orderByKey"] == state["selectedColumns"][0] == "metrics.`best/loss`"
    assert state["searchFilter"] == "tags.`posetune.sweep` = 's'"
    shown = [column for column in state["selectedColumns"] if column.startswith("params.")]
    assert shown == [f"params.`{name}`" for name in search][: len(shown)]
    assert len(shown) == 2 if fields == 2 else 20 < len(shown) < 200
