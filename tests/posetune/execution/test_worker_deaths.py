"""Workers that are gone and could say nothing: what Ray says, and what the study makes of it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.core.generated.common_pb2 import ActorDiedErrorContext
from ray.exceptions import ActorDiedError
from support.simulated_driver import simulated_start

from posetune.execution import worker_deaths
from posetune.execution.driver_context import StopRequest
from posetune.execution.tune_adapter import WorkerDeath, read_death
from posetune.execution.worker_deaths import MOST_UNSTARTED, WorkerDeaths
from posetune.storage import Folder
from posetune.study.driving.sweep import SweepRun
from posetune.study.faults import FaultKind
from posetune.study.tables.database import Database

pytestmark = [pytest.mark.ray]

CAUSE = "The actor is dead because its placement group was removed."


def dead(tmp_path: Path, *causes: dict[str, Any]) -> WorkerDeath:
    """What is read of a trial whose workers died, of these causes one after the other."""
    file = tmp_path / "error.txt"
    with file.open("w") as written:  # as Tune does it
        for number, cause in enumerate(causes, start=1):
            context = ActorDiedErrorContext(actor_id=bytes(16), pid=7, **cause)
            written.write(
                f"Failure # {number} (occurred at 2026-11-30)\n{ActorDiedError(context)}\n"
            )
    trial: Any = SimpleNamespace(error_file=str(file))
    return read_death(trial)


@pytest.mark.parametrize("before", [[], [{"error_message": "another", "never_started": True}]])
def test_of_the_last_death_is_said_why_and_whether_the_worker_had_begun(
    tmp_path: Path, before: list[dict[str, Any]]
) -> None:
    assert dead(tmp_path, *before, {"error_message": CAUSE}) == WorkerDeath(CAUSE, has_run=True)
    never = dead(tmp_path, *before, {"error_message": CAUSE, "never_started": True})
    assert not never.has_run
    assert never.words.startswith(f"{CAUSE} The actor never ran")


def test_a_worker_that_never_ran_costs_its_trial_nothing_until_ray_starts_none(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_deaths, "UNSTARTED_S", 0.0)
    run, stopping = SweepRun(database, simulated_start()), StopRequest()
    deaths = WorkerDeaths(run, Folder(tmp_path), stopping)
    trial = run.next_trial()
    assert trial is not None
    for times in range(2 * MOST_UNSTARTED - 1):
        if times == MOST_UNSTARTED - 1:
            deaths.one_has_started()
        assert not stopping.reason
        attempt = run.begin_attempt(trial.number)
        deaths.excuse_unstarted(trial.number, attempt.number, WorkerDeath(CAUSE, has_run=False))
    assert stopping.failed
    assert stopping.reason == f"Ray starts no worker, {MOST_UNSTARTED} times in a row: {CAUSE}"
    again = run.begin_attempt(trial.number)
    assert again.crashes == 0
    assert run.trials[trial.number].state is None
    fault = deaths.fault_of(trial.number, again.number, WorkerDeath(CAUSE, has_run=True))
    assert (fault.kind, fault.line) == (FaultKind.CRASH, CAUSE)
    run.lease.release()
