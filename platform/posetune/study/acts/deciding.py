"""Decides which event an act becomes, as the sweep stands when the act is taken up.

It changes nothing. Who asks uses it to refuse at once what cannot be; the driver uses it again,
because the sweep has gone on meanwhile.
"""

from __future__ import annotations

from typing import Any

from posetune.api import BadInputError
from posetune.spec.parameters import Scalar
from posetune.spec.sweep import MACHINE_FIELDS, MACHINE_SECTIONS, SweepSpec
from posetune.study import act_events
from posetune.study.acts.act import (
    Act,
    AddNote,
    BranchTrial,
    EditSweep,
    Enqueue,
    ExtendTrial,
    HoldSweep,
    PinTrial,
    ReleaseSweep,
    RetryTrial,
    SetTag,
    StopTrial,
    UnknownAct,
)
from posetune.study.search.space import Space, holds
from posetune.study.search.start_from import shown
from posetune.study.state import SweepState
from posetune.study.states import TrialState
from posetune.study.trials import TrialRecord

__all__ = ["ActRefusedError", "event_of", "outside_of"]


class ActRefusedError(BadInputError):
    """An act cannot be done to the sweep as it stands; the message says why."""


def event_of(act: Act, *, by: str, at: float, state: SweepState) -> act_events.ActEvent:
    """Return the event that an act becomes.

    Args:
        act: what is wanted.
        by: by whom, as person@host.
        at: when it is taken up, in seconds since the epoch.
        state: the sweep.

    Raises:
        ActRefusedError: the sweep does not allow it.
    """
    match act:
        case AddNote():
            return act_events.NoteAdded(at, by, act.text, _number(state, act.trial))
        case SetTag():
            return act_events.TagSet(at, by, act.name, act.value, _number(state, act.trial))
        case Enqueue():
            return act_events.TrialEnqueued(at, by, _checked(state, act.params))
        case HoldSweep():
            if state.held_by:
                raise ActRefusedError(f"the sweep is held already, by {state.held_by}")
            return act_events.SweepHeld(at, by)
        case ReleaseSweep():
            if not state.held_by:
                raise ActRefusedError("the sweep is not held (posetune hold holds it)")
            return act_events.SweepReleased(at, by)
        case EditSweep():
            return _edited(act, by=by, at=at, state=state)
        case UnknownAct():
            raise ActRefusedError(f"this posetune knows no such act: {act.content}")
    return _trial_event(act, by=by, at=at, state=state)


def _trial_event(
    act: StopTrial | PinTrial | RetryTrial | ExtendTrial | BranchTrial,
    *,
    by: str,
    at: float,
    state: SweepState,
) -> act_events.ActEvent:
    trial = _trial(state, act.trial)
    match act:
        case StopTrial():
            _refuse_ended(trial)
            if trial.stop_after is not None and trial.number in state.ledger.running:
                raise ActRefusedError(
                    f"trial {trial.number}: {trial.stopped_by} has stopped it already; it ends "
                    f"after epoch {trial.stop_after}"
                )
            under_way = trial.number in state.ledger.running and not state.held_by
            return act_events.StopAsked(at, trial.number, by, trial.epoch + under_way)
        case PinTrial():
            _refuse_ended(trial)
            if trial.is_pinned:
                raise ActRefusedError(f"trial {trial.number}: is pinned already")
            return act_events.TrialPinned(at, trial.number, by)
        case RetryTrial():
            _check_retry(trial, state)
            return act_events.TrialRetried(at, trial.number, by)
        case BranchTrial():
            return _branched(act, trial, by=by, at=at, state=state)
        case ExtendTrial():
            _check_extension(trial, act.epochs)
            return act_events.TrialExtended(at, trial.number, by, act.epochs)


def _number(state: SweepState, number: int | None) -> int | None:
    return None if number is None else _trial(state, number).number


def _trial(state: SweepState, number: int) -> TrialRecord:
    if number >= len(state.trials):
        raise ActRefusedError(
            f"trial {number}: the sweep has {len(state.trials)} trials so far, from 0"
        )
    return state.trials[number]


def _refuse_ended(trial: TrialRecord) -> None:
    if trial.state is not None:
        again = {
            TrialState.FAILED: "; posetune trial retry takes it up again",
            TrialState.STOPPED: "; posetune trial retry takes it up again",
        }.get(trial.state, "; posetune trial extend lets it train on")
        raise ActRefusedError(f"trial {trial.number}: has ended, it is {trial.state}{again}")


def _check_retry(trial: TrialRecord, state: SweepState) -> None:
    if trial.state not in (TrialState.FAILED, TrialState.STOPPED):
        stands = trial.state or "open"
        raise ActRefusedError(
            f"trial {trial.number}: is {stands}; only a FAILED or STOPPED trial is taken up again"
        )
    if trial.epoch >= state.last_epoch(trial):
        raise ActRefusedError(
            f"trial {trial.number}: has trained all of its {trial.epoch} epochs, so there is "
            "nothing to train again; posetune enqueue starts another one"
        )


def _check_extension(trial: TrialRecord, epochs: int) -> None:
    if trial.state not in (TrialState.COMPLETE, TrialState.PRUNED):
        stands = trial.state or "open"
        raise ActRefusedError(
            f"trial {trial.number}: is {stands}; only a COMPLETE or PRUNED trial is extended"
        )
    if epochs <= trial.epoch:
        raise ActRefusedError(
            f"trial {trial.number}: has {trial.epoch} epochs; --epochs {epochs} must be more"
        )


def _branched(
    act: BranchTrial, parent: TrialRecord, *, by: str, at: float, state: SweepState
) -> act_events.TrialEnqueued:
    _check_extension(parent, act.epochs)
    whole = [saved.epoch for saved in parent.checkpoints if saved.is_whole]
    if not whole:
        raise ActRefusedError(
            f"trial {parent.number}: none of its checkpoints is kept (keep.best), so no other "
            "trial can go on from it; posetune enqueue begins anew"
        )
    params = _checked(state, {**parent.params, **act.params})
    return act_events.TrialEnqueued(at, by, params, parent.number, act.epochs, max(whole))


def _checked(state: SweepState, params: dict[str, Scalar]) -> dict[str, Scalar]:
    """Return all parameters of an enqueued trial, once the search space holds them."""
    spec = state.spec
    if spec.sampler.name == "one_by_one":
        raise ActRefusedError(
            "sampler.name one_by_one: an ablation has the trials that its file says, no others"
        )
    room = state.most_trials - len(state.trials) - len(state.queue) * spec.sampler.repeats
    if room <= 0:
        if state.most_trials < spec.budget.trials:
            raise ActRefusedError(
                f"the search space has room for {state.most_trials} trials, and the sweep has no "
                "trial left; give it other bounds first (posetune edit)"
            )
        raise ActRefusedError(
            f"budget.trials {spec.budget.trials}: the sweep has no trial left; raise it in the "
            "file first (posetune edit, or the command that continues it)"
        )
    unknown = sorted(set(params) - set(spec.search))
    if unknown:
        raise ActRefusedError(
            f"{unknown[0]}: is not searched; the sweep searches {', '.join(spec.search)}"
        )
    missing = sorted(set(spec.search) - set(params))
    if missing:
        raise ActRefusedError(f"{missing[0]}: has no value; give --set {missing[0]}=VALUE")
    for name, value in params.items():
        if not holds(spec.search[name], value):
            raise ActRefusedError(
                f"{name}: {value!r} lies outside of {shown(spec.search[name])}, where the sweep "
                "searches (posetune edit gives it other bounds)"
            )
    return {name: params[name] for name in spec.search}


def outside_of(spec: SweepSpec, trials: list[TrialRecord]) -> list[int]:
    """Return the trials with a parameter that lies outside of a sweep's bounds."""
    space = Space(spec.search)
    return [trial.number for trial in trials if not space.has(trial.params)]


def _ignored(state: SweepState) -> tuple[str, ...]:
    """Return what may differ in an edited file because it is not what the edit is about."""
    measured = () if state.shared is None else ("resources.gpu",)
    derived = () if state.keeps_best else ("objective.select",)  # of a sweep of before
    machine = (f"resources.{name}" for name in MACHINE_FIELDS)
    return ("store", *machine, *MACHINE_SECTIONS, *measured, *derived)


_MAY_CHANGE = ("budget", "search", "keep", "pruner.grace_epochs", "pruner.reduction_factor")
"""What an edit may change, besides what belongs to the machine."""


def _edited(act: EditSweep, *, by: str, at: float, state: SweepState) -> act_events.SweepEdited:
    new = SweepSpec.model_validate(act.spec).priced(state.spec.budget.cost_per_gpu_hour)
    if new.budget.cost is not None and new.budget.cost_per_gpu_hour is None:
        raise ActRefusedError(
            f"budget.cost: {new.budget.cost:g}: nobody has said what a GPU-hour costs; write "
            "budget.cost_per_gpu_hour into the file"
        )
    changes = _changes(state.spec.canonical(), new.canonical())
    changes = {key: pair for key, pair in changes.items() if not _is_below(key, _ignored(state))}
    refused = [key for key in changes if not _is_below(key, _MAY_CHANGE)]
    if refused:
        before, after = changes[refused[0]]
        raise ActRefusedError(
            f"{refused[0]}: {before} -> {after}: an edit changes budget, bounds, rungs and keep "
            "only; start another sweep with the new file (sampler.start_from learns from this one)"
        )
    if not changes:
        raise ActRefusedError("the file says what the sweep has already")
    if set(new.search) != set(state.spec.search):
        raise ActRefusedError(
            "search: an edit gives the same fields other bounds, not other fields"
        )
    if new.sampler.name == "gp" and any(_is_below(key, ("search",)) for key in changes):
        raise ActRefusedError(
            "search: a model of curves keeps the bounds that it was begun with; start another "
            "sweep that learns from this one (sampler.start_from)"
        )
    if new.sampler.name == "one_by_one" and any(_is_below(key, ("search",)) for key in changes):
        raise ActRefusedError("search: an ablation has the trials that its file says, no others")
    return act_events.SweepEdited(
        at=at,
        by=by,
        spec=new.canonical(),
        source=act.source,
        changed=[f"{key}: {before} -> {after}" for key, (before, after) in changes.items()],
        outside=outside_of(new, state.trials),
    )


def _changes(old: dict[str, Any], new: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return what differs between two files by dotted key, two levels deep."""
    found: dict[str, tuple[Any, Any]] = {}
    for name in {**old, **new}:
        before, after = old.get(name), new.get(name)
        if isinstance(before, dict) and isinstance(after, dict):
            for key in {**before, **after}:
                if before.get(key) != after.get(key):
                    found[f"{name}.{key}"] = (before.get(key), after.get(key))
        elif before != after:
            found[name] = (before, after)
    return found


def _is_below(key: str, sections: tuple[str, ...]) -> bool:
    return any(key == section or key.startswith(f"{section}.") for section in sections)
