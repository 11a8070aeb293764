"""What cutting trials saved, and what the trials that ran on in spite of it say of its cost."""

from __future__ import annotations

import math
from dataclasses import dataclass

from posetune.study.view import SweepView

__all__ = ["Audit", "PruningBalance", "pruning_balance"]

_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Audit:
    """A trial that ran on where ASHA would have cut it."""

    trial: int
    cut_at: int
    """The epoch at which it would have ended."""
    value: float
    gain: float
    """By how much it beats the best trial that was not to be cut; negative where it does not."""


@dataclass(frozen=True)
class PruningBalance:
    """What ASHA's cuts saved and may have cost."""

    audit_share: float
    """Share of the trials that is drawn to run on."""
    cut: int
    """Trials that were cut."""
    saved_s: float
    """Training time that their missing epochs would have taken, at each trial's own pace."""
    trained_s: float
    audits: tuple[Audit, ...]
    """Of the trials that would have been cut, those that ran on all the same and are complete."""
    lost: int
    """Audited trials that ended better than every trial that was not to be cut."""
    at_most: float
    """Of the trials to be cut, the share that would have won is below this (95 %, one-sided)."""

    def __str__(self) -> str:
        if not self.cut and not self.audits:
            return "pruning cut no trial"
        share = self.saved_s / max(self.saved_s + self.trained_s, 1e-9)
        text = f"pruning cut {self.cut} trials and saved {share:.0%} of the training"
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
    """Return what pruning saved and what the audited trials say of its cost."""
    last = view.spec.pruner.max_epochs
    cut = [t for t in view.trials if t.state == "PRUNED" and t.epochs]
    complete = [t for t in view.trials if t.state == "COMPLETE"]
    kept = [t.value for t in complete if t.number not in view.audited and t.value is not None]
    sign = 1 if view.spec.objective.mode == "min" else -1
    best = min(kept, key=lambda value: sign * value, default=sign * math.inf)
    audits = tuple(
        Audit(t.number, view.audited[t.number], t.value, sign * (best - t.value))
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
        at_most=_upper_bound(lost, len(audits)),
    )


def _upper_bound(found: int, of: int) -> float:
    """Return the one-sided Clopper-Pearson bound of a share."""
    if found >= of:
        return 1.0
    from scipy.stats import beta

    return float(beta.ppf(_CONFIDENCE, found + 1, of - found))
