"""Decides by a sweep's pruner which trial goes on: after a report, and after a pause.

`PrunerRule` follows from the committed events alone. A pruner that pauses trials (`thaw`) compares
them by the model of learning curves that is the sampler, too (`gp`).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from posetune.study.decisions.budget_rule import BudgetRule
from posetune.study.search.contracts import NamedPruner
from posetune.study.search.rungs import Decision, RungVerdict
from posetune.study.state import SweepState
from posetune.study.trials import TrialRecord

if TYPE_CHECKING:
    from posetune.study.search.curves.search import CurveSearch
    from posetune.study.search.curves.thaw import Selection, Thaw

__all__ = ["PrunerRule"]


class PrunerRule:
    """Decides which trial is cut, paused or resumed."""

    def __init__(self, state: SweepState, budget: BudgetRule, curves: CurveSearch | None) -> None:
        """Decide for a sweep as its state stands at each question.

        Args:
            state: the sweep; it changes with its events.
            budget: says which trials may train on.
            curves: the model of the sweep's curves; None where its sampler has none.
        """
        self._state, self._budget = state, budget
        self._thaw = _thaw(state, curves)
        is_named = ":" in state.spec.pruner.name
        self._named = NamedPruner(state.spec, state.trials) if is_named else None

    def verdict(self, trial: TrialRecord, epoch: int, value: float | None) -> RungVerdict:
        """Return what the rungs say of a report, unless a person has chosen otherwise.

        A pinned trial runs on where it would have been cut, and from there on it is compared with
        nobody; an extended one ends at the epoch that was chosen, and is compared with nobody.
        """
        if trial.extended_to is not None:
            is_last = epoch >= trial.extended_to
            return RungVerdict(Decision.COMPLETE if is_last else Decision.CONTINUE)
        verdict = self._judge(trial.number, epoch, value)
        if verdict.decision in (Decision.PRUNE, Decision.PAUSE) and trial.is_pinned:
            return RungVerdict(Decision.CONTINUE, is_audited=True)
        is_stopped = trial.stop_after is not None and epoch >= trial.stop_after
        if verdict.decision == Decision.PAUSE and is_stopped:
            return RungVerdict(Decision.CONTINUE)  # it ends where a person wants it to
        return verdict

    def may_resume(self, handed_out: Collection[int] = ()) -> bool:
        """Whether a paused trial may train on, or is to be cut."""
        return self._thaw is not None and bool(self._resumable(handed_out))

    def choose(self, handed_out: Collection[int] = ()) -> Selection | None:
        """Return whether a paused trial goes on or a new one begins, and which are cut.

        None where no trial is ever paused.

        Args:
            handed_out: the trials that are taken up already, though no attempt has begun.
        """
        if self._thaw is None:
            return None
        at_work = sorted({*self._state.ledger.running, *handed_out})
        paused = self._resumable(handed_out)
        return self._thaw.choose(paused, at_work, self._next_number, is_final=self._is_final)

    def _judge(self, number: int, epoch: int, value: float | None) -> RungVerdict:
        """Return what the pruner says of a report."""
        if self._named is not None:
            return self._named.decide(number, epoch, value)
        if self._thaw is None:
            return self._state.rungs.decide(number, epoch, value)
        paused = [n for n in self._state.paused if n != number]
        at_work = sorted(self._state.ledger.running - {number, *paused})
        return self._thaw.decide(
            number,
            epoch,
            value,
            paused=paused,
            at_work=at_work,
            next_number=self._next_number,
            is_final=self._is_final,
        )

    @property
    def _is_final(self) -> bool:
        """Whether the sweep has all its trials."""
        return len(self._state.trials) >= self._state.most_trials

    @property
    def _next_number(self) -> int | None:
        """The number of the next new trial; None where the budget has no room for one."""
        may_begin = not self._is_final and self._budget.may_train(None)
        return len(self._state.trials) if may_begin else None

    def _resumable(self, handed_out: Collection[int]) -> list[int]:
        trials, may_train = self._state.trials, self._budget.may_train
        paused = (number for number in self._state.paused if number not in handed_out)
        return [number for number in paused if may_train(trials[number])]


def _thaw(state: SweepState, curves: CurveSearch | None) -> Thaw | None:
    """Return what pauses a sweep's trials, where its pruner does."""
    if curves is None or state.spec.pruner.name != "thaw":
        return None
    from posetune.study.search.curves.thaw import Thaw

    return Thaw(curves)
