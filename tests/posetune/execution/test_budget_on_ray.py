"""The budget through the command line, on real Ray: spent, and then raised in the file."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from posetune.home import Home
from posetune.study.database import open_database
from posetune.study.view import SweepView, read_sweep

pytestmark = [pytest.mark.ray, pytest.mark.slow]

EPOCH_S = 0.3
SLOTS = os.cpu_count() or 1
CONTINUES = "raise the budget in the file; then the same command again continues it"

Continue = Callable[[str, str], tuple[SweepView, str]]


@pytest.fixture
def sweep(
    posetune: Callable[..., subprocess.CompletedProcess[str]],
    toy_sweep: Callable[..., Path],
    tmp_path: Path,
) -> Continue:
    """Give the command with a budget in the file; return the sweep and what was said."""
    file = toy_sweep(max_epochs=3, epoch_s=EPOCH_S)

    def give(name: str, budget: str) -> tuple[SweepView, str]:
        file.write_text(re.sub("budget: .*", f"budget: {{{budget}}}", file.read_text()))
        result = posetune("sweep", file, "--name", name)
        assert result.returncode == 0, result.stderr
        database = open_database(Home.resolve(tmp_path / "home").database)
        view = read_sweep(database, name)
        database.close()
        return view, " ".join(result.stderr.split())

    return give


def held_s(view: SweepView) -> float:
    return sum(trial.held_s for trial in view.trials)


def report_s(view: SweepView) -> float:
    """Return what a report takes at most, with a start before it: less than it may be left."""
    starts_s = max(trial.held_s - trial.seconds for trial in view.trials)
    return starts_s + max(report.seconds for report in view.reports)


def ended(view: SweepView) -> dict[int, tuple[object, ...]]:
    """Return what each trial that has ended took, and what it came to."""
    return {
        t.number: (t.state, t.epochs, t.value, t.attempts, t.held_s)
        for t in view.trials
        if t.state in ("COMPLETE", "PRUNED")
    }


def test_trials_and_hours_that_are_spent_may_be_raised_and_only_the_rest_is_spent(
    sweep: Continue, shown: Callable[[str], dict]
) -> None:
    # The first two trials need 6 epochs at most; a busy machine takes longer.
    limit_s = 25 * EPOCH_S
    hours = limit_s / 3600
    first, _ = sweep("s", f"trials: 2, gpu_hours: {hours}")
    assert first.state == "COMPLETE"
    assert len(first.trials) == 2

    capped, said = sweep("s", f"trials: 100, gpu_hours: {hours}")
    assert f"the budget of {hours:g} trial-hours is spent" in said
    assert CONTINUES in said
    assert ended(capped).items() >= ended(first).items()
    longest_s = max(report.seconds for report in capped.reports)
    assert limit_s - report_s(capped) <= held_s(capped) < limit_s + SLOTS * longest_s + 1
    view = shown("s")
    assert view["state"] == "INTERRUPTED"
    assert view["best"]["state"] == "COMPLETE"
    never = view["left_out"]["never_started"]
    assert never == 100 - len(view["trials"])
    assert never > 20

    raised, said = sweep("s", f"trials: 100, gpu_hours: {2 * hours}")
    assert f"the budget of {2 * hours:g} trial-hours is spent" in said
    assert len(raised.trials) > len(capped.trials)
    longest_s = max(report.seconds for report in raised.reports)
    assert 2 * limit_s - report_s(raised) <= held_s(raised) < 2 * limit_s + SLOTS * longest_s + 1
    assert ended(raised).items() >= ended(capped).items()


def test_hours_by_the_clock_that_are_spent_may_be_raised(sweep: Continue) -> None:
    spent, said = sweep("s", "trials: 2, wall_hours: 0.0001")
    assert f"the budget of 0.0001 hours is spent; {CONTINUES}" in said
    assert spent.state == "INTERRUPTED"
    assert not spent.reports
    raised, said = sweep("s", "trials: 2, wall_hours: 0.5")
    assert raised.state == "COMPLETE"
    assert raised.driven_s > spent.driven_s > 0.36
