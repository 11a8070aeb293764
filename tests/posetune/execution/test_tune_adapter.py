"""Every point where we go against the grain of Tune: each fails when another Ray changes it.

All but the version look at one tiny run (`support.tune_scene`).
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import ray
from support import tune_scene
from support.tune_scene import ATTEMPTS, BEREFT, DYING, EPOCHS, REMEMBERED, SWEEP, TRIALS

from posetune.execution import tune_adapter
from posetune.execution.jobs import job_server

pytestmark = [pytest.mark.ray, pytest.mark.slow]

TRAINED = [number for number in range(TRIALS) if number != DYING]
"""The trials whose workers do not die."""


@dataclass(frozen=True)
class Scene:
    """A tiny run and what it printed."""

    seen: dict[str, Any]
    printed: str
    folder: Path


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """The tiny run, in a process of its own: it starts Ray and sets the environment."""
    folder = tmp_path_factory.mktemp("scene")
    tests = Path(tune_scene.__file__).parents[1]
    kept = {n: v for n, v in os.environ.items() if n not in tune_adapter.ENVIRONMENT}
    ended = subprocess.run(
        [sys.executable, tune_scene.__file__, str(folder / "seen.json")],
        cwd=folder,
        env={**kept, "PYTHONPATH": str(tests)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    return Scene(json.loads((folder / "seen.json").read_text()), ended.stdout, folder)


def test_the_adapter_was_read_against_this_ray() -> None:
    assert ray.__version__.startswith(f"{tune_adapter.RAY_VERSION}."), (
        "read posetune.execution.tune_adapter against this Ray, then change RAY_VERSION"
    )


def test_a_worker_is_reused_until_it_dies(scene: Scene) -> None:
    processes = {worker["number"]: worker["pid"] for worker in scene.seen["workers"]}
    assert processes[0] == processes[1] != processes[DYING + 1]


def test_a_worker_that_waits_for_another_trial_is_let_go_when_that_is_told(scene: Scene) -> None:
    assert scene.seen["idle"] == [1, 0]


def test_the_scheduler_alone_sees_every_result_and_trials_start_in_their_order(
    scene: Scene,
) -> None:
    expected: list[list[object]] = []
    for number in TRAINED:
        results = [["scheduler", number]] * EPOCHS
        before = [["add", BEREFT], ["error", BEREFT]] if number == BEREFT else []
        expected += [*before, ["add", number], *results, ["complete", number], ["searcher", False]]
        if number == DYING - 1:
            deaths = [["add", DYING], ["error", DYING]] * ATTEMPTS
            expected += [*deaths, ["end", DYING], ["searcher", False]]
    assert scene.seen["calls"] == expected


def test_tune_hears_of_each_death_once_and_gives_no_trial_up_by_itself(scene: Scene) -> None:
    deaths = scene.seen["deaths"]
    assert len(deaths) == ATTEMPTS + 1  # the last is that of the reused worker
    assert all("its worker process has died" in death for death in deaths)


def test_what_the_next_attempt_asks_for_is_said_before_tune_queues_it(scene: Scene) -> None:
    assert scene.seen["requests"] == [["ERROR", tune_scene.ROOMY.cpu]] * (ATTEMPTS + 1)
    assert scene.seen["during"]["gpus"] == 0.0


def test_the_config_that_the_scheduler_sets_reaches_the_worker(scene: Scene) -> None:
    attempts = {worker["number"]: worker["attempt"] for worker in scene.seen["workers"]}
    assert attempts == {number: 2 if number == BEREFT else 1 for number in TRAINED}


def test_tune_lets_go_of_answers_only_when_it_is_told(scene: Scene) -> None:
    held = scene.seen["held"]
    assert held["let go"] == [0] * (EPOCHS * (len(TRAINED) - 1))
    assert held["kept"] == sorted(set(held["kept"]))
    assert held["kept"][-1] >= EPOCHS, "Tune lets go by itself: forget_answers can go"
    assert REMEMBERED in TRAINED


def test_tune_keeps_statistics_of_a_trial_only_until_it_is_told(scene: Scene) -> None:
    before, after = scene.seen["statistics"]
    assert before > 0, "Tune keeps none: forget_statistics can go"
    assert after == 0


def test_the_stopper_is_asked_at_every_turn_of_the_loop(scene: Scene) -> None:
    assert scene.seen["turns"] > len(scene.seen["workers"])


def test_tune_leaves_the_number_of_trials_at_a_time_to_the_searcher(scene: Scene) -> None:
    assert scene.seen["during"]["is_limited"] is False


def test_no_key_of_the_driver_is_copied_to_its_workers(scene: Scene) -> None:
    copied = {name for worker in scene.seen["workers"] for name in worker["copied"]}
    assert "RAY_CHDIR_TO_TRIAL_DIR" in copied, "Tune copies nothing: it finds another way"
    assert not {name for name in copied if name.startswith("AWS_")}


def test_workers_stay_in_the_drivers_folder(scene: Scene) -> None:
    assert {worker["folder"] for worker in scene.seen["workers"]} == {str(scene.folder)}


def test_tune_leaves_ctrl_c_alone(scene: Scene) -> None:
    assert scene.seen["during"]["ctrl_c"] is True


def test_tune_writes_no_logs_of_trials_and_its_state_once(scene: Scene) -> None:
    files = scene.seen["files"]
    assert not [f for f in files if f in ("progress.csv", "result.json", "params.json")]
    assert not [f for f in files if f.startswith("events.out.tfevents")]
    assert len([f for f in files if f.startswith("experiment_state")]) == 1
    assert scene.seen["during"]["checkpoint_period"] >= 1e6


def test_tune_prints_no_tables_and_ray_reports_nothing_to_its_makers(scene: Scene) -> None:
    assert "Configuration for experiment" not in scene.printed
    assert "Trial" not in scene.printed
    assert scene.seen["reports_usage"] is False


def test_placement_groups_say_whose_trials_are_placed_and_who_waits(scene: Scene) -> None:
    during = scene.seen["during"]
    [[sweep, amounts, node]] = during["holdings"]
    assert (sweep, amounts) == (SWEEP, {"cpu": 1.0, "gpu": 0.0})
    assert during["waiting"] == [[], ["other"]]  # the other one asks for a label that no node has
    assert during["free"][node]["CPU"] == 1.0
    assert during["drained"] == []


@pytest.mark.parametrize("name", job_server.TALKERS)
def test_rays_clients_are_silenced_by_the_names_of_their_loggers(name: str) -> None:
    # A logger that Ray has renamed is not there before somebody asks for it by the old name.
    names = "import logging, ray.job_submission, ray._private.runtime_env.packaging; "
    script = names + "print(*(n for n in logging.root.manager.loggerDict))"
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert name in ended.stdout.split()
    job_server.silence_clients()
    assert logging.getLogger(name).level == logging.WARNING
