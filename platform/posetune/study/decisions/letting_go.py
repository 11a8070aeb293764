"""Decides which checkpoints a sweep lets go, with each event that may make one needless.

An open trial needs its newest checkpoints and, where the sweep keeps them, that of its best epoch;
one that has ended needs those of its best and last epoch while it is among the sweep's best. What
other trials go on from is kept until each of them has a checkpoint of its own, or has ended.
"""

from __future__ import annotations

from posetune.study.records import CheckpointRecord, EpochValue
from posetune.study.state import SweepState
from posetune.study.states import TrialState
from posetune.study.trials import TrialRecord, split_needed

__all__ = ["after", "at_end", "best_with", "displaced"]

_UNFINISHED = (TrialState.PRUNED, TrialState.FAILED)
"""How a trial ends whose checkpoints are kept only while it is among the best."""


def best_with(
    state: SweepState, trial: TrialRecord, epoch: int, value: float | None
) -> EpochValue | None:
    """Return a trial's best epoch once it has reported another value."""
    best, better = trial.best, state.spec.objective.better
    if value is None or (best is not None and not better(value, best.value)):
        return best
    return EpochValue(epoch, value)


def after(
    state: SweepState,
    trial: TrialRecord,
    checkpoint: CheckpointRecord | None,
    best: EpochValue | None,
) -> tuple[str, ...]:
    """Return the folders that an open trial does not need once it has another checkpoint.

    Args:
        state: the sweep.
        trial: the trial.
        checkpoint: its new one; None where it has none.
        best: its best epoch by then.
    """
    if checkpoint is None:
        return ()
    every = [*trial.checkpoints, checkpoint]
    begun_from = _begun_from(state, trial)
    _, gone = split_needed(every, None, best=_kept_epoch(state, best), begun_from=begun_from)
    return _folders(gone) + _of_parent(state, trial)


def displaced(state: SweepState, trial: TrialRecord, best: EpochValue | None) -> tuple[int, ...]:
    """Return the ended trials that are not among the best once a trial has a new best."""
    if best is None or best == trial.best or not state.keeps_best:
        return ()
    staying = state.leading_with(trial.number, best.value)
    left = [state.trials[number] for number in state.leading if number not in staying]
    return tuple(
        one.number
        for one in left
        if one.state in _UNFINISHED and one.checkpoints and not _begun_from(state, one)
    )


def at_end(state: SweepState, trial: TrialRecord, ending: TrialState) -> tuple[str, ...]:
    """Return the folders that a trial does not need once it has ended in a state."""
    whole = [saved for saved in trial.checkpoints if saved.folder not in trial.passed_over]
    needed, _ = split_needed(
        whole,
        ending,
        best=_kept_epoch(state, trial.best),
        is_among_best=state.keeps_best and state.is_among_best(trial.number),
        begun_from=_begun_from(state, trial),
    )
    own = _folders([saved for saved in trial.checkpoints if saved not in needed])
    return own + _of_parent(state, trial)


def _begun_from(
    state: SweepState, parent: TrialRecord, *, besides: int | None = None
) -> frozenset[int]:
    """Return the epochs of a trial from which others have yet to go on.

    Args:
        state: the sweep.
        parent: the trial.
        besides: one of the others that does not count.
    """
    epochs = {one.parent_epoch for one in state.queue if one.parent == parent.number}
    for number in state.children.get(parent.number, ()):
        child = state.trials[number]
        if number != besides and child.state is None and not child.checkpoints:
            epochs.add(child.parent_epoch)
    repeated = len(state.trials) % state.spec.sampler.repeats
    if repeated and state.trials[-repeated].parent == parent.number:  # repeats of it are to come
        epochs.add(state.trials[-repeated].parent_epoch)
    return frozenset(epochs)


def _of_parent(state: SweepState, child: TrialRecord) -> tuple[str, ...]:
    """Return the folders that a trial's parent has kept for it alone, once it needs them no more.

    A parent that is open lets them go itself, with its next checkpoint.
    """
    if child.parent is None or child.checkpoints:
        return ()
    parent = state.trials[child.parent]
    if parent.state is None:
        return ()
    _, gone = split_needed(
        parent.checkpoints,
        parent.state,
        best=_kept_epoch(state, parent.best),
        is_among_best=state.keeps_best and state.is_among_best(parent.number),
        begun_from=_begun_from(state, parent, besides=child.number),
    )
    return _folders(gone)


def _kept_epoch(state: SweepState, best: EpochValue | None) -> int | None:
    """Return the epoch whose checkpoint is kept because it is a trial's best."""
    return best.epoch if best is not None and state.keeps_best else None


def _folders(checkpoints: list[CheckpointRecord]) -> tuple[str, ...]:
    return tuple(checkpoint.folder for checkpoint in checkpoints)
