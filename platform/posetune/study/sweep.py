"""The sweep as its driver sees it: asks, reports, decisions and reconciliation, without Ray.

`SweepRun` holds in memory what it needs for the next decision and can rebuild all of it from the
database. Each method appends one event in one transaction, and only then changes the memory; the
caller acts on what is returned. So a driver may be killed between any two lines: the next one,
started by the same command, opens the sweep and stands where the last commit left it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from sqlalchemy import Connection

from posetune.study import journal, schema
from posetune.study.budget import Purse
from posetune.study.database import Database
from posetune.study.lease import Lease
from posetune.study.opening import Opening, check_unchanged, create_once
from posetune.study.records import Attempt, CheckpointRecord, TrialRecord
from posetune.study.rungs import Decision, Rungs, Standing, compared_epochs
from posetune.study.sampler import SearchMemory
from posetune.study.seeding import seed_for
from posetune.study.view import SweepView, read_sweep
from posetune.study.warm import read_warm

__all__ = ["Attempt", "Opening", "StaleAttemptError", "SweepRun"]

T = TypeVar("T")


class StaleAttemptError(RuntimeError):
    """A report came from an attempt that has been replaced; it is not counted."""


class SweepRun:
    """A sweep under way; one driver at a time."""

    def __init__(
        self, database: Database, opening: Opening, clock: Callable[[], float] = time.time
    ) -> None:
        """Start the sweep, or continue it where its events end.

        Args:
            database: the study.
            opening: the sweep.
            clock: when events happen, in seconds since the epoch.

        Raises:
            BadInputError: the sweep exists with another file or store, or has a live driver.
        """
        self.name = opening.name
        self.spec = opening.spec
        self._database, self._clock = database, clock
        self._defaults = dict(opening.defaults)
        with database.reading() as connection:
            row = journal.find_sweep(connection, opening.name)
            budget = journal.read_budget(connection, dict(row)) if row else {}
        if row is None:
            self.id = create_once(database, opening)
        else:
            check_unchanged(dict(row), budget, opening)
            self.id = int(row["id"])
        self.has_baselines = False
        self.room = self.notice = ""
        """What trials wait for (a place, and all else), for who watches; empty while none does."""
        self.lease = Lease(database, self.id, self.name)
        self._rebuild()
        facts = {"budget": self.spec.budget.model_dump(), "commit": opening.commit}
        self.note("started", facts)
        self.purse.take_over()
        self._reconcile()

    # -- what the searcher asks ------------------------------------------------------------

    def next_trial(self) -> TrialRecord | None:
        """Return the next trial to run: open ones first, then a new one; None when none is left.

        The budget may leave room for none now, and for some when others have ended.
        """
        for number in self._waiting:
            if self.purse.may_train(self.trials[number]):
                self._waiting.remove(number)
                return self.trials[number]
        number = len(self.trials)
        if number >= self.spec.budget.trials or self._waiting or not self.purse.may_train(None):
            return None
        if number == 0:
            params = self._defaults
            self._memory.add(params)
        else:
            params = self._memory.ask(number)
        alike = self.spec.sampler.name == "one_by_one"  # so that only the field differs
        seed = seed_for(self.spec.sampler.seed, 0 if alike else number, "trial")
        values = {"number": number, "params": params, "seed": seed}
        identity = self._append(schema.trial, values, of_sweep=True)
        self.trials.append(TrialRecord(identity, number, dict(params), seed))
        return self.trials[number]

    @property
    def waits_for(self) -> str:
        """What the sweep is waiting for; empty while it goes on."""
        return self.notice or self.room or self._database.notice

    def share(self, gpu: float, **facts: int) -> None:
        """Record the part of a GPU that each trial takes from now on, and what was measured."""
        self.shared, self.spec = {"gpu": gpu, **facts}, self.spec.with_share(gpu)
        self.note(journal.SHARE, self.shared)
        self.purse.share(self.spec)

    def excuse(self, number: int, attempt: int, why: str) -> None:
        """Record that an attempt ended by no fault of its trial: it does not count as a crash."""
        self.note("excused", {"trial": number, "attempt": attempt, "why": why})
        self.trials[number].excuse(attempt)

    def give_up_waiting(self) -> None:
        """Let an event that cannot be committed raise, instead of waiting for the database."""
        self._database.give_up.set()

    @property
    def left(self) -> int:
        """Trials still to be handed out."""
        return len(self._waiting) + self.spec.budget.trials - len(self.trials)

    def begin_attempt(self, number: int) -> Attempt:
        """Begin the next attempt of a trial; reports of older ones are refused from now on.

        A second attempt in one driver's life means that the first one's worker died, unless it
        handed its work over or was excused.
        """
        trial = self.trials[number]
        aside = bool(trial.attempt) and trial.set_aside == trial.attempt
        died = number in self._begun and not trial.handed_over and not aside
        excused = bool(trial.attempt) and trial.excused == trial.attempt
        at = self._clock()
        values = {"trial_id": trial.id, "number": trial.attempt + 1, "at": at}
        self._append(schema.attempt, {**values, "from_epoch": trial.epoch})
        trial.attempt += 1
        trial.crashes += died and not excused
        self.purse.begin(trial, at, follows_death=died)
        self._begun.add(number)
        return Attempt(
            trial=number,
            number=trial.attempt,
            crashes=trial.crashes,
            seed=trial.seed,
            params=trial.params,
            checkpoints=tuple(reversed(trial.checkpoints)),
        )

    # -- what the scheduler reports --------------------------------------------------------

    def report(
        self,
        number: int,
        attempt: int,
        *,
        epoch: int,
        metrics: Mapping[str, float],
        seconds: float,
        checkpoint: CheckpointRecord | None,
    ) -> Decision:
        """Commit a report with its rung decision and checkpoint; return the decision.

        An epoch that was reported before (it was trained again after its checkpoint was lost)
        keeps its stored value and decision; only the checkpoint is new.

        Raises:
            StaleAttemptError: the attempt has been replaced.
        """
        trial = self._current(number, attempt)
        known = trial.decisions.get(epoch)
        value = metrics.get(self.spec.objective.metric, math.nan)
        objective = float(value) if math.isfinite(value) else None
        decision = Decision(known) if known else self._rungs.report(number, epoch, objective)
        at = self._clock()

        def commit(connection: Connection) -> None:
            if known is None:
                row = {
                    "trial_id": trial.id,
                    "attempt": attempt,
                    "epoch": epoch,
                    "value": objective,
                    "metrics": {k: (v if math.isfinite(v) else None) for k, v in metrics.items()},
                    "decision": decision.value,
                    "seconds": seconds,
                    "at": at,
                }
                journal.append(connection, schema.report, row)
            if checkpoint is not None:
                row = {"trial_id": trial.id, "at": at, **vars(checkpoint)}
                journal.append(connection, schema.checkpoint, row)

        self._write(commit)
        self.purse.seen(trial, at)
        if checkpoint is not None:
            trial.checkpoints.append(checkpoint)
        if known is None:
            trial.epoch, trial.value = epoch, objective
            trial.decisions[epoch] = decision.value
            trial.seconds += seconds
            self.purse.reported(trial, epoch, objective, seconds)
            self._memory.report(number, epoch, objective)
            self._stand(number, epoch, objective)
        return decision

    def goes_on(self, number: int) -> bool:
        """Whether the budget lets a trial train on after a report; otherwise it is set aside.

        It stays open then, and goes on when there is room for it: in this life of the driver,
        after others have ended, or in another with a larger budget.
        """
        trial = self.trials[number]
        if self.purse.may_train(trial):
            return True
        self.note(journal.SET_ASIDE, {"trial": number, "attempt": trial.attempt})
        trial.set_aside = trial.attempt
        self.purse.set_aside(number)
        self._waiting.append(number)
        return False

    def started(self, number: int, attempt: int, *, facts: Mapping[str, Any]) -> None:
        """Record where an attempt runs.

        Raises:
            StaleAttemptError: the attempt has been replaced.
        """
        trial = self._current(number, attempt)
        at = self._clock()
        values = {"trial_id": trial.id, "attempt": attempt, "facts": dict(facts), "at": at}
        self._append(schema.placement, values)
        trial.placement = dict(facts)
        self.purse.started(trial, at, float(facts.get("setup_s", 0.0)))

    def hand_over(self, number: int, attempt: int, *, checkpoint: CheckpointRecord) -> None:
        """Commit the checkpoint of an attempt that was told to stop within an epoch.

        Raises:
            StaleAttemptError: the attempt has been replaced.
        """
        trial = self._current(number, attempt)
        at = self._clock()
        self._append(schema.checkpoint, {"trial_id": trial.id, "at": at, **vars(checkpoint)})
        trial.checkpoints.append(checkpoint)
        self.purse.seen(trial, at)

    def finish(self, number: int) -> None:
        """Tell the end that the last report decided: COMPLETE or PRUNED."""
        trial = self.trials[number]
        decision = trial.decisions[trial.epoch]
        if decision == Decision.PRUNE:
            reason = f"cut by ASHA at epoch {trial.epoch}"
            self._tell(trial, "PRUNED", reason)
        elif trial.value is None:
            self._tell(trial, "FAILED", f"{self.spec.objective.metric} was not a number")
        else:
            cut = self._rungs.audited.get(number)
            audit = f"; ASHA would have cut it at epoch {cut}" if cut else ""
            self._tell(trial, "COMPLETE", f"ran its {trial.epoch} epochs{audit}")

    def fail(self, number: int, reason: str) -> None:
        """Tell that a trial failed for good."""
        self._tell(self.trials[number], "FAILED", reason)

    def stage_used(self, number: int, stage: str, *, key: str, trained: bool) -> None:
        """Record which stage product a trial used, and whether it was trained for it."""
        trial = self.trials[number]
        values = {"trial_id": trial.id, "stage": stage, "key": key, "trained": int(trained)}
        if (number, stage) not in self._stages_used:
            self._append(schema.stage_use, values, of_sweep=True)
            self._stages_used.add((number, stage))

    def baselines(self, baselines: Mapping[str, float]) -> None:
        """Record the trivial baselines on validation, once."""
        if baselines and not self.has_baselines:
            self.note("baselines", dict(baselines))
            self.has_baselines = True

    def release_checkpoints(self, number: int) -> list[CheckpointRecord]:
        """Return the checkpoints of a trial that nothing needs any more."""
        return self.trials[number].release_checkpoints()

    @property
    def spent(self) -> str:
        """Which limit of the budget is spent; empty while none is."""
        return self.purse.spent

    @property
    def short(self) -> str:
        """Why nothing is run though trials are left; empty where none is left."""
        return f"{self.purse.limit} is spent, but for less than a report" if self.left else ""

    @property
    def may_start(self) -> bool:
        """Whether there is a trial left that the budget has room for."""
        if self._waiting:
            return any(self.purse.may_train(self.trials[number]) for number in self._waiting)
        return self.left > 0 and self.purse.may_train(None)

    @property
    def best(self) -> TrialRecord | None:
        """The best trial so far, ranked as the finished sweep will be."""
        mode, standings = self.spec.objective.mode, self._standings
        judged = [t for t in list(self.trials) if t.value is not None and t.state != "FAILED"]
        return min(judged, key=lambda t: t.place(standings.get(t.number), mode), default=None)

    def view(self) -> SweepView:
        """Read the sweep as everybody sees it; from any thread."""
        return read_sweep(self._database, self.name)

    def close(self, reason: str) -> None:
        """Record why the driver stops, and give the lease back."""
        self.note("stopped", {"reason": reason})
        self.lease.release()

    # -- inside ----------------------------------------------------------------------------

    def _current(self, number: int, attempt: int) -> TrialRecord:
        trial = self.trials[number]
        if attempt != trial.attempt or trial.state is not None:
            raise StaleAttemptError(f"trial {number}: attempt {attempt} has been replaced")
        return trial

    def _rebuild(self) -> None:
        self._rungs = Rungs(self.spec.pruner, self.spec.objective.mode, self.spec.sampler.seed)
        self._standings: dict[int, Standing] = {}
        self._compared = compared_epochs(self.spec.pruner)
        with self._database.reading() as connection:
            reports = journal.read_reports(connection, self.id)
            self.trials = journal.read_trials(connection, self.id, reports)
            self._stages_used, self.has_baselines = journal.read_once(connection, self.id)
            self.stage_keys = _by_stage(journal.read_stage_keys(connection, self.id))
            """Keys of the stage products that trials used before this driver, by stage."""
            driven_s = journal.read_driven_seconds(connection, self.id)
            warm, self.warm_notes = read_warm(connection, self.id)
            self.shared = journal.read_share(connection, self.id)
        if self.shared:
            self.spec = self.spec.with_share(self.shared["gpu"])
        self._memory = SearchMemory(self.spec, warm)
        self.purse = Purse(
            self.spec,
            self.trials,
            driven_s=driven_s,
            audited=self._rungs.audited,
            clock=self._clock,
        )
        values: dict[int, dict[int, float]] = {trial.number: {} for trial in self.trials}
        for number, epoch, value, seconds, decision in reports:
            self.trials[number].decisions[epoch] = decision
            self._rungs.replay(number, epoch, value)
            self._stand(number, epoch, value)
            self.purse.recall(number, epoch, value, seconds)
            if value is not None:
                values[number][epoch] = value
        for trial in self.trials:
            self._memory.add(trial.params, values[trial.number], trial.state)
            if trial.state is not None:
                self.purse.ended(trial.number, trial.state)
        self._waiting = [trial.number for trial in self.trials if trial.state is None]
        self._begun: set[int] = set()

    def _stand(self, number: int, epoch: int, value: float | None) -> None:
        if epoch in self._compared and value is not None:
            self._standings[number] = (epoch, value)

    def _reconcile(self) -> None:
        """Tell the trials whose end was decided but not told when the last driver died."""
        for number in list(self._waiting):
            trial = self.trials[number]
            if trial.decisions.get(trial.epoch, Decision.CONTINUE) != Decision.CONTINUE:
                self._waiting.remove(number)
                self.finish(number)

    def _tell(self, trial: TrialRecord, state: str, reason: str) -> None:
        at = self._clock()
        end = {"state": state, "epoch": trial.epoch, "value": trial.value, "reason": reason}
        self._append(schema.told, {"trial_id": trial.id, "at": at, **end})
        trial.state, trial.reason = state, reason
        self.purse.told(trial, at, state)
        self._memory.tell(trial.number, state, trial.value)

    def note(self, kind: str, data: dict[str, Any]) -> None:
        """Append an event of the sweep as a whole."""
        self._append(schema.sweep_event, {"kind": kind, "data": data}, of_sweep=True)

    def _append(self, table: Any, values: dict[str, Any], *, of_sweep: bool = False) -> int:
        row = {"at": self._clock(), **values, **({"sweep_id": self.id} if of_sweep else {})}
        return self._write(lambda connection: journal.append(connection, table, row))

    def _write(self, change: Callable[[Connection], T]) -> T:
        def guarded(connection: Connection) -> T:
            self.lease.check(connection)
            return change(connection)

        return self._database.write(guarded)


def _by_stage(keys: Mapping[int, Mapping[str, str]]) -> dict[str, tuple[str, ...]]:
    """Return the different keys of each stage, the first trial's first."""
    found: dict[str, dict[str, None]] = {}
    for number in sorted(keys):
        for stage, key in keys[number].items():
            found.setdefault(stage, {})[key] = None
    return {stage: tuple(of_stage) for stage, of_stage in found.items()}
