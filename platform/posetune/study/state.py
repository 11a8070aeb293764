"""Says what a sweep's events mean: the one fold.

`SweepState.apply` is the only code that says what an event means. A driver appends an event and
applies it; a resume, a reader, the forecast's simulation and the tests' drivers apply the same
events to a state of their own. So whatever is known of a sweep follows from its events, in their
order, and from nothing else.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from posetune.spec.sweep import Budget, SweepSpec
from posetune.study import act_events, events
from posetune.study.acts.folding import ACT_MEANINGS, begin_from_parent
from posetune.study.budget import BudgetLedger
from posetune.study.faults import NO_PROGRESS, FaultKind
from posetune.study.records import CheckpointRecord, EpochValue, ExpectedGain, Remark, SweepBest
from posetune.study.search.rungs import Decision, Rungs, compared_epochs
from posetune.study.search.tried import TriedPoints
from posetune.study.states import TrialState
from posetune.study.trials import TrialRecord

__all__ = ["StageUse", "SweepState"]


@dataclass
class StageUse:
    """How often a shared stage was trained, and how often a trial found it ready."""

    trained: int = 0
    reused: int = 0


class SweepState:
    """Where a sweep stands after some of its events; feed it each once, in order."""

    def __init__(self, spec: SweepSpec) -> None:
        """Begin before the first event.

        Args:
            spec: the sweep as it was started; events change its budget and its share of a GPU.
        """
        self.spec = spec
        self.seq = 0
        """How many events were applied, which is the number of the last one."""
        self.semantics = 0
        """Which rules the sweep was begun with; see `events.SEMANTICS`."""
        self.prior: list[dict[str, Any]] = []
        """The trials of other sweeps that its sampler knows."""
        self.notes: list[str] = []
        """Notes for people on which trials of other sweeps were left out, and why."""
        self.trials: list[TrialRecord] = []
        """Trials of the sweep, by number."""
        self.children: dict[int, list[int]] = {}
        """The trials that go on from another one's checkpoint, by the number of that one."""
        self.tried = TriedPoints(spec)
        """The points of the search space that they have had, within the bounds of now."""
        self.leading: list[int] = []
        """The trials with the best values, at whichever epochs: as many as the sweep keeps."""
        self.bests: list[SweepBest] = []
        """Every best value that the sweep has had, so each better than the one before."""
        self.gain: ExpectedGain | None = None
        """What the rest of the sweep is expected to gain, as it was known last."""
        self.gains_in_noise = 0
        """At the ends of how many trials in a row that was less than the noise between seeds."""
        self.finalists: tuple[tuple[float, ...], ...] = ()
        """Values of trials that were trained again with further seeds, for each of these trials."""
        self.ended: list[int] = []
        """The trials that have ended, in the order of their ends."""
        self.waiting: list[int] = []
        """The open trials that no attempt is at, in the order in which they are taken up; without
        those that are paused."""
        self.opened_again: list[int] = []
        """Those of them that people have opened again since their last attempt; they go last."""
        self.curve_log: list[tuple[int, int]] = []
        """The trial and epoch of each report in their order, where the search models curves; epoch
        0 for a trial's failure."""
        self.begun: set[int] = set()
        """The trials that had an attempt under the newest driver."""
        self.rungs = Rungs(spec.pruner, spec.objective, spec.sampler.seed)
        self.ledger = BudgetLedger()
        self.stages: dict[str, StageUse] = {}
        self.baselines: dict[str, float] = {}
        self._whole_gpu = spec.resources.gpu
        self.shared: events.ShareMeasured | None = None
        """What was measured of the memory that a trial takes, where trials share GPUs."""
        self.peak_bytes = 0
        """The most memory of a GPU that any trial took, where trials share GPUs."""
        self.waits_for_room = ""
        """What a trial without a place on the cluster waits for; empty while none does."""
        self.broken = ""
        """Why the sweep ended itself: its trials failed alike. Empty while it has not, and from the
        next driver on after one that has said so."""
        self.failures: list[int] = []
        """The trials that failed since then, in the order of their ends."""
        self.stopped = ""
        """Why the newest driver stopped of itself; empty while it has not."""
        self.opened_at = 0.0
        """When the newest driver opened the sweep; seconds since the epoch."""
        self.driven_before_s = 0.0
        """Seconds for which earlier drivers were at work, from start to last event."""
        self._last_at = 0.0
        """The last event of the newest driver."""
        self.compared = compared_epochs(spec.pruner)
        """The epochs whose values are compared between trials."""
        self._models_curves = spec.sampler.name == "gp"
        self.owner = ""
        """Who started the sweep, as person@host; empty where it is not known."""
        self.queue: list[act_events.TrialEnqueued] = []
        """The trials that people have enqueued and that were not asked for yet, in their order."""
        self.held_by = ""
        """Who holds the sweep, as person@host; empty while nobody does."""
        self.edited: act_events.SweepEdited | None = None
        """The last edit; None where the sweep has the file that it was started with."""
        self.remarks: list[Remark] = []
        """What people wrote about the sweep."""
        self.tags: dict[str, str] = {}
        """What people tagged the sweep with."""

    @property
    def driven_s(self) -> float:
        """For how long drivers have been at work."""
        return self.driven_before_s + self._last_at - self.opened_at

    @property
    def most_trials(self) -> int:
        """How many trials the sweep can have: those of its budget, or of its whole space.

        They are not fewer than it has, also where an edit lowers the budget or narrows the bounds.
        """
        return max(self._allowed_trials, len(self.trials))

    @property
    def _allowed_trials(self) -> int:
        """How many trials the file allows: a point that was tried is not tried again."""
        most, left = self.spec.budget.trials, self.tried.left
        repeats_points = self.semantics < events.POINTS_ONCE_SINCE
        if left is None or repeats_points or self.spec.sampler.name == "one_by_one":
            return most
        repeats = self.spec.sampler.repeats
        begun = math.ceil(len(self.trials) / repeats)
        return min(most, (begun + left) * repeats)

    @property
    def used_up(self) -> str:
        """Why the sweep has fewer trials than its budget, once it has them all; or empty."""
        is_full = len(self.trials) >= self.most_trials
        if not is_full or self._allowed_trials == self.spec.budget.trials:
            return ""
        return f"all {self.tried.count} points of the search space were tried"

    @property
    def paused(self) -> list[int]:
        """The trials that wait until they promise most, by number."""
        return [number for number in sorted(self.ledger.open) if self.trials[number].is_paused]

    @property
    def keeps_best(self) -> bool:
        """Whether the checkpoints of best epochs are kept."""
        return self.semantics >= events.BEST_COUNTS_SINCE

    def leading_with(self, number: int, value: float) -> list[int]:
        """Return the best trials once one of them stands at a value that it never reached before.

        Values at best epochs only improve, so whoever is not among them comes in by a value of its
        own alone.
        """
        sign, most = self.spec.objective.sign, max(1, self.spec.keep.best)
        if len(self.leading) == most and number not in self.leading:
            last = self.leading[-1]
            best = self.trials[last].best
            if best is not None and (sign * best.value, last) < (sign * value, number):
                return self.leading
        bests = {n: best.value for n in self.leading if (best := self.trials[n].best) is not None}
        bests[number] = value
        return sorted(bests, key=lambda n: (sign * bests[n], n))[:most]

    def is_among_best(self, number: int) -> bool:
        """Whether a trial is one of the best that `keep` means."""
        return number in self.leading[: self.spec.keep.best]

    def last_epoch(self, trial: TrialRecord) -> int:
        """Return the epoch after which a trial is complete: the sweep's, or one that was chosen."""
        return trial.extended_to or self.spec.pruner.max_epochs

    def apply(self, event: events.Event) -> None:
        """Take in the next event."""
        self.seq += 1
        meaning = _MEANINGS.get(type(event)) or ACT_MEANINGS[type(event)]
        meaning(self, event)
        is_beside = type(event) in ACT_MEANINGS or getattr(event, "at_rest", False)
        if not is_beside:  # what a person does says nothing of how long a driver was at work
            self._last_at = max(self._last_at, event.at)

    # -- the sweep as a whole --------------------------------------------------------------------

    def _sweep_started(self, event: events.SweepStarted) -> None:
        self.semantics = event.semantics
        self.rungs.cuts_nan = event.semantics >= events.NAN_IS_CUT_SINCE
        if not self.keeps_best:
            self.spec = self.spec.selecting("last")
        self.prior, self.notes, self.owner = event.prior, event.notes, event.by
        self.opened_at = self._last_at = event.at

    def _driver_opened(self, event: events.DriverOpened) -> None:
        self.count_driven(event.at)
        budget = Budget.model_validate(event.budget)
        self.spec = self.spec.model_copy(update={"budget": budget})
        self._set_machine(event.machine)
        self.finalists = event.finalists
        if self.stopped:  # the driver before has told why
            self.failures = [] if self.broken else self.failures
            self.broken = ""
        self.stopped = self.waits_for_room = ""
        self.let_attempts_go()

    def _set_machine(self, machine: dict[str, Any]) -> None:
        """Let what the file says of the machine hold from now on."""
        if machine.get("share", True) or self.shared is None:
            self.spec = self.spec.with_machine(machine)
        else:  # trials have whole GPUs again
            self.spec = self.spec.with_machine({**machine, "gpu": self._whole_gpu})
            self.shared = None

    def let_attempts_go(self) -> None:
        """Let every open trial that is not paused wait for its next attempt: none is at work."""
        open_trials = [t for t in self.trials if t.state is None]
        waiting = [t.number for t in open_trials if not t.is_paused]
        self.waiting = [n for n in waiting if n not in self.opened_again] + self.opened_again
        for trial in open_trials:
            trial.holding.let_go()
        self.ledger.running.clear()
        self.begun.clear()

    def count_driven(self, at: float) -> None:
        """Count for how long a driver was at work, and begin to count anew."""
        self.driven_before_s = self.driven_s
        self.opened_at = self._last_at = at

    def _driver_closed(self, event: events.DriverClosed) -> None:
        self.stopped = event.reason

    def _share_measured(self, event: events.ShareMeasured) -> None:
        self.shared = event
        self.peak_bytes = max(self.peak_bytes, event.peak_bytes)
        self.spec = self.spec.with_share(event.gpu)

    def _room_awaited(self, event: events.RoomAwaited) -> None:
        self.waits_for_room = event.what

    def _baselines_measured(self, event: events.BaselinesMeasured) -> None:
        self.baselines = event.values

    # -- a trial ---------------------------------------------------------------------------------

    def _trial_asked(self, event: events.TrialAsked) -> None:
        asked = TrialRecord(event.trial, event.params, event.seed, event.at, chosen_by=event.by)
        self.trials.append(asked)
        self.tried.note(event.params)
        self.ledger.open.add(event.trial)
        if event.by:
            del self.queue[0]
        if event.parent is not None:
            begin_from_parent(self, asked, event)

    def _attempt_begun(self, event: events.AttemptBegun) -> None:
        trial = self.trials[event.trial]
        trial.attempt = event.attempt
        if event.is_crash:
            trial.count_crash(event.attempt - 1)
        self.ledger.held_s += trial.holding.begin(event.at, follows_death=event.follows_death)
        self.ledger.attempts += 1
        self.ledger.running.add(event.trial)
        self.begun.add(event.trial)
        self._wait_no_more(event.trial)

    def _attempt_placed(self, event: events.AttemptPlaced) -> None:
        trial = self.trials[event.trial]
        trial.placement, trial.passed_over = event.facts, event.passed_over
        setup_s = float(event.facts.get("setup_s", 0.0))
        self.ledger.held_s += trial.holding.placed(event.at, setup_s)

    def _stage_used(self, event: events.StageUsed) -> None:
        self.trials[event.trial].stages[event.stage] = sys.intern(event.key)
        use = self.stages.setdefault(event.stage, StageUse())
        use.trained += event.trained
        use.reused += not event.trained

    def _reported(self, event: events.Reported) -> None:
        trial, epoch, value = self.trials[event.trial], event.epoch, event.value
        self.rungs.record(event.trial, epoch, value, is_audited=event.is_audited)
        trial.epoch, trial.value, trial.decision = epoch, value, event.decision
        trial.why = event.why
        if self._models_curves:
            self.curve_log.append((event.trial, epoch))
        trial.values[epoch] = value
        if value is not None:
            self._note_best(trial, event.at, EpochValue(epoch, value))
        if value is not None and epoch in self.compared:
            trial.standing = (epoch, value)
        self.ledger.count_epoch(trial.last_s, event.seconds)
        trial.seconds += event.seconds
        trial.last_s = event.seconds
        trial.stalls = 0
        self._saved(trial, event.at, event.checkpoint, event.released)
        for number in event.displaced:
            self.trials[number].checkpoints = []
        if event.decision == Decision.PAUSE:
            trial.paused = event.attempt
            trial.holding.let_go()
            self.ledger.running.discard(event.trial)

    def _note_best(self, trial: TrialRecord, at: float, reported: EpochValue) -> None:
        """Take in a value: it may be the best of its trial, and that the best of the sweep."""
        better = self.spec.objective.better
        if trial.best is not None and not better(reported.value, trial.best.value):
            return
        # Another thread shows the sweep meanwhile: whoever leads has a value by then.
        trial.improvements.append(reported)
        self.leading = self.leading_with(trial.number, reported.value)
        if not self.bests or better(reported.value, self.bests[-1].value):
            reports = self.ledger.epochs + 1
            self.bests.append(SweepBest(at, reports, trial.number, *reported))

    def _epoch_repeated(self, event: events.EpochRepeated) -> None:
        self._saved(self.trials[event.trial], event.at, event.checkpoint, event.released)

    def _handed_over(self, event: events.HandedOver) -> None:
        trial = self.trials[event.trial]
        trial.handed_over = event.attempt
        trial.reached = max(trial.reached, (event.checkpoint.epoch, event.reached))
        trial.stalls = trial.stalls + 1 if event.is_stalled else 0
        if event.is_crash:
            trial.fault = NO_PROGRESS
            trial.count_crash(event.attempt)
        self._saved(trial, event.at, event.checkpoint, event.released)

    def _saved(
        self,
        trial: TrialRecord,
        at: float,
        checkpoint: CheckpointRecord | None,
        released: tuple[str, ...],
    ) -> None:
        """A trial gave a sign of life, perhaps with a checkpoint that replaces older ones."""
        self.ledger.held_s += trial.holding.seen(at)
        if checkpoint is not None:
            trial.checkpoints.append(checkpoint)
        self._release(trial, released)

    def _wait_no_more(self, number: int) -> None:
        for numbers in (self.waiting, self.opened_again):
            if number in numbers:
                numbers.remove(number)

    def _set_aside(self, event: events.SetAside) -> None:
        trial = self.trials[event.trial]
        trial.set_aside, trial.why_aside = event.attempt, event.why
        self.ledger.running.discard(event.trial)
        self.waiting.append(event.trial)

    def _attempt_failed(self, event: events.AttemptFailed) -> None:
        trial = self.trials[event.trial]
        trial.failed, trial.fault = event.attempt, event.fault
        trial.full_gpus += event.fault.kind == FaultKind.MEMORY
        trial.stalls += event.fault.kind == FaultKind.TERMINATED
        if event.is_crash:
            trial.count_crash(event.attempt)
        self.ledger.held_s += trial.holding.end(event.at)

    def _attempt_excused(self, event: events.AttemptExcused) -> None:
        trial = self.trials[event.trial]
        if event.takes_back:
            trial.crashes -= 1
            trial.blamed = 0
        else:
            trial.excused = max(trial.excused, event.attempt)

    def _memory_peaked(self, event: events.MemoryPeaked) -> None:
        self.peak_bytes = max(self.peak_bytes, event.peak_bytes)

    def _energy_measured(self, event: events.EnergyMeasured) -> None:
        trial = self.trials[event.trial]
        trial.energy_j = (trial.energy_j or 0.0) + event.joules

    def _trial_ended(self, event: events.TrialEnded) -> None:
        trial = self.trials[event.trial]
        trial.state, trial.reason, trial.ended = event.state, event.reason, event.at
        self.ended.append(event.trial)
        if self._models_curves and event.state == TrialState.FAILED:
            self.curve_log.append((event.trial, 0))
        if event.at_rest:
            trial.holding.let_go()
        self.ledger.held_s += trial.holding.end(event.at)
        self.ledger.count_end(trial, self.spec.objective, self.compared)
        if event.state == TrialState.FAILED:
            self.failures.append(event.trial)
        self.broken = event.stops_sweep or self.broken
        if event.gain is not None:
            self.gain = event.gain
            self.gains_in_noise = self.gains_in_noise + 1 if event.gain.is_noise else 0
        self._wait_no_more(event.trial)
        self._release(trial, event.released)

    def _release(self, trial: TrialRecord, folders: tuple[str, ...]) -> None:
        """Let checkpoints of a trial go, and those that its parent had kept for it alone."""
        if not folders:
            return
        family = [trial] if trial.parent is None else [trial, self.trials[trial.parent]]
        for one in family:
            one.checkpoints = [c for c in one.checkpoints if c.folder not in folders]


_MEANINGS: dict[type[events.Event], Callable[[SweepState, Any], None]] = {
    events.SweepStarted: SweepState._sweep_started,
    events.DriverOpened: SweepState._driver_opened,
    events.DriverClosed: SweepState._driver_closed,
    events.ShareMeasured: SweepState._share_measured,
    events.RoomAwaited: SweepState._room_awaited,
    events.BaselinesMeasured: SweepState._baselines_measured,
    events.TrialAsked: SweepState._trial_asked,
    events.AttemptBegun: SweepState._attempt_begun,
    events.AttemptPlaced: SweepState._attempt_placed,
    events.StageUsed: SweepState._stage_used,
    events.Reported: SweepState._reported,
    events.EpochRepeated: SweepState._epoch_repeated,
    events.HandedOver: SweepState._handed_over,
    events.SetAside: SweepState._set_aside,
    events.AttemptFailed: SweepState._attempt_failed,
    events.AttemptExcused: SweepState._attempt_excused,
    events.MemoryPeaked: SweepState._memory_peaked,
    events.EnergyMeasured: SweepState._energy_measured,
    events.TrialEnded: SweepState._trial_ended,
}
