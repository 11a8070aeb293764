"""Holds all that is done against the grain of Ray Tune. Written against Ray 2.60.

Of Tune we use actors, queueing and placement; the study decides everything else. Where Tune has no
public way for that, the way around it stands here, one function or class each, with its reason.
`tests/posetune/execution/test_tune_adapter.py` has a test for each of them, which fails when
another Ray changes that point: read the two side by side when Ray is upgraded. Two things of that
kind stand elsewhere. `job_server.silence_clients`, with its test beside the others, is about the
client that sends commands to a cluster, which runs without Tune and starts 1.3 s sooner so.
`nodes.scale_up` reads what Ray's autoscalers say of themselves; `test_scale_up_on_ray` is its test.

The main path is `run_trials`, which `driver` calls. `scheduler` and `searcher` are our answers to
Tune's questions; they call the rest.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray._private.ray_constants import PROCESS_TYPE_GCS_SERVER, PROCESS_TYPE_RAYLET
from ray.tune import PlacementGroupFactory, Stopper
from ray.tune.execution import class_cache
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher
from ray.util import placement_group_table
from ray.util.placement_group import PlacementGroup, placement_group

from posetune.execution.nodes.cluster_room import HeldResources
from posetune.spec.sweep import Resources

tune_loop: Any = importlib.import_module("ray.tune.tune")  # the name `tune.tune` is a function's

__all__ = [
    "ENVIRONMENT",
    "RAY_VERSION",
    "StatelessScheduler",
    "StatelessSearcher",
    "StudyController",
    "SweepStopper",
    "TrialRequest",
    "ask_for_resources",
    "dead_ray_processes",
    "end_queued_trial",
    "forget_answers",
    "forget_statistics",
    "free_by_node",
    "gpus_of",
    "keep_keys_off_command_lines",
    "let_idle_worker_go",
    "nodes_being_drained",
    "read_death",
    "read_trial_groups",
    "run_trials",
    "set_environment",
]

RAY_VERSION = "2.60"
"""Version of Ray whose source this module was written against."""

ENVIRONMENT = {
    # Tune would write a CSV, a JSON and a TensorBoard file for every trial.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # Tune would take Ctrl-C for itself.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # Tune would write its whole state every ten seconds; we never read it back.
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",
    # A worker would change its working directory, and relative paths would mean something else.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    # The new output prints a table of its own and cannot be silenced by `verbose`.
    "RAY_AIR_NEW_OUTPUT": "0",
    # Ray would report to its makers.
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""Variables that Tune and Ray read; values that the user has set are kept."""

_NEVER_RAN = "The actor never ran"
"""How Ray's last line begins where an actor died before its constructor had ended."""

_PREFIX = "posetune"
"""How the name of a trial's placement group begins."""


def set_environment() -> None:
    """Set what Tune and Ray read from the environment, before Ray starts."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def run_trials(
    actor: type[tune.Trainable],
    request: PlacementGroupFactory,
    *,
    searcher: Searcher,
    scheduler: FIFOScheduler,
    stopper: Stopper,
    trials: int,
    folder: tuple[str, Any],
    reuse_workers: bool = True,
) -> None:
    """Turn Tune's loop until the searcher has no more trials or the stopper ends it.

    Args:
        actor: the class of the workers.
        request: what a trial asks of Ray as long as the scheduler says nothing else.
        searcher: hands out the trials.
        scheduler: sees every result first.
        stopper: is asked at every turn of the loop.
        trials: the most that may be handed out.
        folder: a throw-away folder that every node sees, and its pyarrow filesystem.
        reuse_workers: whether a worker runs one trial after the other; each has its own otherwise.
    """
    keep_keys_off_command_lines()
    tune_loop.TuneController = StudyController
    path, filesystem = folder
    tune.Tuner(
        tune.with_resources(actor, request),
        tune_config=tune.TuneConfig(
            # No metric: a result without it, which most of our messages are, would end the sweep.
            search_alg=searcher,
            scheduler=scheduler,
            num_samples=trials,
            # The searcher keeps to the room there is. Unset, Tune asks for one trial ahead.
            max_concurrent_trials=trials,
            # A new process for every trial imports everything again, 4 s each.
            reuse_actors=reuse_workers,
        ),
        run_config=tune.RunConfig(
            name="sweep",
            storage_path=path,
            storage_filesystem=filesystem,
            stop=stopper,
            # Tune never gives a trial up: the study does, see `StudyController`.
            failure_config=tune.FailureConfig(max_failures=-1),
            # Tune makes it True for a class, and would ask the worker for a checkpoint at the end.
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            verbose=0,
        ),
    ).fit()


def keep_keys_off_command_lines() -> None:
    """Keep the driver's AWS keys out of what Tune copies to its actors.

    Ray puts what is copied onto the command lines of its processes, where every user of the machine
    can read it. A local worker inherits the keys; the nodes of a cluster have their own.
    """
    copied = class_cache.ENV_VARS_TO_PROPAGATE
    class_cache.ENV_VARS_TO_PROPAGATE = {name for name in copied if not name.startswith("AWS_")}


class SweepStopper(Stopper):
    """Ends Tune's loop for the whole sweep, never a single trial.

    A stopper that ends a trial bypasses the scheduler, and with it the study. Tune asks `stop_all`
    at every turn of its loop, so this is also where the driver looks about.
    """

    def __init__(self, look: Callable[[], None], is_over: Callable[[], bool]) -> None:
        self._look = look
        self._is_over = is_over

    def __call__(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        """Let every trial go on."""
        return False

    def stop_all(self) -> bool:
        """Look about, and say whether the sweep is over."""
        self._look()
        return self._is_over()

    def __reduce__(self) -> Any:
        """Leave nothing to pickle: Tune saves the stopper at the start, and nobody reads it."""
        return (object, ())


class StatelessScheduler(FIFOScheduler):
    """A scheduler that keeps nothing in Tune's state and starts trials in their order."""

    def choose_trial_to_run(self, tune_controller: Any) -> None:
        """Choose none: Tune queues trials by itself, in their order.

        The oldest pending trial, which is Tune's usual choice, would take any worker that is free,
        and have the one killed that is starting for it; the next trial then waits for another.
        With many slots, and trials shorter than the start of a process, they were never all busy.
        """

    def debug_string(self) -> str:
        """Return nothing: the sweep has a table of its own."""
        return ""

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: the study is the truth, and Tune's state is never read back."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing."""

    def __getstate__(self) -> dict[str, Any]:
        """Leave nothing to pickle: Tune pickles the scheduler at the start."""
        return {}


class StatelessSearcher(Searcher):
    """A searcher that keeps nothing in Tune's state and limits itself.

    It must not answer None while no trial is under way: Tune's loop would sleep on that.
    """

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Do nothing: Tune does not ask here when the scheduler stops the trial."""

    def set_search_properties(self, *_args: Any, **_spec: Any) -> bool:
        """Accept anything: metric and space are the study's."""
        return True

    def set_max_concurrency(self, max_concurrent: int) -> bool:
        """Say that the searcher limits itself: the limiter that Tune puts around it does not."""
        return True

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: the study is the truth, and Tune's state is never read back."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing."""

    def __getstate__(self) -> dict[str, Any]:
        """Leave nothing to pickle: Tune pickles the searcher at the start."""
        return {}


# -- a trial of Tune's -----------------------------------------------------------------------------


class StudyController(TuneController):
    """Tune's loop, which never gives a trial up: that is the study's to decide.

    Tune hears twice of one death, first from the actor and then from the call that it was at. Of a
    trial that runs, the first lets go of the actor and the second queues the trial again. Of one
    that waits for a reused worker, the first queues it, and the second would end it: Tune asks
    nobody about a trial that is queued.
    """

    def _schedule_trial_task(self, trial: Trial, *args: Any, **kwargs: Any) -> Any:
        """Call a worker; hear of its death once."""
        worker, on_error = self._trial_to_actor[trial], kwargs.get("on_error")

        def hear_once(trial: Trial, exception: Exception) -> None:
            now = self._trial_to_actor.get(trial)
            is_news = now is worker or (now is None and trial.status == Trial.RUNNING)
            if on_error is not None and is_news:
                on_error(trial, exception)

        return super()._schedule_trial_task(trial, *args, **{**kwargs, "on_error": hear_once})

    def _process_trial_failure(self, trial: Trial, exception: Any) -> None:
        """Queue a trial again whose worker died or failed, also while a reused one was reset."""
        was_reset = trial in self._resetting_trials
        self._resetting_trials.discard(trial)
        if was_reset and trial.status == Trial.PENDING:
            self._set_trial_status(trial, Trial.RUNNING)
            self._unstage_trial_with_resources(trial)
        super()._process_trial_failure(trial, exception)


def end_queued_trial(tune_controller: Any, trial: Trial) -> None:
    """Let Tune forget a trial that it has just queued again: the study has ended it.

    Tune's own `stop_trial` would print the trial's last result.
    """
    tune_controller.search_alg.on_trial_complete(trial.trial_id)
    tune_controller._set_trial_status(trial, Trial.TERMINATED)


def ask_for_resources(trial: Trial, request: PlacementGroupFactory) -> None:
    """Say what a trial's next attempt asks of Ray.

    Before Tune queues it: Tune files the trials that wait by what they ask for. A trial that still
    counts as running is one that Tune gives up.
    """
    if trial.status != Trial.RUNNING:
        trial.update_resources(request)


def gpus_of(trial: Trial) -> float:
    """Return how many GPUs a trial's attempt asked Ray for."""
    request: Any = trial.placement_group_factory
    return float(request.required_resources.get("GPU", 0.0))


def forget_answers(tune_controller: Any, trial: Trial) -> None:
    """Let go of what a trial's worker has answered so far.

    Tune keeps the future of every call until the trial ends, and Ray the answer with it: 3 KB for
    each epoch of every trial under way.
    """
    manager = tune_controller._actor_manager
    futures = manager._tracked_actors_to_task_futures[tune_controller._trial_to_actor[trial]]
    futures &= manager._actor_task_events.get_futures()  # those that are still to come


def forget_statistics(trial: Trial) -> None:
    """Let go of the statistics that Tune keeps of every trial: the study has its results."""
    trial.metric_analysis.clear()
    trial.metric_n_steps.clear()


def let_idle_worker_go(tune_controller: Any) -> None:
    """End the worker that Tune keeps for a trial that may come; none is pending.

    It holds its place on the cluster meanwhile, also where that belongs to another sweep.
    """
    if not tune_controller._actor_cache.total_max_objects:
        tune_controller._cleanup_cached_actors(force_all=True)


def read_death(trial: Trial) -> str:
    """Return what Ray says of a trial's dead worker, from a file that Tune writes near the driver.

    Tune appends each error; that of a dead actor has a sentence, facts about the actor, each
    behind a tab, what Ray knows of the cause, and perhaps that its constructor had not ended.
    """
    text = ""
    if trial.error_file:
        with contextlib.suppress(OSError):
            text = Path(trial.error_file).read_text(encoding="utf-8")
    last = text.rpartition("Failure # ")[2].partition("\n")[2]
    said = [line.strip() for line in last.splitlines() if line.strip() and line[0] != "\t"]
    if said and said[-1].startswith(_NEVER_RAN):  # the cause stands before
        said = said[:-1]
    return said[-1] if said else "no message"


# -- where trials are placed -----------------------------------------------------------------------


class TrialRequest(PlacementGroupFactory):
    """What one trial of a sweep asks of Ray: a placement group whose name tells the sweep.

    Tune gives its groups no names, so drivers that share a cluster could not tell who holds what.
    """

    def __init__(self, sweep: str, resources: Resources) -> None:
        self._sweep = sweep
        self._selector = [dict(resources.labels)] if resources.labels else None
        bundle = {"CPU": resources.cpu, "GPU": resources.gpu}
        super().__init__([bundle], bundle_label_selector=self._selector)

    def to_placement_group(self) -> PlacementGroup:
        """Ask Ray for the group; Ray wants every name to be unique."""
        name = f"{_PREFIX}:{self._sweep}:{uuid.uuid4().hex}"
        group: PlacementGroup = placement_group(
            self.bundles, self.strategy, name=name, bundle_label_selector=self._selector
        )
        return group


def read_trial_groups() -> tuple[list[HeldResources], set[str]]:
    """Return what the placed trials of all sweeps hold, and the sweeps with one that waits."""
    holdings, waiting = [], set()
    for group in placement_group_table().values():
        prefix, _, rest = group["name"].partition(":")
        sweep = rest.rpartition(":")[0]
        if prefix != _PREFIX:
            continue
        if group["state"] == "CREATED":
            for index, bundle in group["bundles"].items():
                node = group["bundles_to_node_id"][index]
                amounts = {kind: float(bundle.get(kind.upper(), 0.0)) for kind in ("cpu", "gpu")}
                holdings.append(HeldResources(sweep, node, amounts))
        elif group["state"] != "REMOVED":
            waiting.add(sweep)
    return holdings, waiting


def nodes_being_drained() -> set[str]:
    """Return the ids of the nodes that are being drained; Ray Train reads them from there, too."""
    return set(ray._private.state.state.get_draining_nodes())


def dead_ray_processes() -> list[str]:
    """Return which processes have died that a Ray started by this process cannot do without.

    On a cluster that was joined there are none: its nodes are not ours to watch.
    """
    node: Any = ray._private.worker._global_node
    dead = {kind for kind, _ in node.dead_processes()} if node is not None else set()
    return sorted(dead & {PROCESS_TYPE_GCS_SERVER, PROCESS_TYPE_RAYLET})


def free_by_node() -> dict[str, dict[str, float]]:
    """Return what is free of each node's resources, by the node's id."""
    free: dict[str, dict[str, float]] = ray._private.state.available_resources_per_node()
    return free
