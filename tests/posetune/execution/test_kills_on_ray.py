"""Sweeps killed with SIGKILL, through real Ray, end as undisturbed ones do.

That a kill around any event loses nothing is shown without Ray, in `study/driving/test_kills.py`.
Here are as few as show that Ray adds no loss of its own: with Ray and workers, or the driver alone.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest
from support.commands import Posetune
from support.simulated_driver import outcome
from support.sweeps import Driver, Script, events, open_study, view

from posetune.study.events import Reported, TrialEnded
from posetune.study.search.rungs import Rungs

pytestmark = [pytest.mark.ray, pytest.mark.slow]

Write = Callable[..., Path]

SELFPOSE_SWEEP = """\
trainable: selfpose.trainable:SelfPose
store: {store}
objective: {{metric: val/p_mpjpe_mm, mode: min}}
search:
  loss_weights.flow: {{float: [0.1, 10], log: true}}
  flow.depth: {{choice: [1, 2]}}
fixed:
  image_size: 32
  width: 4
  batch_size: 4
  steps_per_epoch: 2
  val_frames: 16
  lifting.width: 32
  flow: {{hidden: 16, steps: 20}}
  discriminator.width: 4
  pretrain_keypoints: 4
pruner: {{name: asha, max_epochs: 4, grace_epochs: 1, reduction_factor: 2}}
resources: {{cpu: 1, concurrent: 1}}
budget: {{trials: 4}}
"""


def mlflow_children(home: Path) -> dict[str, list[str]]:
    """The states of the child runs in the home's MLflow store, by trial number."""
    client = mlflow.MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    found: dict[str, list[str]] = {}
    for experiment in client.search_experiments():
        for run in client.search_runs([experiment.experiment_id]):
            if "mlflow.parentRunId" in run.data.tags:
                found.setdefault(run.data.tags["posetune.trial"], []).append(run.info.status)
    return found


@pytest.mark.long
def test_killed_within_an_epoch_and_between_trials_a_sweep_ends_the_same(
    posetune: Posetune,
    ray_head: str,
    undisturbed: str,
    compared_sweep: Write,
    migrated_home: Path,
    tmp_path: Path,
) -> None:
    script = Script(tmp_path / "script", "go", "wait", "go", "go", "go", "wait")
    command = ("sweep", compared_sweep(script=str(script.file)), "--name", "s")

    whole = Driver(tmp_path, *command)  # with a Ray of its own, in one process group
    whole.until(lambda: len(script.lines) < 5)  # the second epoch of the first trial
    whole.kill()
    driver = Driver(tmp_path, *command, "--address", ray_head)  # its workers are not
    driver.until(lambda: events(migrated_home, TrialEnded))  # the second trial goes no further
    driver.kill()
    script.let_go()
    result = posetune(*command, "--address", ray_head)

    assert result.returncode == 0, result.stderr
    with open_study(migrated_home) as database:
        assert outcome(database) == undisturbed
    assert mlflow_children(migrated_home) == {str(number): ["FINISHED"] for number in range(3)}


@pytest.mark.long
def test_a_driver_killed_with_several_trials_under_way_continues(
    posetune: Posetune, ray_head: str, toy_sweep: Write, tmp_path: Path
) -> None:
    script = Script(tmp_path / "script", *["go"] * 4, "wait", "wait")
    file = toy_sweep(trials=6, concurrent=2, script=str(script.file))
    command = ("sweep", file, "--name", "s", "--address", ray_head, "--no-tracking")
    driver = Driver(tmp_path, *command)
    driver.until(script.is_over)
    driver.kill()
    script.let_go()
    result = posetune(*command)
    assert result.returncode == 0, result.stderr
    check_reports(tmp_path / "home", trials=6)


def check_reports(home: Path, *, trials: int) -> None:
    """No epoch twice, no hole, and the decisions are those of the rungs fed in this order."""
    found = view(home)
    assert found is not None
    assert found.state == "COMPLETE"
    epochs: dict[int, list[int]] = {number: [] for number in range(trials)}
    for report in found.reports:
        epochs[report.trial].append(report.epoch)
    assert epochs == {t.number: list(range(1, t.epochs + 1)) for t in found.trials}
    rungs = Rungs(found.spec.pruner, found.spec.objective, found.spec.sampler.seed)
    for report in found.reports:
        said = report.trial, report.epoch, report.value
        decision, is_audited, _ = rungs.decide(*said)
        assert decision == report.decision
        rungs.record(*said, is_audited=is_audited)


@pytest.mark.long
def test_killed_within_a_stage_and_later_the_model_ends_the_same(
    tiny_store: Path, ray_head: str, tmp_path: Path
) -> None:
    file = tmp_path / "selfpose.yaml"
    file.write_text(SELFPOSE_SWEEP.format(store=tiny_store))
    found = []
    for name in ("undisturbed", "killed"):
        folder = tmp_path / name
        folder.mkdir()
        home = folder / "home"
        alone = ("sweep", file, "--name", "s", "--no-tracking")
        command = (*alone, "--address", ray_head)
        if name == "killed":
            driver = Driver(folder, *alone)  # with a Ray of its own, in one process group
            driver.until(lambda home=home: list(home.glob("storage/stages/*/*.claim")))
            driver.kill()
            driver = Driver(folder, *command)
            driver.until(lambda home=home: len(events(home, Reported)) >= 2)
            driver.kill()
        driver = Driver(folder, *command)
        assert driver.end() == 0, driver.output
        with open_study(home) as database:
            found.append(outcome(database))
    assert found[0] == found[1]
