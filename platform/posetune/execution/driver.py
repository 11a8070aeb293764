"""Runs a sweep: the main path of the platform.

`run_sweep` opens the study (which refuses, continues or starts the sweep), starts Ray, and lets
Tune's loop turn with our two adapters until nothing is left. All that Tune keeps of its own goes
into a throw-away folder; the same command again builds everything from the study.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sqlalchemy.exc import OperationalError, SQLAlchemyError

from posetune.api import BadInputError, Trainable
from posetune.execution.driver_context import Data, DriverContext, StopRequest
from posetune.home import Home
from posetune.spec.sweep import Resources
from posetune.study.lease import LeaseLostError
from posetune.study.sweep import SweepRun
from posetune.trial.checkpoints import drop_orphans

__all__ = ["StudyLostError", "run_sweep"]

OBJECT_STORE_BYTES = 128 * 1024**2
"""Trials and stages exchange files, not objects; Ray would take 30 % of the memory."""


class StudyLostError(RuntimeError):
    """The driver cannot write to its study any more; the message says why. Nothing is lost."""


def run_sweep(
    run: SweepRun,
    trainable: type[Trainable],
    *,
    data: Data,
    home: Home,
    address: str | None = None,
    stopping: StopRequest | None = None,
) -> str:
    """Run what is left of a sweep and return why it ended.

    Args:
        run: the opened sweep; closed before this returns.
        trainable: the class that the sweep file names.
        data: the store.
        home: where checkpoints and products go.
        address: a Ray cluster to join; a local one is started without.
        stopping: set its reason to stop; it is also set by SIGINT and SIGTERM.

    Raises:
        BadInputError: a trial asks for more than this machine has, or no cluster answers.
        RayNotStartedError: Ray does not start on this machine.
        StudyLostError: the database went away for too long, or another driver took over.
    """
    stopping = stopping or StopRequest()
    stopping.also = run.give_up_waiting
    try:
        drop_orphans(home.storage, run.name, (c for t in run.trials for c in t.checkpoints))
        with stopping.on_signals():
            if run.may_start and not run.spent:
                # Ray takes SIGTERM when it starts, and would abort on it; it is taken back.
                with _ray(address, run.spec.resources), stopping.on_signals():
                    # Again where the end of a trial left room in the budget for others.
                    while run.may_start and not (stopping.reason or run.spent):
                        _tune(
                            DriverContext(run, trainable, data=data, home=home, stopping=stopping)
                        )
        reason = stopping.reason or run.spent or run.short or "finished"
    except BaseException as error:
        lost = _loss_of_study(error)
        if lost:
            run.give_up_waiting()
        with contextlib.suppress(SQLAlchemyError, LeaseLostError):
            run.close(lost or f"{type(error).__name__}: {error}")
        if lost and stopping.asked_by_user:
            return stopping.reason  # what could not be committed did not happen
        if lost:
            raise StudyLostError(lost) from error
        raise
    run.close(reason)
    return reason


def _loss_of_study(error: BaseException | None) -> str:
    """Return why the study cannot be written, where that is what an error of Tune's comes from."""
    while error is not None:
        if isinstance(error, LeaseLostError):
            return str(error)
        if isinstance(error, OperationalError):
            return f"the study database is away ({str(error.orig).strip().splitlines()[0]})"
        error = error.__cause__ or error.__context__
    return ""


def _keep_keys_off_command_lines() -> None:
    """Tune would copy the driver's AWS keys to its actors, and Ray onto their command lines.

    A local worker inherits them; a cluster's nodes have their own.
    """
    from ray.tune.execution import class_cache

    copied = class_cache.ENV_VARS_TO_PROPAGATE
    class_cache.ENV_VARS_TO_PROPAGATE = {name for name in copied if not name.startswith("AWS_")}


def _tune(context: DriverContext) -> None:
    from ray import tune

    from posetune.execution.actor import TrialActor
    from posetune.execution.placement import ClusterWatch, TrialRequest, measure_share
    from posetune.execution.scheduler import StudyScheduler
    from posetune.execution.searcher import StudySearcher

    measure_share(context)
    resources, storage = context.run.spec.resources, context.home.storage
    watch = ClusterWatch(context)
    _keep_keys_off_command_lines()
    with contextlib.ExitStack() as at_the_end:
        scratch, filesystem = at_the_end.enter_context(storage.scratch(f"tune-{context.run.name}"))
        at_the_end.callback(context.close)
        tune.Tuner(
            tune.with_resources(TrialActor, TrialRequest(context.run.name, resources)),
            tune_config=tune.TuneConfig(
                search_alg=StudySearcher(context, watch),
                scheduler=StudyScheduler(context, watch),
                num_samples=context.run.left,
                max_concurrent_trials=context.run.left,  # the searcher keeps to the room there is
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="sweep",
                storage_path=scratch,
                storage_filesystem=filesystem,
                stop=_stopper(watch.look, context.preemption.is_over),
                failure_config=tune.FailureConfig(max_failures=-1),  # the scheduler counts
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                verbose=0,
            ),
        ).fit()


def _stopper(look: Callable[[], None], is_over: Callable[[], bool]) -> Any:
    from ray.tune import Stopper

    class StopSweep(Stopper):
        """Stops the whole sweep, never a single trial: that would bypass the scheduler.

        Tune asks it at every turn of its loop, so this is where we look about us.
        """

        def __call__(self, trial_id: str, result: Mapping[str, Any]) -> bool:
            return False

        def stop_all(self) -> bool:
            look()
            return is_over()

        def __reduce__(self) -> Any:
            return (object, ())

    return StopSweep()


_RAY_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}


@contextmanager
def _ray(address: str | None, resources: Resources) -> Iterator[None]:
    """Join or start Ray, and leave it."""
    os.environ.update({k: os.environ.get(k, v) for k, v in _RAY_ENVIRONMENT.items()})
    from posetune.execution.connection import connected

    own = {"include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
    with connected(address, **({} if address else own)):
        if not address:  # to a cluster, nodes may come; the sweep says what it waits for
            _check_size(resources)
        yield


def _check_size(resources: Resources) -> None:
    """Refuse trials that this machine can never run."""
    from posetune.execution.cluster_room import describe_wait, slots
    from posetune.execution.placement import read_nodes

    asked, nodes = {"cpu": resources.cpu, "gpu": resources.gpu}, read_nodes()
    if slots(asked, resources.labels, nodes) < 1:
        wait = describe_wait(asked, resources.labels, nodes, [])
        raise BadInputError(
            f"resources: one trial asks for {wait}; lower `resources` in the sweep file or join a "
            "larger cluster (--address)"
        )
