"""Computes what cutting trials saved, and estimates what it cost from trials that ran on."""

from __future__ import annotations

import math
from dataclasses import dataclass

from posetune.study.states import TrialState
from posetune.study.view import SweepView

__all__ = ["Audit", "PruningBalance", "pruning_balance"]

_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Audit:
    """Describes a trial that ran on although ASHA would have cut it."""

    trial: int
    """Number of the trial."""
    cut_at: int
    """Epoch after which ASHA would have cut the trial."""
    value: float
    """Value of the objective at the trial's end."""
    gain: float
    """How much the trial beats the best of the trials that ASHA would not have cut, in the unit of
    the objective; negative if it does not beat it."""


@dataclass(frozen=True)
class PruningBalance:
    """Says what ASHA's cuts saved and what they may have cost."""

    audit_share: float
    """Share of the trials that are drawn to run on, from the sweep file."""
    cut: int
    """Number of trials that were cut."""
    saved_s: float
    """Seconds that the missing epochs of cut trials would have taken, at each trial's own pace."""
    trained_s: float
    """Seconds that all trials of the sweep have trained."""
    audits: tuple[Audit, ...]
    """The complete trials that ran on although ASHA would have cut them."""
    lost: int
    """Number of audited trials that ended better than every trial that ASHA would not have cut."""
    at_most: float
    """Upper bound of the share of cut trials that would have won (95 % confidence, one-sided)."""

    paused: int = 0
    """Number of trials that wait until they promise more than others."""

    def __str__(self) -> str:
        cut = f"pruning cut {self.cut} trial{'' if self.cut == 1 else 's'}"
        if self.paused:
            waiting = f"{self.paused} {'is' if self.paused == 1 else 'are'}"
            return f"{cut}; {waiting} paused and may go on"
        if not self.cut and not self.audits:
            return "pruning cut no trial"
        share = self.saved_s / max(self.saved_s + self.trained_s, 1e-9)
        text = f"{cut} and saved {share:.0%} of the training"
        if not self.audits:
            hint = (
                "none of the drawn trials was to be cut yet"
                if self.audit_share
                else ("pruner.audit_share: 0.1 would show it")
            )
            return f"{text}; what that cost is not known ({hint})"
        return (
            f"{text}; of {len(self.audits)} that ran on to see, {self.lost} ended as the best "
            f"(so at most {self.at_most:.0%} of those cut, with 95 % confidence)"
        )


def pruning_balance(view: SweepView) -> PruningBalance:
    """Return what pruning saved and, from the audited trials, what it may have cost."""
    last = view.spec.pruner.max_epochs
    cut = [t for t in view.trials if t.state == TrialState.PRUNED and t.epochs]
    complete = [t for t in view.trials if t.state == TrialState.COMPLETE]
    kept = [t.value for t in complete if t.number not in view.audited and t.value is not None]
    objective = view.spec.objective
    best = objective.best(kept) if kept else objective.sign * math.inf
    audits = tuple(
        Audit(t.number, view.audited[t.number], t.value, objective.sign * (best - t.value))
        for t in complete
        if t.number in view.audited and t.value is not None
    )
    lost = sum(audit.gain > 0 for audit in audits)
    return PruningBalance(
        audit_share=view.spec.pruner.audit_share,
        cut=len(cut),
        saved_s=sum(t.seconds / t.epochs * (last - t.epochs) for t in cut),
        trained_s=view.trained_s,
        audits=audits,
        lost=lost,
        paused=sum(trial.state == TrialState.PAUSED for trial in view.trials),
        at_most=_upper_bound(lost, len(audits)),
    )


def _upper_bound(found: int, of: int) -> float:
    """Return the one-sided Clopper-Pearson upper bound of a share that was seen as `found / of`."""
    if found >= of:
        return 1.0
    from scipy.stats import beta

    return float(beta.ppf(_CONFIDENCE, found + 1, of - found))
