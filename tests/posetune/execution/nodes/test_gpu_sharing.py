"""How much of a GPU a trial gets."""

from __future__ import annotations

import pytest
from support.simulated_driver import simulated_start

from posetune.api import BadInputError
from posetune.execution.nodes.gpu_sharing import MARGIN, Need, largest_params, share_now, share_of
from posetune.spec.sweep import SweepSpec
from posetune.study.driving.sweep import SweepRun
from posetune.study.tables.database import Database

GB = 10**9


@pytest.mark.parametrize(
    ("need", "expected"),
    [
        (Need(10 * GB, GB, 80 * GB), 0.1666),  # 13 GB each: six
        (Need(10 * GB, 0, 80 * GB), 0.1666),
        (Need(50 * GB, GB, 80 * GB), 1.0),
        (Need(79 * GB, GB, 80 * GB), 1.0),  # it fits, though without the margin
    ],
)
def test_a_gpu_is_cut_into_equal_parts_that_each_hold_a_trial(need: Need, expected: float) -> None:
    assert share_of(need) == expected


@pytest.mark.parametrize("peak", range(1, 40, 3))
def test_as_many_trials_as_fit_the_parts_fit_the_memory_with_the_margin(peak: int) -> None:
    need = Need(peak * GB, GB, 80 * GB)
    together = int(1 / share_of(need) + 1e-9)
    one = (1 + MARGIN) * need.peak + need.context
    assert together * one <= need.total < (together + 1) * one
    assert together * share_of(need) <= 1


def test_a_trial_that_is_larger_than_the_gpu_is_refused() -> None:
    with pytest.raises(BadInputError, match="takes 90 GB, the GPU has 80 GB"):
        share_of(Need(90 * GB, 0, 80 * GB))


def test_a_driver_that_continues_a_sweep_begins_with_the_highest_peak(database: Database) -> None:
    start = simulated_start(resources={"gpu": 1, "share": True})
    run = SweepRun(database, start)
    trial = run.next_trial()
    assert trial is not None
    run.share(0.125, peak_bytes=5 * GB, context_bytes=GB, total_bytes=80 * GB)
    assert share_now(run.state) == 0.125
    run.peaked(trial.number, 30 * GB)
    run.peaked(trial.number, 20 * GB)
    assert share_now(run.state) == 0.5
    run.lease.release()

    continued = SweepRun(database, start)
    assert continued.state.peak_bytes == 30 * GB
    assert share_now(continued.state) == 0.5
    continued.peaked(trial.number, 79 * GB + 1)
    assert share_now(continued.state) == 1.0, "it trained, so one alone has room"
    assert continued.spec.resources.gpu == 0.125, "GPU-hours count what was measured first"
    continued.lease.release()


def test_without_sharing_a_trial_takes_what_the_file_says(database: Database) -> None:
    run = SweepRun(database, simulated_start())
    assert share_now(run.state) == run.spec.resources.gpu
    run.lease.release()


def test_the_largest_configuration_has_every_whole_number_at_its_largest() -> None:
    spec = SweepSpec.model_validate(
        {
            "objective": {"metric": "m", "mode": "min"},
            "search": {
                "rate": {"float": [0.1, 1]},
                "flow.depth": {"int": [2, 16], "step": 2},
                "width": {"choice": [8, 32, 16]},
                "kind": {"choice": ["a", "b"]},
            },
            "pruner": {"max_epochs": 1},
            "budget": {"trials": 1},
        }
    )
    defaults = {"rate": 0.3, "flow.depth": 4, "width": 8, "kind": "a"}
    assert largest_params(spec, defaults) == defaults | {"flow.depth": 16, "width": 32}
