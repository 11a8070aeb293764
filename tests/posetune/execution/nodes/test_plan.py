"""A plan takes no longer for a higher bound, and says what it does not know."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from posetune.execution.nodes import plan
from posetune.execution.nodes.plan import plan_sweep
from posetune.report.tables import no_forecast
from posetune.spec.loading import load_sweep
from posetune.spec.sweep import SweepSpec
from posetune.testing.toy import Toy

TRIALS = 1_000_000


def with_budget(file: Path, **hours: float) -> SweepSpec:
    spec, _, _ = load_sweep(file)
    budget = spec.budget.model_copy(update={"trials": TRIALS, **hours})
    return spec.model_copy(update={"budget": budget})


@pytest.mark.slow
def test_a_million_trials_are_planned_at_once_by_their_bounds(
    toy_sweep: Callable[..., Path], toy_store: Path
) -> None:
    spec = with_budget(toy_sweep(max_epochs=9, epoch_s=2.0))
    began = time.process_time()
    found = plan_sweep(spec, Toy, store=toy_store, store_digest="d")
    assert time.process_time() - began < 20
    assert found.epochs == (TRIALS, 9 * TRIALS) == (TRIALS, found.most_epochs)
    assert any("do not suffice to simulate" in warning for warning in found.warnings)
    assert found.stages["floor"] <= 4


@pytest.mark.slow
def test_a_million_trials_with_hours_are_planned_by_their_hours(
    toy_sweep: Callable[..., Path], toy_store: Path
) -> None:
    spec = with_budget(toy_sweep(max_epochs=9, epoch_s=2.0), wall_hours=0.02)
    found = plan_sweep(spec, Toy, store=toy_store, store_digest="d")
    assert 60 < found.seconds[0] <= found.seconds[1] < 76
    assert found.epochs[1] < 1000


def test_a_stage_with_two_products_has_two_in_a_million_trials(
    toy_sweep: Callable[..., Path], toy_store: Path
) -> None:
    file = toy_sweep(trials=TRIALS)
    file.write_text(file.read_text().replace("{int: [2, 8], step: 2}", "{int: [2, 8], step: 6}"))
    spec, _, _ = load_sweep(file)
    counted = plan._distinct_stages(spec, Toy, store=toy_store, store_digest="d")
    assert counted["floor"] == 2


def test_what_bounds_a_sweep_is_said_where_it_cannot_be_simulated(
    toy_sweep: Callable[..., Path],
) -> None:
    said = no_forecast(with_budget(toy_sweep(), wall_hours=0.5, gpu_hours=3.0))
    assert "1000000 trials of at most 9 epochs or 3 trial-hours or 0.5 hours by the clock" in said
