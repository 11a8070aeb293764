"""ASHA's rungs: a pure function of the reports, equal to Ray's decisions."""

from __future__ import annotations

import random

import pytest

from posetune.spec import Pruner
from posetune.study.rungs import Decision, Rungs, rung_epochs


def pruner(max_epochs: int, grace: int = 1, factor: int = 3) -> Pruner:
    return Pruner(max_epochs=max_epochs, grace_epochs=grace, reduction_factor=factor)


def ray_decisions(settings: Pruner, reports: list[tuple[int, int, float]], mode: str) -> list[str]:
    """What Ray's own ASHA says to the same reports, by its scheduler's public hooks."""
    from ray.tune.schedulers import AsyncHyperBandScheduler

    class Trial:
        def __init__(self, number: int) -> None:
            self.trial_id = str(number)

    scheduler = AsyncHyperBandScheduler(
        time_attr="epoch",
        metric="value",
        mode=mode,
        max_t=settings.max_epochs,
        grace_period=settings.grace_epochs,
        reduction_factor=settings.reduction_factor,
    )
    trials: dict[int, Trial] = {}
    said = []
    for number, epoch, value in reports:
        if number not in trials:
            trials[number] = Trial(number)
            scheduler.on_trial_add(None, trials[number])
        result = {"epoch": epoch, "value": value}
        said.append(scheduler.on_trial_result(None, trials[number], result))
    return said


def interleaved(seed: int, settings: Pruner, mode: str) -> tuple[list, list[Decision]]:
    """Forty trials reported in a random interleaving, stopped by our own decisions."""
    generator = random.Random(seed)
    rungs = Rungs(settings, mode)
    running = {number: 0 for number in range(40)}
    reports, decisions = [], []
    while running:
        number = generator.choice(list(running))
        running[number] += 1
        value = round(generator.gauss(number % 7, 1.0), 1)  # rounded, so that ties occur
        decision = rungs.report(running[number], value)
        reports.append((number, running[number], value))
        decisions.append(decision)
        if decision != Decision.CONTINUE:
            del running[number]
    return reports, decisions


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("settings", [pruner(27), pruner(10, 2, 2), pruner(9, 4), pruner(5, 5)])
def test_decisions_equal_those_of_ray(settings: Pruner, mode: str) -> None:
    for seed in range(10):
        reports, decisions = interleaved(seed, settings, mode)
        ours = ["CONTINUE" if d == Decision.CONTINUE else "STOP" for d in decisions]
        assert ours == ray_decisions(settings, reports, mode)


def test_replaying_the_reports_gives_the_same_decisions() -> None:
    reports, decisions = interleaved(3, pruner(27), "min")
    rungs = Rungs(pruner(27), "min")
    assert [rungs.report(epoch, value) for _, epoch, value in reports] == decisions


def test_the_top_rung_is_not_lost_to_rounding() -> None:
    assert rung_epochs(pruner(243)) == [1, 3, 9, 27, 81]


def test_without_a_pruner_every_trial_runs_its_epochs() -> None:
    rungs = Rungs(Pruner(name="none", max_epochs=3), "min")
    for value in (1.0, 2.0, 3.0):
        said = [rungs.report(epoch, value) for epoch in (1, 2, 3)]
        assert said == [Decision.CONTINUE, Decision.CONTINUE, Decision.COMPLETE]


def test_not_a_number_is_neither_recorded_nor_cut() -> None:
    rungs = Rungs(pruner(9), "min")
    assert rungs.report(1, None) == Decision.CONTINUE
    assert not rungs.records[1]
