"""Pauses trials, and lets those go on that promise most: `pruner: {name: thaw}`.

Where curves cross, a cut loses trials that would have won late. Here a trial that falls behind is
paused with its checkpoint and may go on later. At each rung the expected improvement of the trial's
end is compared with that of every paused trial and of the best new point (`search`); the most
promising of them trains next. When no new trial may begin, paused ones go on as long as they may
still win, and the others are cut.

    report of trial t at epoch e
        e is the last           COMPLETE
        e is no rung            CONTINUE
        too few trials begun    PAUSE, so that the model sees more than one
        otherwise               CONTINUE if t promises most, else PAUSE

Source: Swersky et al., Freeze-Thaw Bayesian Optimization (2014).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from posetune.study.search.curves.model import (
    Ends,
    log_chance_to_win,
    log_expected_improvement,
)
from posetune.study.search.curves.search import CurveSearch, Outlook, Proposal
from posetune.study.search.rungs import Decision, RungVerdict, rung_epochs

__all__ = ["Selection", "Thaw"]

MAY_WIN = 0.01
"""Chance to become the best below which a trial is not trained on when no new one may begin."""
SPREADS = 1.2816
"""Half of an interval of 80 %, in standard deviations."""


@dataclass(frozen=True)
class Selection:
    """What trains next."""

    resumed: int | None = None
    """The paused trial that goes on; a new one begins where it is None and one may begin."""
    hopeless: dict[int, str] = field(default_factory=dict)
    """The paused trials that are cut, and why."""


class Rival(NamedTuple):
    """The most promising of those that are not at work."""

    name: str
    log_gain: float
    mean: float


class Thaw:
    """Decides for one sweep, as its events stand at each question."""

    def __init__(self, search: CurveSearch) -> None:
        self._search = search
        self._rungs = set(rung_epochs(search.spec.pruner))
        self._last = search.spec.pruner.max_epochs

    def decide(
        self,
        trial: int,
        epoch: int,
        value: float | None,
        *,
        paused: Sequence[int],
        at_work: Sequence[int],
        next_number: int | None,
        is_final: bool,
    ) -> RungVerdict:
        """Decide of a report that is not recorded yet.

        Args:
            trial: its number.
            epoch: 1 for the first.
            value: the objective, or None where it was not a number.
            paused: the trials that are paused.
            at_work: the others that are trained meanwhile.
            next_number: the number of the next new trial; None where none may begin now.
            is_final: whether none may begin any more.
        """
        if epoch >= self._last:
            return RungVerdict(Decision.COMPLETE)
        if epoch not in self._rungs or value is None:
            return RungVerdict(Decision.CONTINUE)
        if next_number is not None and next_number < self._search.startup:
            why = f"{self._search.startup} trials begin before any goes on"
            return RungVerdict(Decision.PAUSE, why=why)
        now = trial, epoch, value
        outlook = self._search.look(at_work, first=[trial, *paused], now=now)
        assert outlook is not None  # there is this report at least
        paused = outlook.observed(paused)
        ends = outlook.ends([trial, *paused])
        gains = log_expected_improvement(ends, outlook.best)
        rival = _rival(outlook, paused, ends, gains, skip=1, number=next_number)
        if is_final and not _may_win(ends, outlook)[0]:
            return RungVerdict(Decision.PRUNE, why=_hopeless(outlook, ends, 0))
        if rival is None or gains[0] >= rival.log_gain:
            return RungVerdict(Decision.CONTINUE)
        goes_on = f"{rival.name} ({outlook.value(rival.mean):.4g})"
        return RungVerdict(Decision.PAUSE, why=f"{_expected(outlook, ends, 0)}; {goes_on}")

    def choose(
        self,
        paused: Sequence[int],
        at_work: Sequence[int],
        next_number: int | None,
        *,
        is_final: bool,
    ) -> Selection:
        """Return what trains next in a free slot.

        Args:
            paused: the trials that are paused.
            at_work: those that are trained meanwhile.
            next_number: the number of the next new trial; None where none may begin now.
            is_final: whether none may begin any more.
        """
        is_early = next_number is not None and next_number < self._search.startup
        if is_early or not paused:
            return Selection()
        outlook = self._search.look(at_work, first=paused)
        assert outlook is not None  # those that are paused have reported
        paused = outlook.observed(paused)
        ends = outlook.ends(paused)
        gains = log_expected_improvement(ends, outlook.best)
        if next_number is None:
            hopes = _may_win(ends, outlook) if is_final else [True] * len(paused)
            hopeless = {
                number: _hopeless(outlook, ends, i)
                for i, number in enumerate(paused)
                if not hopes[i]
            }
            gains = np.where(hopes, gains, -math.inf)
            best = int(np.argmax(gains))
            return Selection(paused[best] if hopes[best] else None, hopeless)
        proposal = outlook.propose(next_number)
        best = int(np.argmax(gains))
        if proposal is not None and proposal.log_gain > gains[best]:
            return Selection()
        return Selection(resumed=paused[best])


def _rival(
    outlook: Outlook,
    paused: Sequence[int],
    ends: Ends,
    gains: NDArray[np.float64],
    *,
    skip: int,
    number: int | None,
) -> Rival | None:
    """Return the most promising of the paused trials and the new points; None without any."""
    found = [
        Rival(f"trial {n} goes on", float(gains[skip + i]), float(ends.mean_c[skip + i]))
        for i, n in enumerate(paused)
    ]
    proposal: Proposal | None = outlook.propose(number) if number is not None else None
    if proposal is not None:
        found.append(Rival("new parameters are tried", proposal.log_gain, proposal.mean))
    return max(found, key=lambda rival: rival.log_gain, default=None)


def _may_win(ends: Ends, outlook: Outlook) -> list[bool]:
    chances = log_chance_to_win(ends, outlook.best)
    return [bool(chance >= math.log(MAY_WIN)) for chance in chances]


def _expected(outlook: Outlook, ends: Ends, i: int) -> str:
    """Return where a trial is expected to end, with an interval of 80 %, in words."""
    mean, spread = float(ends.mean_c[i]), float(ends.spread_c[i])
    sides = [outlook.value(mean - SPREADS * spread), outlook.value(mean + SPREADS * spread)]
    low, high = sorted(sides)
    return f"expected to end at {outlook.value(mean):.4g} ({low:.4g} to {high:.4g})"


def _hopeless(outlook: Outlook, ends: Ends, i: int) -> str:
    return f"{_expected(outlook, ends, i)}, so it wins with less than {MAY_WIN:.0%}"
