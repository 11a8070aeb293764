"""What the acts of people mean: the part of the one fold that `SweepState.apply` has from here."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from posetune.spec.sweep import SweepSpec
from posetune.study import act_events
from posetune.study.records import Remark
from posetune.study.search.rungs import Decision, Rungs, compared_epochs
from posetune.study.search.tried import TriedPoints
from posetune.study.states import TrialState
from posetune.study.trials import TrialRecord

if TYPE_CHECKING:
    from posetune.study.events import TrialAsked
    from posetune.study.state import SweepState

__all__ = ["ACT_MEANINGS", "begin_from_parent"]


def _note_added(state: SweepState, event: act_events.NoteAdded) -> None:
    remarks = state.remarks if event.trial is None else state.trials[event.trial].remarks
    remarks.append(Remark(event.at, event.by, event.text))


def _tag_set(state: SweepState, event: act_events.TagSet) -> None:
    tags = state.tags if event.trial is None else state.trials[event.trial].tags
    if event.value is None:
        tags.pop(event.name, None)
    else:
        tags[event.name] = event.value


def _stop_asked(state: SweepState, event: act_events.StopAsked) -> None:
    trial = state.trials[event.trial]
    trial.stop_after, trial.stopped_by = event.after, event.by


def _trial_enqueued(state: SweepState, event: act_events.TrialEnqueued) -> None:
    state.queue.append(event)


def _trial_pinned(state: SweepState, event: act_events.TrialPinned) -> None:
    trial = state.trials[event.trial]
    trial.is_pinned = True
    if trial.is_paused:  # it goes on
        trial.paused = 0
        state.waiting.append(trial.number)


def _trial_retried(state: SweepState, event: act_events.TrialRetried) -> None:
    trial = state.trials[event.trial]
    trial.crashes = trial.blamed = trial.failed = trial.full_gpus = trial.stalls = 0
    trial.fault = None
    if trial.number in state.failures:
        state.failures.remove(trial.number)
    _open_again(state, trial)


def _trial_extended(state: SweepState, event: act_events.TrialExtended) -> None:
    trial = state.trials[event.trial]
    assert trial.state is not None  # only a trial that has ended is extended
    trial.extended_to = event.epochs
    trial.taught = trial.taught or (trial.state, trial.epoch)
    # What it reports from now on is compared with nobody's: it would have ended here.
    state.rungs.audited.setdefault(trial.number, trial.epoch)
    _open_again(state, trial)


def _open_again(state: SweepState, trial: TrialRecord) -> None:
    """Let a trial that has ended wait for its next attempt."""
    trial.state, trial.reason, trial.ended = None, "", None
    trial.decision, trial.paused = Decision.CONTINUE, 0
    trial.stop_after, trial.stopped_by = None, ""
    state.ended.remove(trial.number)
    state.ledger.open.add(trial.number)
    state.waiting.append(trial.number)
    state.opened_again.append(trial.number)
    # Its next attempt does not follow from the end of the one before.
    state.begun.discard(trial.number)


def begin_from_parent(state: SweepState, trial: TrialRecord, event: TrialAsked) -> None:
    """Let a new trial go on where its parent's checkpoint stands.

    It has other parameters from there on, so what it reports is compared with nobody's.
    """
    trial.parent, trial.epoch, trial.extended_to = event.parent, event.parent_epoch, event.epochs
    trial.parent_epoch = event.parent_epoch
    trial.taught = (TrialState.STOPPED, 0)
    if event.parent is not None:
        state.children.setdefault(event.parent, []).append(trial.number)
    state.rungs.audited[trial.number] = event.parent_epoch


def _sweep_held(state: SweepState, event: act_events.SweepHeld) -> None:
    state.held_by = event.by


def _sweep_released(state: SweepState, event: act_events.SweepReleased) -> None:
    state.held_by = ""
    # While it was held, nobody was at work; its driver takes the release up after that.
    state.count_driven(event.at)
    state.let_attempts_go()


def _sweep_edited(state: SweepState, event: act_events.SweepEdited) -> None:
    new = SweepSpec.model_validate(event.spec)
    kept = {"resources": state.spec.resources, "objective": state.spec.objective}
    state.spec, state.edited = new.model_copy(update=kept), event
    state.tried = TriedPoints(state.spec, [trial.params for trial in state.trials])
    _compare_anew(state)


def _compare_anew(state: SweepState) -> None:
    """Put the values that were reported into the rungs of an edited sweep."""
    spec, audited, cuts_nan = state.spec, state.rungs.audited, state.rungs.cuts_nan
    state.rungs = Rungs(spec.pruner, spec.objective, spec.sampler.seed)
    state.rungs.cuts_nan = cuts_nan
    state.compared = compared_epochs(spec.pruner)
    state.ledger.best_complete.clear()
    for trial in state.trials:
        left_out_at = audited.get(trial.number)
        trial.standing = None
        if trial.parent is not None and left_out_at is not None:
            state.rungs.audited[trial.number] = left_out_at
        for epoch, value in sorted(trial.values.items()):
            state.rungs.record(trial.number, epoch, value, is_audited=epoch == left_out_at)
            if value is not None and epoch in state.compared:
                trial.standing = (epoch, value)
        if left_out_at is not None:
            state.rungs.audited[trial.number] = left_out_at
        if trial.state == TrialState.COMPLETE:
            state.ledger.count_best(trial, spec.objective, state.compared)


ACT_MEANINGS: dict[type[Any], Callable[[SweepState, Any], None]] = {
    act_events.NoteAdded: _note_added,
    act_events.TagSet: _tag_set,
    act_events.StopAsked: _stop_asked,
    act_events.TrialEnqueued: _trial_enqueued,
    act_events.TrialPinned: _trial_pinned,
    act_events.TrialRetried: _trial_retried,
    act_events.TrialExtended: _trial_extended,
    act_events.SweepHeld: _sweep_held,
    act_events.SweepReleased: _sweep_released,
    act_events.SweepEdited: _sweep_edited,
}
"""What `SweepState.apply` does with each of them."""
