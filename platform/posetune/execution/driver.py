"""Runs a sweep: the main path of the platform.

`run_sweep` opens the study (which refuses, continues or starts the sweep), starts Ray, and lets
Tune's loop turn with our two adapters until nothing is left. All that Tune keeps of its own goes
into a throw-away folder; the same command again builds everything from the study.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sqlalchemy.exc import OperationalError, SQLAlchemyError

from posetune.api import BadInputError, Trainable, is_reusable
from posetune.execution.driver_context import REQUESTS_S, DriverContext, StopRequest
from posetune.execution.own_ray import OwnRayWatch
from posetune.home import Home
from posetune.spec.sweep import ClusterRules, Resources
from posetune.storage.store_place import StorePlace
from posetune.study.driving.sweep import SweepRun
from posetune.study.sharing.turn import ClusterTurn
from posetune.study.tables.lease import LeaseLostError
from posetune.trial.checkpoints import drop_orphans

if TYPE_CHECKING:  # Ray takes a second to import, and most bad input was refused by then
    from posetune.execution.nodes.placement import ClusterWatch

__all__ = ["StudyLostError", "run_sweep"]

OBJECT_STORE_BYTES = 128 * 1024**2
"""Size of Ray's object store, in bytes. Trials and stages exchange files, not objects, and Ray
would take 30 % of the memory."""

MORE_TRIALS = 1000
"""How many more trials Tune may be given than are left at first, because people take some up again
or raise the budget meanwhile. Beyond that its loop is turned once more."""


class StudyLostError(RuntimeError):
    """The driver cannot write to its study any more; the message says why. Nothing is lost."""


def run_sweep(
    run: SweepRun,
    trainable: type[Trainable],
    *,
    store: StorePlace,
    home: Home,
    address: str | None = None,
    stopping: StopRequest | None = None,
    cluster_rules: Callable[[], ClusterRules] | None = None,
) -> str:
    """Run what is left of a sweep and return why it ended.

    Args:
        run: the opened sweep; closed before this returns.
        trainable: the class that the sweep file names.
        store: where the data is.
        home: where checkpoints and products go.
        address: a Ray cluster to join; a local one is started without.
        stopping: set its reason to stop; it is also set by SIGINT and SIGTERM.
        cluster_rules: gives how the sweep shares the cluster, as it is now (default: as the sweep
            was opened).

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
            if run.may_start and not (run.spent or run.broken):
                from posetune.execution.nodes.store_copy import seen_here

                with (
                    contextlib.ExitStack() as until_ray_has_ended,
                    _ray(address, run, stopping) as cluster,
                ):
                    # Ray takes SIGTERM when it starts, and would abort on it; also while it ends.
                    until_ray_has_ended.enter_context(stopping.on_signals())
                    store = seen_here(store)
                    turn = ClusterTurn(run, cluster, cluster_rules)
                    # Tune's loop is turned again if ended trials left budget for further ones.
                    while run.may_start and not (stopping.reason or run.spent or run.broken):
                        if run.held:
                            _wait_for_release(run, stopping)
                            continue
                        context = DriverContext(
                            run, trainable, store=store, home=home, stopping=stopping, turn=turn
                        )
                        with contextlib.closing(context):
                            _tune(context)
        reason = stopping.reason or run.broken or run.spent or run.short or run.finished
    except BaseException as error:
        lost = _loss_of_study(error)
        if lost:
            run.give_up_waiting()
        with contextlib.suppress(SQLAlchemyError, LeaseLostError):
            run.close(lost or f"{type(error).__name__}: {error}")
        if lost and stopping.asked_by_user:
            return stopping.reason  # the next driver repeats what was not committed
        if lost:
            raise StudyLostError(lost) from error
        raise
    run.close(reason)
    return reason


def _loss_of_study(error: BaseException | None) -> str:
    """Return why the study cannot be written; empty where an error of Tune's has another cause."""
    while error is not None:
        if isinstance(error, LeaseLostError):
            return str(error)
        if isinstance(error, OperationalError):
            return f"the study database is away ({str(error.orig).strip().splitlines()[0]})"
        error = error.__cause__ or error.__context__
    return ""


def _wait_for_release(run: SweepRun, stopping: StopRequest) -> None:
    """Wait until somebody releases the sweep, or its driver is told to stop."""
    while run.held and not stopping.reason:
        time.sleep(REQUESTS_S)
        run.check_lease()
        run.take_up_requests()
        stopping.heed(run.lease.stop_asked)


def _wait_for_turn(context: DriverContext, watch: ClusterWatch) -> None:
    """Wait while other sweeps are served first, unless there is a reason to stop."""
    run = context.run
    while not context.turn.may_start and run.may_start and not context.stop_reason():
        time.sleep(REQUESTS_S)
        run.check_lease()
        context.take_up_requests()
        watch.look()
    watch.end_wait()


def _tune(context: DriverContext) -> None:
    """Turn Tune's loop once, until nothing is left or there is a reason to stop."""
    from posetune.execution.actor import TrialActor
    from posetune.execution.nodes.placement import ClusterWatch, measure_share
    from posetune.execution.scheduler import StudyScheduler
    from posetune.execution.searcher import StudySearcher
    from posetune.execution.tune_adapter import SweepStopper, TrialRequest, run_trials

    watch = ClusterWatch(context)
    _wait_for_turn(context, watch)
    measure_share(context)
    resources, storage = context.run.spec.resources, context.home.storage
    scheduler = StudyScheduler(context, watch)

    def look() -> None:
        watch.look()
        scheduler.look()
        context.take_up_requests()

    def is_over() -> bool:
        return context.preemption.is_over() or (watch.only_waits and context.let_others_pass())

    with (
        contextlib.closing(watch),
        storage.scratch(f"tune-{context.run.name}") as folder,
    ):
        run_trials(
            TrialActor,
            TrialRequest(context.run.name, resources),
            searcher=StudySearcher(context, watch),
            scheduler=scheduler,
            stopper=SweepStopper(look, is_over),
            trials=context.run.attempts_left + MORE_TRIALS,
            folder=folder,
            reuse_workers=is_reusable(context.trainable),
        )


@contextmanager
def _ray(address: str | None, run: SweepRun, stopping: StopRequest) -> Iterator[str]:
    """Join a cluster or start Ray for a block, and leave it at the end; give the cluster's id."""
    from posetune.execution.connection import connected
    from posetune.execution.jobs.job_folder import own_folder
    from posetune.execution.nodes.placement import read_cluster
    from posetune.execution.tune_adapter import dead_ray_processes, set_environment

    set_environment()
    if address:  # nodes may still join a cluster, and the sweep says what it waits for
        with own_folder(), connected(address):
            yield read_cluster()
        return

    def say_and_close() -> None:
        run.give_up_waiting()
        stopping.last_words(stopping.reason)
        run.close(stopping.reason)

    watch = OwnRayWatch(dead_ray_processes, on_death=stopping.fail, last_words=say_and_close)
    own = {"include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
    with watch.leaving(), own_folder(), connected(None, **own):
        _check_size(run.spec.resources)
        with watch.looking():
            yield read_cluster()


def _check_size(resources: Resources) -> None:
    """Refuse trials that this machine can never run."""
    from posetune.execution.nodes.cluster_room import describe_wait, slots
    from posetune.execution.nodes.placement import read_nodes

    asked, nodes = {"cpu": resources.cpu, "gpu": resources.gpu}, read_nodes()
    if slots(asked, resources.labels, nodes) < 1:
        wait = describe_wait(asked, resources.labels, nodes, [])
        raise BadInputError(
            f"resources: one trial asks for {wait}; lower `resources` in the sweep file or join a "
            "larger cluster (--address)"
        )
