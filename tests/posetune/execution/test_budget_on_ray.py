"""The budget through the command line, on real Ray: spent, and then raised in the file.

One trial at a time, and an epoch takes at least so long: so hours are spent by few trials on any
machine. What is counted, and who trains on, is shown without Ray in `study/test_budget.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from support.commands import Posetune
from support.sweeps import view

from posetune.study.view import SweepView

pytestmark = [pytest.mark.ray, pytest.mark.slow]

EPOCH_S = 0.1
LIMIT_S = 2.0
CONTINUES = "raise the budget in the file; then the same command again continues it"

Continue = Callable[..., tuple[SweepView, str]]


@pytest.fixture
def sweep(
    posetune: Posetune, toy_sweep: Callable[..., Path], ray_head: str, tmp_path: Path
) -> Continue:
    """Give the command with a budget in the file; return the sweep and what was said."""
    file = toy_sweep(max_epochs=3, epoch_s=EPOCH_S, concurrent=1)

    def give(budget: str, code: int = 0) -> tuple[SweepView, str]:
        file.write_text(re.sub("budget: .*", f"budget: {{{budget}}}", file.read_text()))
        result = posetune("sweep", file, "--name", "s", "--address", ray_head, "--no-tracking")
        assert result.returncode == code, result.stderr
        found = view(tmp_path / "home")
        assert found is not None
        return found, " ".join(result.stderr.split())

    return give


def held_s(view: SweepView) -> float:
    return sum(trial.held_s for trial in view.trials)


def report_s(view: SweepView) -> float:
    """Return what a report takes at most, with a start before it."""
    starts_s = max(trial.held_s - trial.seconds for trial in view.trials)
    return starts_s + max(report.seconds for report in view.reports)


def ended(view: SweepView) -> dict[int, tuple[object, ...]]:
    """Return what each trial that has ended took, and what it came to."""
    return {
        t.number: (t.state, t.epochs, t.value, t.attempts, t.held_s)
        for t in view.trials
        if t.state in ("COMPLETE", "PRUNED")
    }


@pytest.mark.long
def test_hours_that_are_spent_may_be_raised_and_only_the_rest_is_spent(
    sweep: Continue, shown: Callable[[str], dict]
) -> None:
    hours = LIMIT_S / 3600
    capped, said = sweep(f"trials: 100, gpu_hours: {hours}")
    assert f"the budget of {hours:g} trial-hours is spent" in said
    assert CONTINUES in said
    # What is left is less than a report may take; the last was let go on below the limit.
    assert LIMIT_S - report_s(capped) <= held_s(capped) < LIMIT_S + report_s(capped)
    shows = shown("s")
    assert shows["state"] == "INTERRUPTED"
    never = shows["left_out"]["never_started"]
    assert never == 100 - len(shows["trials"])
    assert never >= 100 - LIMIT_S / EPOCH_S - 1

    # More than is spent already, by more than a report takes here, however busy the machine is.
    limit_s = held_s(capped) + report_s(capped) + LIMIT_S
    raised, said = sweep(f"trials: 100, gpu_hours: {limit_s / 3600}")
    assert f"the budget of {limit_s / 3600:g} trial-hours is spent" in said
    assert held_s(raised) > held_s(capped)
    assert limit_s - report_s(raised) <= held_s(raised) < limit_s + report_s(raised)
    assert ended(raised).items() >= ended(capped).items()


@pytest.mark.long
def test_hours_by_the_clock_and_trials_may_be_raised(sweep: Continue) -> None:
    # Less than a worker's start takes: there is no result, so it is no success.
    spent, said = sweep("trials: 1, wall_hours: 0.0001", code=1)
    assert "there is no result, because no trial has reported val/error_mm" in said
    assert f"the budget of 0.0001 hours is spent; {CONTINUES}" in said
    assert spent.state == "INTERRUPTED"
    assert not spent.reports
    complete, _ = sweep("trials: 1, wall_hours: 0.5")
    assert complete.state == "COMPLETE"
    assert complete.driven_s > spent.driven_s > 0.36
    raised, _ = sweep("trials: 2, wall_hours: 0.5")
    assert (raised.state, len(raised.trials)) == ("COMPLETE", 2)
    assert ended(raised).items() >= ended(complete).items()
