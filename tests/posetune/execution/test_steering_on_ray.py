"""People steer a sweep through real Ray: trials stop, wait and go on as the study says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support.commands import Posetune
from support.simulated_driver import outcome
from support.sweeps import Script, beside, events, open_study, partial_seconds, until, view

from posetune.execution import preemption
from posetune.study.acts.act import (
    Act,
    Enqueue,
    ExtendTrial,
    HoldSweep,
    ReleaseSweep,
    RetryTrial,
    StopTrial,
)
from posetune.study.acts.asking import ask
from posetune.study.events import DriverOpened

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.long]

Write = Callable[..., Path]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def act_on(home: Path, *acts: Act) -> None:
    """Do what a person does beside the driver, one act after the other, each taken up."""
    with open_study(home) as database:
        for act in acts:
            assert ask(database, "s", act, by="ana@laptop", wait_s=120.0).event, act


def test_a_held_sweep_gives_its_slots_back_and_ends_as_if_nothing_had_happened(
    posetune: Posetune,
    ray_head: str,
    undisturbed: str,
    compared_sweep: Write,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import ray

    monkeypatch.setattr(preemption, "HAND_OVER_S", 200.0)
    script = Script(tmp_path / "script", "go", "wait")
    free: list[float] = []

    def hold_and_release() -> None:
        until(script.is_over)
        act_on(home, HoldSweep())
        until(lambda: partial_seconds(home))
        until(lambda: ray.available_resources().get("CPU") == 4.0)
        free.append(ray.available_resources()["CPU"])
        found = view(home)
        assert found is not None
        assert (found.held_by, found.state) == ("ana@laptop", "RUNNING")
        act_on(home, ReleaseSweep())

    file = compared_sweep(script=str(script.file))
    with beside(hold_and_release):
        result = posetune("sweep", file, "--name", "s", "--address", ray_head, "--no-tracking")
    assert result.returncode == 0, result.stderr
    assert free == [4.0]
    assert len(events(home, DriverOpened)) == 1, "the driver waited"
    with open_study(home) as database:
        assert outcome(database) == undisturbed


def test_a_trial_is_stopped_and_taken_up_again_and_another_one_is_enqueued_beside_it(
    posetune: Posetune, ray_head: str, toy_sweep: Write, home: Path, tmp_path: Path
) -> None:
    script = Script(tmp_path / "script", "go", "wait")
    file = toy_sweep(trials=3, max_epochs=3, concurrent=1, script=str(script.file))
    file.write_text(file.read_text().replace("name: asha", "name: none"))
    command = ("sweep", file, "--name", "s", "--address", ray_head, "--no-tracking")

    def steer() -> None:
        until(script.is_over)
        act_on(home, Enqueue(params={"x": 0.125, "depth": 4}), StopTrial(trial=0))
        script.let_go()

    with beside(steer):
        result = posetune(*command)
    assert result.returncode == 0, result.stderr
    found = view(home)
    assert found is not None
    assert [(t.state, t.epochs) for t in found.trials] == [
        ("STOPPED", 2),
        ("COMPLETE", 3),
        ("COMPLETE", 3),
    ]
    assert found.trials[1].params == {"x": 0.125, "depth": 4}
    assert found.trials[1].chosen_by == "ana@laptop"

    with open_study(home) as database:
        for act in (RetryTrial(trial=0), ExtendTrial(trial=2, epochs=5)):
            assert ask(database, "s", act, by="ana@laptop").request.is_waiting
    assert posetune(*command).returncode == 0
    found = view(home)
    assert found is not None
    assert [(t.state, t.epochs) for t in found.trials] == [
        ("COMPLETE", 3),
        ("COMPLETE", 3),
        ("COMPLETE", 5),
    ]
    assert partial_seconds(home) == []
