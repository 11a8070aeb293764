"""One tiny run of Ray Tune through our adapter, whose every turn is written down.

Run as a program with the name of a file: it starts Ray on this machine, lets five made-up trials
run and writes what it saw into the file, as JSON. Nothing of a study is in it: what it sees is
Tune's.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray._common.usage import usage_lib
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher
from ray.util.placement_group import remove_placement_group

from posetune.execution import tune_adapter
from posetune.execution.connection import connected
from posetune.spec.sweep import Resources

__all__ = ["BEREFT", "DYING", "EPOCHS", "REMEMBERED", "SWEEP", "TRIALS"]

SWEEP = "tiny"
TRIALS = 5
EPOCHS = 5
"""Epochs of every trial but the one whose worker dies."""
DYING = 2
"""The trial whose worker dies with every attempt."""
BEREFT = 4
"""The trial whose worker, reused from the trial before, is killed between the two."""
REMEMBERED = 1
"""The trial whose answers are not let go."""
ANSWERS = ("pid", "folder", "attempt", "copied")
"""What a worker answers with."""
ATTEMPTS = 2
"""Attempts of the trial whose worker dies."""
ROOMY = Resources(cpu=2)
"""What an attempt asks for after a death."""


class Worker(tune.Trainable):
    """Answers with where it runs; one trial kills it."""

    def setup(self, config: dict[str, Any]) -> None:
        self._given = config

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._given = new_config
        return True

    def step(self) -> dict[str, Any]:
        if self._given["number"] == DYING:
            os._exit(1)
        return {
            "pid": os.getpid(),
            "folder": str(Path.cwd()),
            "attempt": self._given["attempt"],
            "copied": sorted(ray.get_runtime_context().runtime_env.get("env_vars", {})),
        }

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        raise AssertionError("nobody asks a worker for a checkpoint")


class Recorder:
    """What was seen, and things that cannot be pickled."""

    def __init__(self) -> None:
        self.lock = threading.Lock()  # cannot be pickled: Tune must not try
        self.seen: dict[str, Any] = {
            "calls": [],
            "workers": [],
            "held": {"let go": [], "kept": []},
            "turns": 0,
            "deaths": [],
            "requests": [],
        }

        self.idle_in: Any = None
        """Tune's loop, where a worker is about to be idle that is to be let go."""

    def let_idle_worker_go(self) -> None:
        """Let the idle worker go, once there is one, and write down how many there were."""
        cache = None if self.idle_in is None else self.idle_in._actor_cache
        if cache is not None and cache.num_cached_objects:
            before = cache.num_cached_objects
            tune_adapter.let_idle_worker_go(self.idle_in)
            self.seen["idle"], self.idle_in = [before, cache.num_cached_objects], None

    def note(self, *what: Any) -> None:
        self.seen["calls"].append(list(what))


class SceneScheduler(tune_adapter.StatelessScheduler):
    """Starts every trial with a config that only the scheduler knows, and ends it."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self.recorder, self.attempts = recorder, dict.fromkeys(range(TRIALS), 0)

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        number = trial.config["number"]
        if self.attempts[number] == ATTEMPTS:
            self.recorder.note("end", number)
            tune_adapter.end_queued_trial(tune_controller, trial)
            return
        self.attempts[number] += 1
        self.recorder.note("add", number)
        self._ask(trial)
        trial.set_config({"number": number, "attempt": self.attempts[number]})

    def _ask(self, trial: Trial) -> None:
        resources = ROOMY if trial.num_failures else Resources(cpu=1)
        tune_adapter.ask_for_resources(trial, tune_adapter.TrialRequest(SWEEP, resources))

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        number = trial.config["number"]
        self.recorder.note("error", number)
        self.recorder.seen["deaths"].append(tune_adapter.read_death(trial))
        self._ask(trial)
        asked = trial.placement_group_factory.required_resources
        self.recorder.seen["requests"].append([trial.status, asked["CPU"]])

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        number, seen = trial.config["number"], self.recorder.seen
        self.recorder.note("scheduler", number)
        seen["workers"].append({"number": number, **{name: result[name] for name in ANSWERS}})
        manager = tune_controller._actor_manager
        actor = tune_controller._trial_to_actor[trial]
        if number != REMEMBERED:
            tune_adapter.forget_answers(tune_controller, trial)
        held = len(manager._tracked_actors_to_task_futures[actor])
        seen["held"]["kept" if number == REMEMBERED else "let go"].append(held)
        self._look(tune_controller, trial)
        count = sum(call == ["scheduler", number] for call in seen["calls"])
        return str(TrialScheduler.STOP if count == EPOCHS else TrialScheduler.CONTINUE)

    def _look(self, tune_controller: Any, trial: Trial) -> None:
        seen = self.recorder.seen
        if "during" in seen:
            return
        holdings, waiting = tune_adapter.read_trial_groups()
        unplaced = tune_adapter.TrialRequest("other", Resources(cpu=1, labels={"none": "such"}))
        group = unplaced.to_placement_group()
        _, waiting_then = tune_adapter.read_trial_groups()
        remove_placement_group(group)
        seen["during"] = {
            "holdings": [[h.sweep, dict(h.amounts), h.node] for h in holdings],
            "waiting": [sorted(waiting), sorted(waiting_then)],
            "free": tune_adapter.free_by_node(),
            "drained": sorted(tune_adapter.nodes_being_drained()),
            "gpus": tune_adapter.gpus_of(trial),
            "ctrl_c": signal.getsignal(signal.SIGINT) is signal.default_int_handler,
            "checkpoint_period": tune_controller._checkpoint_manager._checkpoint_period,
            "is_limited": tune_controller._search_alg.searcher._limit_concurrency,
        }

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: Any) -> None:
        before = len(trial.metric_analysis)
        tune_adapter.forget_statistics(trial)
        self.recorder.note("complete", trial.config["number"])
        if trial.config["number"] == DYING - 1:
            self.recorder.idle_in = tune_controller
        if trial.config["number"] == BEREFT - 1:
            os.kill(self.recorder.seen["workers"][-1]["pid"], signal.SIGKILL)
        self.recorder.seen["statistics"] = [before, len(trial.metric_analysis)]


class SceneSearcher(tune_adapter.StatelessSearcher):
    """Hands out the trials, one at a time."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self.recorder, self.given, self.under_way = recorder, 0, 0

    def suggest(self, trial_id: str) -> Any:
        if self.given == TRIALS:
            return Searcher.FINISHED
        if self.under_way:
            return None
        self.given += 1
        self.under_way += 1
        return {"number": self.given - 1}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        self.under_way -= 1
        self.recorder.note("searcher", error)


def main() -> None:
    """Run the scene and write down what was seen."""
    os.environ["AWS_SECRET_ACCESS_KEY"] = "of-the-driver"
    signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever started us may ignore it
    tune_adapter.set_environment()
    recorder = Recorder()

    def turn() -> None:
        recorder.seen["turns"] += 1
        recorder.let_idle_worker_go()

    with tempfile.TemporaryDirectory(prefix="posetune-scene-") as folder:
        with connected(None, include_dashboard=False, num_cpus=2):
            recorder.seen["reports_usage"] = usage_lib.usage_stats_enabled()
            tune_adapter.run_trials(
                Worker,
                tune_adapter.TrialRequest(SWEEP, Resources(cpu=1)),
                searcher=SceneSearcher(recorder),
                scheduler=SceneScheduler(recorder),
                stopper=tune_adapter.SweepStopper(turn, lambda: False),
                trials=TRIALS,
                folder=(folder, None),
            )
        recorder.seen["files"] = sorted(
            {path.name for path in Path(folder).rglob("*") if path.is_file()}
        )
    Path(sys.argv[1]).write_text(json.dumps(recorder.seen))


if __name__ == "__main__":
    main()
