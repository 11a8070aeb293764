"""Judges whether a candidate deserves an alias more than the model that holds it.

Both models are scored on the same test frames, and the difference is judged by a paired bootstrap
over motions (`resampling`). The macro average decides; no activity with enough motions may be
significantly worse. Scores are errors, and a lower error is better, so a gain is the other's error
minus the candidate's.

Shape letters: N frames, G activities, K draws.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posetune.api import BadInputError, Contest, Evaluation
from posetune.resampling import MotionBootstrap, interval

__all__ = ["LEAST_MOTIONS", "Finalist", "PairedComparison", "Verdict", "judge", "markdown"]

LEAST_MOTIONS = 10
"""Number of motions that an activity needs to stop a promotion; with fewer motions, chance would
stop too many promotions."""


@dataclass(frozen=True)
class PairedComparison:
    """Compares the candidate with another model or trivial answer on the same frames."""

    over: str
    """The frames that are compared: `all activities`, or an activity's name."""
    other: str
    """Name of the champion, or of a trivial answer."""
    motions: int
    """Number of motions that the frames belong to."""
    candidate: float
    """Mean error of the candidate, in the unit of the verdict."""
    other_error: float
    """Mean error of the other, in the unit of the verdict."""
    gain: float
    """Error of the other minus that of the candidate; positive if the candidate is better."""
    low: float
    """Low end of the gain's 95 % interval; NaN if there is only one motion."""
    high: float
    """High end of the gain's 95 % interval; NaN if there is only one motion."""

    @property
    def better(self) -> bool:
        """Whether the candidate is significantly better."""
        return self.low > 0

    @property
    def worse(self) -> bool:
        """Whether the candidate is significantly worse."""
        return self.high < 0


@dataclass(frozen=True)
class Finalist:
    """Holds the results of a trial that was trained again with further seeds."""

    trial: int
    """Number of the trial."""
    values: tuple[float, ...]
    """Values of the objective on validation: the trial's own first, then one per further seed."""

    @property
    def mean(self) -> float:
        """The mean of the values, which ranks the finalists."""
        return sum(self.values) / len(self.values)

    @property
    def is_finite(self) -> bool:
        """Whether the mean is a finite number, so that it can be compared."""
        return math.isfinite(self.mean)


@dataclass(frozen=True)
class Verdict:
    """Says whether the gate lets a candidate pass, with all numbers behind it."""

    passed: bool
    """Whether the candidate may take the alias."""
    reason: str
    """Why the candidate passed or failed, in words."""
    unit: str
    """Unit of the errors and gains, e.g. mm."""
    comparisons: tuple[PairedComparison, ...]
    """All comparisons; those over all activities come first."""


def judge(candidate: Evaluation, champion: Evaluation | None, *, champion_name: str) -> Verdict:
    """Compare a candidate with the champion, or with trivial answers if there is no champion.

    Args:
        candidate: evaluation of the candidate on the test split.
        champion: evaluation of the champion on the same frames; None if there is no champion yet.
            The candidate must beat every rival of `Contest.rivals` then.
        champion_name: name of the champion, for people.

    Raises:
        BadInputError: the two cannot be compared.
    """
    contest = _contest(candidate)
    records = candidate.records
    if not np.isfinite(records[contest.score]).all():
        return Verdict(False, "the candidate's errors are not all finite", contest.unit, ())
    if champion is None:
        others = {name: records[column] for name, column in contest.rivals.items()}
    else:
        _check_pair(candidate, champion)
        others = {champion_name: champion.records[contest.score]}
    match = _Match(records, contest.score)
    macro = [match.macro(name, _finite(error_n)) for name, error_n in others.items()]
    activities = [
        comparison
        for name, error_n in others.items()
        for comparison in match.activities(name, _finite(error_n), contest.activities)
        if champion is not None
    ]
    lost = [f"not significantly better than {c.other} over {c.over}" for c in macro if not c.better]
    lost += [
        f"significantly worse in {c.over} ({c.motions} motions)" for c in activities if c.worse
    ]
    won = f"significantly better than {' and '.join(others)}"
    return Verdict(not lost, "; ".join(lost) or won, contest.unit, tuple([*macro, *activities]))


def markdown(verdict: Verdict) -> str:
    """Return a verdict's numbers as a Markdown table."""
    lines = [
        f"| over | motions | candidate, {verdict.unit} | against | its error | gain | 95 % |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {c.over} | {c.motions} | {c.candidate:.4g} | {c.other} | {c.other_error:.4g} | "
        f"{c.gain:+.3g} | {c.low:+.3g} to {c.high:+.3g} |"
        for c in verdict.comparisons
    ]
    return "\n".join(lines)


class _Match:
    """Compares the candidate with others, all on the same draws of motions."""

    def __init__(self, records: Any, score: str) -> None:
        self._records = records
        self._error_n = np.asarray(records[score], dtype=np.float64)
        self._drawn = MotionBootstrap(records["motion"])

    def macro(self, name: str, other_n: NDArray[Any]) -> PairedComparison:
        """Compare the macro averages."""
        group_n = self._records["group"]
        drawn_k = self._drawn.macro(other_n - self._error_n, group_n)
        means = [_macro(error_n, group_n) for error_n in (self._error_n, other_n)]
        return _compare("all activities", name, means, drawn_k, self._drawn.motions)

    def activities(
        self, name: str, other_n: NDArray[Any], names: Sequence[str]
    ) -> list[PairedComparison]:
        """Compare the means over the frames of each activity that has enough motions."""
        present, place_n = np.unique(self._records["activity"], return_inverse=True)
        drawn_kg = self._drawn.means(other_n - self._error_n, place_n)
        found = []
        for i, activity in enumerate(present):
            member_n = place_n == i
            motions = len(np.unique(self._records["motion"][member_n]))
            if motions >= LEAST_MOTIONS:
                means = [float(e[member_n].mean()) for e in (self._error_n, other_n)]
                found.append(_compare(names[activity], name, means, drawn_kg[:, i], motions))
        return found


def _compare(
    over: str, name: str, means: Sequence[float], drawn_k: NDArray[Any], motions: int
) -> PairedComparison:
    low, high = interval(drawn_k, motions)
    mine, other = means
    return PairedComparison(over, name, motions, mine, other, other - mine, low, high)


def _macro(error_n: NDArray[Any], group_n: NDArray[Any]) -> float:
    return float((np.bincount(group_n, weights=error_n) / np.bincount(group_n)).mean())


def _finite(error_n: NDArray[Any]) -> NDArray[Any]:
    """Return errors (N,) in which those that are not finite are as large as the largest finite one.

    It is applied to the other's errors only: a candidate with such errors is refused.
    """
    finite_n = np.isfinite(error_n)
    if not finite_n.any():
        raise BadInputError(
            "none of the present champion's errors is finite, so it cannot be compared; give "
            "--force --reason"
        )
    return np.where(finite_n, error_n, error_n[finite_n].max())


def _contest(evaluation: Evaluation) -> Contest:
    if evaluation.contest is None:
        raise BadInputError(
            "the trainable's evaluation has no `contest`, which names the score that the gate "
            "compares; promote to `candidate`, or give --force --reason"
        )
    return evaluation.contest


def _check_pair(candidate: Evaluation, champion: Evaluation) -> None:
    """Refuse models that were not scored on the same frames or were given different things."""
    mine, other = _contest(candidate), _contest(champion)
    if (mine.score, mine.sees) != (other.score, other.sees):
        raise BadInputError(
            f"the candidate is scored by {mine.score} and sees {mine.sees}, the present champion "
            f"by {other.score} and sees {other.sees}, so they cannot be compared; use another "
            "model name, or give --force --reason"
        )
    for column in ("motion", "activity", "group"):
        if not np.array_equal(candidate.records[column], champion.records[column]):
            raise BadInputError(
                "candidate and champion were scored on different test frames; evaluate both on "
                "the same store"
            )
