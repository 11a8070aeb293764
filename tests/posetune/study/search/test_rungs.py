"""ASHA's rungs: a pure function of the reports, equal to Ray's decisions."""

from __future__ import annotations

import random

import numpy as np
import pytest

from posetune.spec.sweep import Objective, Pruner
from posetune.study.search.rungs import Decision, Rungs, interpolate, rung_epochs

MIN = Objective(metric="value", mode="min")


def judge(rungs: Rungs, trial: int, epoch: int, value: float | None) -> Decision:
    """Decide and record, as a driver does."""
    decision, is_audited, _ = rungs.decide(trial, epoch, value)
    rungs.record(trial, epoch, value, is_audited=is_audited)
    return decision


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
    rungs = Rungs(settings, Objective(metric="value", mode=mode))
    running = {number: 0 for number in range(40)}
    reports, decisions = [], []
    while running:
        number = generator.choice(list(running))
        running[number] += 1
        value = round(generator.gauss(number % 7, 1.0), 1)  # rounded, so that ties occur
        decision = judge(rungs, number, running[number], value)
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


@pytest.mark.parametrize("factor", [2, 3, 4, 7])
def test_quantiles_equal_those_of_numpy_to_the_last_bit(factor: int) -> None:
    generator = np.random.default_rng(0)
    percentile = (1 - 1 / factor) * 100
    for count in range(1, 200):
        values = np.sort(generator.lognormal(0, 3, count) * generator.choice([-1, 1], count))
        assert interpolate(list(values), percentile / 100) == np.percentile(values, percentile)


def test_replaying_the_reports_gives_the_same_decisions() -> None:
    reports, decisions = interleaved(3, pruner(27), "min")
    rungs = Rungs(pruner(27), MIN)
    assert [judge(rungs, *report) for report in reports] == decisions


def test_the_top_rung_is_not_lost_to_rounding() -> None:
    assert rung_epochs(pruner(243)) == [1, 3, 9, 27, 81]


def test_without_a_pruner_every_trial_runs_its_epochs() -> None:
    rungs = Rungs(Pruner(name="none", max_epochs=3), MIN)
    for value in (1.0, 2.0, 3.0):
        said = [judge(rungs, 0, epoch, value) for epoch in (1, 2, 3)]
        assert said == [Decision.CONTINUE, Decision.CONTINUE, Decision.COMPLETE]


def test_not_a_number_is_never_recorded_and_cut_at_a_rung_alone() -> None:
    rungs = Rungs(pruner(9), MIN)
    assert judge(rungs, 0, 1, None) == Decision.PRUNE
    assert judge(rungs, 1, 1, 5.0) == Decision.CONTINUE
    assert judge(rungs, 1, 2, None) == Decision.CONTINUE
    assert judge(rungs, 1, 3, None) == Decision.PRUNE
    assert {epoch: list(values) for epoch, values in rungs.records.items()} == {1: [-5.0], 3: []}


def test_an_audited_trial_runs_on_and_the_others_are_judged_as_if_it_had_been_cut() -> None:
    reports, decisions = interleaved(3, pruner(27), "min")
    audit = pruner(27).model_copy(update={"audit_share": 0.5})
    rungs = Rungs(audit, MIN, seed=1)
    for (trial, epoch, value), expected in zip(reports, decisions, strict=True):
        said = judge(rungs, trial, epoch, value)
        if said != expected:
            assert (said, expected) == (Decision.CONTINUE, Decision.PRUNE)
            assert rungs.audited[trial] == epoch
            for later in range(epoch + 1, 27):
                assert judge(rungs, trial, later, -1e9) == Decision.CONTINUE
            assert judge(rungs, trial, 27, -1e9) == Decision.COMPLETE
    cut = [trial for (trial, _, _), d in zip(reports, decisions, strict=True) if d == "prune"]
    assert 0 < len(rungs.audited) < len(cut)
    again = Rungs(audit, MIN, seed=1)
    for trial, epoch, value in reports:
        again.record(trial, epoch, value, is_audited=rungs.audited.get(trial) == epoch)
    assert (again.audited, again.records) == (rungs.audited, rungs.records)


@pytest.mark.parametrize(("share", "most"), [(0.0, 0), (1.0, 40)])
def test_none_or_all_of_the_trials_are_audited(share: float, most: int) -> None:
    reports, decisions = interleaved(3, pruner(27), "min")
    rungs = Rungs(pruner(27).model_copy(update={"audit_share": share}), MIN)
    for reported in reports:
        judge(rungs, *reported)
    cut = [d for d in decisions if d == Decision.PRUNE]
    assert len(rungs.audited) == min(most, len(cut))
