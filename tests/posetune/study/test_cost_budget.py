"""A limit of cost is the limit of GPU-hours that it pays for."""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.commands import Posetune
from support.simulated_driver import fill, open_unsynced, outcome, simulated_start

from posetune.api import BadInputError
from posetune.report.tables import budget_used, forecast_line
from posetune.spec.home_file import priced_by
from posetune.spec.sweep import SweepSpec
from posetune.study.acts.act import EditSweep
from posetune.study.acts.asking import ask, edit_of
from posetune.study.driving.sweep import SweepRun, SweepStart
from posetune.study.tables.database import Database


@pytest.fixture
def study(tmp_path: Path) -> Iterator[Database]:
    opened = open_unsynced(tmp_path / "study.db")
    yield opened
    opened.close()


def limited(**budget: float) -> SweepStart:
    return simulated_start(resources={"gpu": 2}, budget={"trials": 40, **budget})


def run_out(database: Database, sweep_start: SweepStart) -> SweepRun:
    """Run a sweep until its budget has no room; six minutes pass from one event to the next."""
    run = SweepRun(database, sweep_start, clock=itertools.count(1.0, 360.0).__next__)
    fill(run, 40, random.Random(0))
    run.lease.release()
    return run


def test_it_ends_a_sweep_where_so_many_gpu_hours_do(study: Database, tmp_path: Path) -> None:
    by_cost = run_out(study, limited(cost=40.0, cost_per_gpu_hour=2.5))
    other = open_unsynced(tmp_path / "other.db")
    by_hours = run_out(other, limited(gpu_hours=16.0))
    assert 1 < len(by_cost.trials) < 40
    assert outcome(study) == outcome(other)
    assert by_hours.budget.limit == "the budget of 16 GPU-hours"
    assert by_cost.budget.limit == "the budget of 16 GPU-hours (cost 40 at 2.5 each)"


def test_the_smaller_limit_holds() -> None:
    budget = limited(cost=40.0, cost_per_gpu_hour=2.5, gpu_hours=10.0).spec.budget
    assert (budget.limit_gpu_hours, budget.is_limited_by_cost) == (10.0, False)
    assert limited(cost=40.0).spec.budget.limit_gpu_hours is None, "nobody has said a price yet"


def test_what_it_will_cost_is_forecast(study: Database) -> None:
    run_out(study, limited(cost=40.0, cost_per_gpu_hour=2.5))
    view = run_out(study, limited(cost=60.0, cost_per_gpu_hour=2.5)).view()
    assert "of 24 GPU-hours (cost 60 at 2.5 each)" in budget_used(view)
    told = forecast_line(view)
    assert ", of 60)" in told
    assert "ended by cost 100%" in told


def test_the_home_says_what_a_gpu_hour_costs(tmp_path: Path) -> None:
    spec = limited(cost=40.0).spec
    with pytest.raises(BadInputError, match=r"budget\.cost: 40: nobody says what a GPU-hour costs"):
        priced_by(spec, tmp_path)
    (tmp_path / "posetune.yaml").write_text("cost_per_gpu_hour: 4\n")
    assert priced_by(spec, tmp_path).budget.limit_gpu_hours == 10.0
    own = limited(cost=40.0, cost_per_gpu_hour=2.0).spec
    assert priced_by(own, tmp_path).budget.limit_gpu_hours == 20.0


def test_a_sweep_goes_on_at_another_price(study: Database) -> None:
    run_out(study, limited(cost=40.0, cost_per_gpu_hour=2.5))
    run = run_out(study, limited(cost=40.0, cost_per_gpu_hour=2.0))
    assert run.budget.limit == "the budget of 20 GPU-hours (cost 40 at 2 each)"


def test_an_edit_keeps_the_price(study: Database) -> None:
    begun = limited(cost=40.0, cost_per_gpu_hour=2.5)
    run_out(study, begun)
    larger = limited(cost=80.0).spec
    ask(study, "s", EditSweep(spec=larger.canonical(), source="more"), by="ana@laptop")
    run = run_out(study, dataclasses.replace(begun, spec=larger.priced(2.5)))
    assert run.budget.limit == "the budget of 32 GPU-hours (cost 80 at 2.5 each)"


def test_an_edit_knows_the_price_of_the_home(
    tmp_path: Path, toy_sweep: Callable[..., Path]
) -> None:
    file = toy_sweep(trials=2)
    text = file.read_text().replace("{cpu: 1}", "{cpu: 1, gpu: 1}")
    file.write_text(text.replace("trials: 2", "trials: 2, cost: 50.0"))
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "posetune.yaml").write_text("cost_per_gpu_hour: 2.5\n")
    assert edit_of(file, tmp_path / "home").spec["budget"]["cost_per_gpu_hour"] == 2.5


def test_the_commands_refuse_a_cost_that_nothing_can_be_counted_by(
    posetune: Posetune, toy_sweep: Callable[..., Path]
) -> None:
    file = toy_sweep(trials=2)
    text = file.read_text()
    file.write_text(text.replace("trials: 2", "trials: 2, cost: 50.0"))
    for command in (("check", file), ("sweep", file, "--name", "s")):
        refused = posetune(*command)
        assert refused.returncode == 2
        assert "budget.cost: the cost is that of GPU-hours" in refused.stderr
    file.write_text(file.read_text().replace("{cpu: 1}", "{cpu: 1, gpu: 1}"))
    for command in (("check", file), ("sweep", file, "--name", "s")):
        refused = posetune(*command)
        assert refused.returncode == 2
        assert "write cost_per_gpu_hour into" in refused.stderr


def test_a_cost_without_gpus_is_refused() -> None:
    content = limited(cost=40.0).spec.canonical()
    content["resources"]["gpu"] = 0
    content["resources"]["processes"] = 1
    with pytest.raises(ValueError, match="a trial takes no GPU"):
        SweepSpec.model_validate(content)
